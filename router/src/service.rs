//! A relay as a server: the machine between a listener and the links to the cells. Moves bytes and
//! time, and decides nothing.
//!
//! Cached reads are answered beside the machine, from the [`view`] that it writes.
//!
//! A session costs its connection's tasks, an outbox that is empty while it is idle, and the
//! machine's own record; nothing here is per session besides.

mod metrics;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod view;

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hasp_proto::client::Event;
use hasp_proto::convert::map_to_wire;
use hasp_proto::convert::request::BadRequest;
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proto::rate::Rate;
use hasp_proto::request;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Role, Up};
use hasp_proto::wire::admin::v1 as admin;
use hasp_proto::wire::v1;
use hasp_rt::clock::Clock;
use hasp_rt::driver::{Driver, Effects};
use hasp_rt::env::Env;
use hasp_rt::outbox::Outbox;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::admin_server::{Admin, AdminServer};
use hasp_rt::rpc::health::Health;
use hasp_rt::rpc::outboxes::{self, Outboxes};
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::rpc::session::{HaspService, LocateHandler, SessionHandler};
use hasp_rt::tasks::Unfinished;
use hasp_rt::telemetry::Metrics;
use hasp_rt::telemetry::trace::{Stage, Waiting};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::links::{Connections, LinkEvents, Links};
use crate::relay::{Input, Output, Phase, RelayCore, RelayCoreConfig, RelayStatus};
use crate::upstream::{Hosts, LinkId, UpstreamConfig};
use view::View;

/// Bytes that a proxy caches, about.
const CACHE_BYTES: usize = 256 * 1024 * 1024;
/// What rates are averaged over.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// How often counters are looked at for rates.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long ending the own sessions may take. What the cells do not hear by then, they find out.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long tasks may take to end after that.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// What a relay is and where.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// [`Role::Proxy`] or [`Role::Router`].
    pub role: Role,
    /// Where it listens, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where its clients reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// Which cell owns which names, and where the cells are.
    pub map: PartitionMap,
    /// Proxies or routers that stand before the cells, if it is to hold its session with one of these, `host:port`;
    /// none: it holds one with each cell.
    pub upstream: Vec<String>,
    /// Where it shows operators' tools what it does, if anywhere.
    pub admin: Option<String>,
    /// What it grants to its clients.
    pub terms: LeaseTerms,
}

