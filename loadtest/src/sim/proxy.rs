//! A proxy: the machine that it runs in production and the view beside it, without the shell.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hasp_proto::lease::LeaseTerms;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Role, Up};
use hasp_proto::time::Time;
use hasp_router::relay::{Input, Output, RelayCore, RelayCoreConfig};
use hasp_router::service::view::View;
use hasp_router::upstream::{Hosts, UpstreamConfig};
use hasp_rt::clock::Clock;

use super::driving::drive;
use super::node::NodeId;
use super::world::World;

/// What a view may hold: more than is ever there, so that nothing is crowded out by another's order of hashes.
const VIEW_BYTES: usize = 1 << 30;

/// One proxy.
pub struct Proxy {
    /// Anew each time it starts.
    pub core: RelayCore,
    /// Of what is cached.
    view: View,
    clock: Arc<Shown>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("core", &self.core).finish_non_exhaustive()
    }
}

/// What the proxy's clock shows, for those who read it themselves.
#[derive(Debug, Default)]
struct Shown(AtomicU64);

impl Clock for Shown {
    fn now(&self) -> Time {
        Time::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _: Time) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        panic!("nobody sleeps in a world")
    }
}

impl World {
    /// A proxy that is about to start.
    pub fn new_proxy(&mut self, index: usize) -> Proxy {
        let node = NodeId::Proxy(index);
        let hosts = if index < self.plan.upper || self.plan.upper == 0 {
            Hosts::Cells(self.map.clone())
        } else {
            Hosts::one((0..self.plan.upper).map(|at| NodeId::Proxy(at).address()).collect::<Vec<_>>())
        };
        let upstream = UpstreamConfig::tier(hosts, Role::Proxy, &node.address(), self.random.bytes());
        let upstream = UpstreamConfig { grace: self.plan.grace.max(Duration::from_secs(10)), ..upstream };
        let terms = LeaseTerms { lease: self.plan.lease };
        let cache_bytes = if index == 2 { Some(600) } else { Some(1 << 20) };
        let clock = Arc::new(Shown::default());
        let view = View::new(self.map.cells.keys(), VIEW_BYTES, clock.clone());
        let core = RelayCore::new(
            self.local(node),
            RelayCoreConfig { upstream, map: self.map.clone(), terms, cache_bytes },
        );
        Proxy { core, view, clock }
    }

    /// It starts, knowing nothing (`proxy-5`).
    pub fn start_proxy(&mut self, index: usize) {
        self.proxies[index] = self.new_proxy(index);
        self.proxy_inputs(index, []);
    }

    /// Something came from a client. What the view can answer does not get to the machine, as in production.
    pub fn proxy_received(&mut self, index: usize, connection: ConnectionId, ups: Vec<Up>) {
        let now = self.local(NodeId::Proxy(index));
        let proxy = &self.proxies[index];
        proxy.clock.0.store(now.as_micros(), Ordering::Relaxed);
        let (mut inputs, mut answers) = (Vec::new(), Vec::new());
        for up in ups {
            match &up {
                Up::Request(request)
                    if proxy.view.answer(connection, request, |answer| answers.push(answer)) => {}
                _ => inputs.push(Input::Received(connection, up)),
            }
        }
        self.counts.viewed_reads += answers.len() as u64;
        for answer in answers {
            self.send_down(connection, Down::Answer(answer));
        }
        if !inputs.is_empty() {
            self.proxy_inputs(index, inputs);
        }
    }

    /// A client's connection is gone.
    pub fn proxy_lost(&mut self, index: usize, connection: ConnectionId) {
        self.proxies[index].view.forget(connection);
        self.proxy_inputs(index, [Input::Disconnected(connection)]);
    }

    /// Hands inputs to the machine and carries out what it wants.
    pub fn proxy_inputs(&mut self, index: usize, inputs: impl IntoIterator<Item = Input>) {
        let node = NodeId::Proxy(index);
        if !self.is_awake(node) {
            return;
        }
        let now = self.local(node);
        let mut outputs = Vec::new();
        let due = drive(&mut self.proxies[index].core, now, inputs, &mut outputs);
        self.wake_at(node, due);
        for output in outputs {
            match output {
                Output::Send(connection, down) => self.send_down(connection, down),
                Output::Close(connection) => self.close(connection),
                Output::Connect(link, address) => self.connect(node, link, &address),
                Output::Disconnect(link) => self.disconnect(node, &link),
                Output::SendUp(link, up) => self.send_up(node, &link, up),
                Output::Noticed(cell, event) => {
                    let cell = cell.as_ref().map_or("all", |cell| cell.as_str());
                    self.story.tell(self.now, node, format_args!("at {cell}: {event:?}"));
                }
                Output::Show(show) => self.proxies[index].view.show(show),
                Output::FannedOut(_) | Output::Ready | Output::Stopped => {}
            }
        }
    }
}
