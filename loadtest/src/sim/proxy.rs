//! A proxy: the machine that it runs in production, without the shell.

use std::time::Duration;

use hasp_proto::lease::LeaseTerms;
use hasp_proto::stream::Role;
use hasp_router::relay::{Input, Output, RelayCore, RelayCoreConfig};
use hasp_router::upstream::UpstreamConfig;

use super::world::{NodeId, World, drive};

/// One proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Anew each time it starts.
    pub core: RelayCore,
}

impl World {
    /// A proxy that is about to start.
    pub fn new_proxy(&mut self, index: usize) -> Proxy {
        let node = NodeId::Proxy(index);
        let upstream =
            UpstreamConfig::tier(self.map.clone(), Role::Proxy, &node.address(), self.random.bytes());
        let upstream = UpstreamConfig { grace: self.plan.grace.max(Duration::from_secs(10)), ..upstream };
        let terms = LeaseTerms { lease: self.plan.lease };
        let cache_bytes = if index == 2 { Some(600) } else { Some(1 << 20) };
        Proxy { core: RelayCore::new(self.local(node), RelayCoreConfig { upstream, terms, cache_bytes }) }
    }

    /// It starts, knowing nothing (`proxy-5`).
    pub fn start_proxy(&mut self, index: usize) {
        self.proxies[index] = self.new_proxy(index);
        self.proxy_inputs(index, []);
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
                    self.story.tell(self.now, node, format_args!("at {cell}: {event:?}"));
                }
                Output::Show(_) | Output::Ready | Output::Stopped => {}
            }
        }
    }
}