/// Why a relay did not start. The operator corrects the setting or frees the address.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody can be served there.
    #[error("serve clients")]
    Listen(#[source] io::Error),
    /// Nothing can be shown there.
    #[error("serve operators")]
    Admin(#[source] io::Error),
}

/// A relay that runs. It goes on if this is dropped; it ends with the tasks of its world.
pub struct RelayServer {
    relay: Arc<Relay>,
    env: Env,
    phase: watch::Receiver<Phase>,
    health: Health,
    admin: Option<String>,
}

impl RelayServer {
    /// Starts to listen and to look for the cells. Clients are refused until one of them is found.
    ///
    /// # Errors
    /// An address is taken or not ours.
    ///
    /// # Panics
    /// If the role is a client's.
    pub async fn start(config: RelayConfig, env: &Env) -> Result<Self, StartError> {
        assert!(config.role.is_tier(), "a relay is a proxy or a router");
        let env = env.child("relay");
        let listener = env.transport.listen(&config.listen).await.map_err(StartError::Listen)?;
        let admin = match &config.admin {
            Some(address) => Some(env.transport.listen(address).await.map_err(StartError::Admin)?),
            None => None,
        };
        let (phase_told, phase) = watch::channel(Phase::Starting);
        let relay = Relay::new(&config, &env, &listener.local_address(), phase_told);
        let profile = Profile::clients();
        let shown = phase.clone();
        let health = Health::new(&env.tasks, move || *shown.borrow() == Phase::Ready);
        let dispatch = Dispatch::new()
            .with_health(&health)
            .with(HaspService::server(relay.clone(), outboxes::LIMITS, &profile))
            .with(AdminServer::new(AdminFace(relay.clone())));
        let stalls = serve(&env.tasks, listener, dispatch, profile);
        let admin_address = admin.as_ref().map(|listener| listener.local_address());
        if let Some(listener) = admin {
            let metrics = Metrics::new();
            metrics::register(&metrics, &relay);
            metrics.register("write_stalls", "Connections closed because the peer took nothing more", stalls);
            let health = health.clone();
            hasp_rt::admin::serve(&env.tasks, listener, metrics, move || health.is_serving());
        }
        spawn_timers(&relay, &env);
        Ok(Self { relay, env, phase, health, admin: admin_address })
    }

    /// Where it listens, with the real port.
    pub fn local_address(&self) -> &str {
        &self.relay.address
    }

    /// Where operators' HTTP port is, with the real port.
    pub fn admin_address(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// Counts at this moment.
    pub fn status(&self) -> RelayStatus {
        self.relay.status()
    }

    /// Completes once each cell has welcomed it, or it was told to stop.
    pub async fn ready(&self) {
        let mut phase = self.phase.clone();
        // An error means that the relay is gone, so nobody waits any longer either.
        let _ = phase.wait_for(|phase| *phase >= Phase::Ready).await;
    }

    /// Sends the clients elsewhere, ends the own sessions, stops.
    ///
    /// # Errors
    /// The tasks that did not end.
    pub async fn shutdown(mut self) -> Result<(), Unfinished> {
        self.health.stop();
        self.relay.driver.input(Input::Stop);
        let stopped = self.phase.wait_for(|phase| *phase == Phase::Stopped);
        if tokio::time::timeout(STOP_PATIENCE, stopped).await.is_err() {
            tracing::debug!("cells did not hear that the relay stops");
        }
        self.env.tasks.drain(DRAIN_PATIENCE).await
    }
}

fn spawn_timers(relay: &Arc<Relay>, env: &Env) {
    let (timed, token) = (relay.clone(), env.tasks.token().clone());
    env.tasks.spawn("relay-timers", async move { timed.driver.run_timers(token).await });
    let (sampled, clock, token) = (relay.clone(), env.clock.clone(), env.tasks.token().clone());
    env.tasks.spawn("relay-rates", async move {
        loop {
            sampled.sample(clock.now());
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = clock.sleep(SAMPLE_INTERVAL) => {}
            }
        }
    });
}

/// The machine and what it is connected to.
struct Relay {
    driver: Driver<RelayCore, RelayEffects>,
    clock: Arc<dyn Clock>,
    rate: Mutex<Rate>,
    role: Role,
    address: String,
    upstream: Vec<String>,
    map: v1::PartitionMap,
}

impl Relay {
    fn new(config: &RelayConfig, env: &Env, address: &str, phase: watch::Sender<Phase>) -> Arc<Self> {
        let mut rng = env.seeds.stream("relay sessions");
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&rng.random_16());
        seed[16..].copy_from_slice(&rng.random_16());
        let advertise = config.advertise.as_deref().unwrap_or(address);
        let map = config.map.clone();
        let hosts = if config.upstream.is_empty() {
            Hosts::Cells(map.clone())
        } else {
            Hosts::one(config.upstream.clone())
        };
        let upstream = UpstreamConfig::tier(hosts, config.role, advertise, seed);
        let cache_bytes = (config.role == Role::Proxy).then_some(CACHE_BYTES);
        let core_config = RelayCoreConfig { upstream, map, terms: config.terms, cache_bytes };
        let core = RelayCore::new(env.clock.now(), core_config);
        let view = cache_bytes.map(|bytes| View::new(config.map.cells.keys(), bytes, env.clock.clone()));
        let connections = Connections::dedicated(env, Profile::tier());
        Arc::new_cyclic(|relay: &Weak<Self>| {
            let links = Links::new(connections, relay.clone());
            let (clients, fan_out) = (Outboxes::default(), metrics::fan_out_times());
            let effects = RelayEffects { links, clients, view, phase, fan_out, steps: Waiting::default() };
            Self {
                driver: Driver::new(core, effects, env.clock.clone()),
                clock: env.clock.clone(),
                rate: Mutex::new(Rate::over(RATE_WINDOW)),
                role: config.role,
                address: address.to_owned(),
                upstream: config.upstream.clone(),
                map: map_to_wire(&config.map),
            }
        })
    }

    fn status(&self) -> RelayStatus {
        let status = self.driver.inspect(RelayCore::status);
        let viewed = self.view().map_or(0, View::hits);
        RelayStatus { hits: status.hits + viewed, requests: status.requests + viewed, ..status }
    }

    fn view(&self) -> Option<&View> {
        self.driver.effects().view.as_ref()
    }

    fn steps(&self) -> &Waiting {
        &self.driver.effects().steps
    }

    fn stage(&self) -> Stage {
        if self.role == Role::Router { Stage::Router } else { Stage::Proxy }
    }

    fn overflows(&self) -> u64 {
        self.clients().overflows()
    }

    fn clients(&self) -> &Outboxes {
        &self.driver.effects().clients
    }

    fn sample(&self, now: hasp_proto::time::Time) {
        let total = self.status().keepalives;
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).sample(now, total);
    }

    /// What an item from a client is to the machine; `None` if it has been answered beside it.
    fn read(&self, connection: ConnectionId, item: v1::Up) -> Option<Input> {
        match Up::try_from(item) {
            Ok(Up::Request(mut request)) => {
                self.steps().take_up(self.stage(), connection, &mut request);
                if !self.is_answered(connection, &request) {
                    return Some(Input::Received(connection, Up::Request(request)));
                }
                self.steps().answered(connection, request.number);
                None
            }
            Ok(up) => {
                if matches!(&up, Up::Hello(hello) if hello.role.is_tier()) {
                    self.clients().is_tier(connection);
                }
                Some(Input::Received(connection, up))
            }
            Err(BadRequest::Refuse(number, error)) => Some(Input::Unreadable(connection, number, error)),
            Err(BadRequest::Malformed(error)) => Some(Input::Malformed(connection, error.what)),
        }
    }

    fn is_answered(&self, connection: ConnectionId, request: &request::Request) -> bool {
        let send = |answer| self.clients().send(connection, Down::Answer(answer));
        self.view().is_some_and(|view| view.answer(connection, request, send))
    }
}

/// Where the machine's outputs go. All of it only enqueues.
struct RelayEffects {
    links: Links,
    clients: Outboxes,
    /// Of what is cached, if anything is.
    view: Option<View>,
    phase: watch::Sender<Phase>,
    fan_out: Histogram,
    /// Requests that are followed.
    steps: Waiting,
}

impl Effects<Output> for RelayEffects {
    fn effect(&self, output: Output) {
        match output {
            Output::Send(connection, Down::Answer(answer)) => {
                self.steps.answered(connection, answer.number);
                self.answer(connection, Down::Answer(answer));
            }
            Output::Send(connection, down) => self.clients.send(connection, down),
            Output::Close(connection) => self.clients.close(connection),
            Output::Connect(link, address) => self.links.connect(link, address),
            Output::Disconnect(link) => self.links.disconnect(&link),
            Output::SendUp(link, up) => self.links.send(&link, up),
            Output::Noticed(cell, event) => log(cell.as_ref(), &event),
            Output::FannedOut(took) => self.fan_out.observe(took.as_secs_f64()),
            Output::Show(show) => {
                if let Some(view) = &self.view {
                    view.show(show);
                }
            }
            Output::Ready => drop(self.phase.send_replace(Phase::Ready)),
            Output::Stopped => drop(self.phase.send_replace(Phase::Stopped)),
        }
    }
}

impl RelayEffects {
    /// Answers of the machine and of the view go to a client in one order.
    fn answer(&self, connection: ConnectionId, down: Down) {
        match &self.view {
            Some(view) => view.pass(connection, || self.clients.send(connection, down)),
            None => self.clients.send(connection, down),
        }
    }
}

fn log(cell: Option<&CellName>, event: &Event) {
    // Of the session at a cell, or at the one host above.
    let cell = cell.map_or("all", CellName::as_str);
    match event {
        Event::Welcomed { session, host, resumed, .. } => {
            tracing::info!(cell, %session, host, resumed, "session with cell");
        }
        Event::Jeopardy => tracing::info!(cell, "session with cell in jeopardy"),
        Event::Safe => tracing::info!(cell, "session with cell safe"),
        Event::Expired(error) => tracing::info!(cell, %error, "session with cell expired"),
        Event::Closed => tracing::info!(cell, "session with cell ended"),
        Event::CellLost(lost) => {
            tracing::info!(cell, %lost, "welcomed by a host without a session with cell");
        }
        Event::News(_, item) => tracing::info!(cell, ?item, "news from cell"),
        Event::Extended | Event::CacheLapsed => {}
    }
}

impl SessionHandler for Relay {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, _peer: &str) -> u64 {
        let connection = self.clients().add(outbox);
        self.driver.input(Input::Connected(connection));
        connection.0
    }

    fn received(&self, connection: u64, items: Vec<v1::Up>) {
        let connection = ConnectionId(connection);
        // Read before the machine is locked.
        let inputs: Vec<Input> = items.into_iter().filter_map(|item| self.read(connection, item)).collect();
        if !inputs.is_empty() {
            self.driver.inputs(inputs);
        }
    }

    fn disconnected(&self, connection: u64) {
        let connection = ConnectionId(connection);
        self.clients().remove(connection);
        self.steps().disconnected(connection);
        if let Some(view) = self.view() {
            view.forget(connection);
        }
        self.driver.input(Input::Disconnected(connection));
    }
}

impl LocateHandler for Relay {
    fn locate(&self) -> v1::LocateReply {
        let host = match self.role {
            Role::Proxy => v1::locate_reply::Host::Proxy,
            Role::Router => v1::locate_reply::Host::Router,
            Role::Client => v1::locate_reply::Host::Unspecified,
        };
        v1::LocateReply { host: host.into(), map: Some(self.map.clone()), ..Default::default() }
    }
}

impl LinkEvents for Relay {
    fn connected(&self, link: LinkId) {
        self.driver.input(Input::LinkConnected(link));
    }

    fn received(&self, link: LinkId, items: Vec<Down>) {
        self.driver.inputs(items.into_iter().map(|down| Input::LinkReceived(link.clone(), down)));
    }

    fn disconnected(&self, link: LinkId) {
        self.driver.input(Input::LinkDisconnected(link));
    }
}

/// Answers operators.
struct AdminFace(Arc<Relay>);

#[tonic::async_trait]
impl Admin for AdminFace {
    async fn status(&self, _: Request<admin::StatusRequest>) -> Result<Response<admin::StatusReply>, Status> {
        let relay = &self.0;
        let status = relay.status();
        let rate = relay.rate.lock().unwrap_or_else(PoisonError::into_inner).per_second();
        let host = admin::HostStatus {
            role: if relay.role == Role::Router { "router" } else { "proxy" }.to_owned(),
            address: relay.address.clone(),
            sessions: status.sessions as u64,
            upstream_sessions: status.upstream_sessions as u64,
            keepalives_total: status.keepalives,
            keepalives_per_s: rate,
            upstream_keepalives_total: status.upstream_keepalives,
            upstream: relay.upstream.clone(),
            proxies: relay.driver.inspect(RelayCore::tier_addresses),
        };
        Ok(Response::new(admin::StatusReply {
            map: Some(relay.map.clone()),
            server: Some(admin::status_reply::Server::Host(host)),
        }))
    }
}
