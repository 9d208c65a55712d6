//! A relay as a server, between cells and holders in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use hasp_proto::client::Event;
use hasp_proto::error::ErrorCode;
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op, Open, Reply, Use};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Hello, Role, Up};
use hasp_proto::wire::admin::v1::StatusRequest;
use hasp_proto::wire::admin::v1::status_reply::Server;
use hasp_proto::wire::v1;
use hasp_rt::env::Env;
use hasp_rt::outbox::{Limits, Outbox};
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::dial;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::rpc::session::{HaspService, LocateHandler, SessionHandler, SessionLink};

use super::{RelayConfig, RelayServer};
use crate::links::{Connections, LinkEvents, Links};
use crate::relay::tests::cell::Cell;
use crate::upstream::{Begin, Hosts, LinkId, Output, Ticket, UpstreamConfig, UpstreamCore};

const DEADLINE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits { items_max: 10_000, bytes_max: 1 << 20 };

/// Where a stand-in cell's items go.
type CellOutboxes = BTreeMap<ConnectionId, Arc<Outbox<v1::Down>>>;
/// What a client was answered.
type Answers = Vec<(Ticket, Answer)>;

/// A cell's machine behind a listener.
struct CellServer {
    env: Env,
    state: Mutex<(Cell, CellOutboxes, u64)>,
}

impl CellServer {
    async fn start(env: &Env, name: &str) -> (Arc<Self>, String) {
        let state = Mutex::new((Cell::new(name), BTreeMap::new(), 0));
        let cell = Arc::new(Self { env: env.clone(), state });
        let listener = env.transport.listen(&format!("{name}:0")).await.unwrap();
        let address = listener.local_address();
        let dispatch = Dispatch::new().with(HaspService::server(cell.clone(), LIMITS, &Profile::tier()));
        serve(&env.tasks, listener, dispatch, Profile::tier());
        let (ticking, clock, token) = (cell.clone(), env.clock.clone(), env.tasks.token().clone());
        env.tasks.spawn("cell", async move {
            while token.run_until_cancelled(clock.sleep(Duration::from_millis(50))).await.is_some() {
                ticking.with(|cell, now| cell.handle_timeout(now));
            }
        });
        (cell, address)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Cell, hasp_proto::time::Time) -> R) -> R {
        let now = self.env.clock.now();
        let (cell, outboxes, _) = &mut *self.state.lock().unwrap();
        let result = act(cell, now);
        while let Some(sent) = cell.next_sent(now) {
            match sent {
                Ok((connection, down)) => drop(outboxes[&connection].push(v1::Down::from(down), 1)),
                Err(connection) => outboxes[&connection].close(),
            }
        }
        result
    }
}

impl SessionHandler for CellServer {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, _: &str) -> u64 {
        let number = {
            let (_, outboxes, last) = &mut *self.state.lock().unwrap();
            *last += 1;
            outboxes.insert(ConnectionId(*last), outbox);
            *last
        };
        self.with(|cell, _| cell.core.connected(ConnectionId(number)));
        number
    }

    fn received(&self, connection: u64, items: Vec<v1::Up>) {
        for item in items {
            let up = Up::try_from(item).unwrap();
            self.with(|cell, now| cell.core.received(now, ConnectionId(connection), up));
        }
    }

    fn disconnected(&self, connection: u64) {
        self.with(|cell, _| cell.core.disconnected(ConnectionId(connection)));
    }
}

impl LocateHandler for CellServer {
    fn locate(&self) -> v1::LocateReply {
        v1::LocateReply::default()
    }
}

/// An application: its machine and its links, and what it was told.
struct Application {
    env: Env,
    links: OnceLock<Links>,
    state: Mutex<(UpstreamCore, Answers, Vec<Event>)>,
}

impl Application {
    fn start(env: &Env, addresses: &[String], seed: u8, connections: Connections) -> Arc<Self> {
        let hosts = Hosts::one(addresses.to_vec());
        let config = UpstreamConfig {
            begin: Begin::AtOnce,
            ..UpstreamConfig::application(hosts, "alice", [seed; 32])
        };
        let core = UpstreamCore::new(env.clock.now(), config);
        let state = Mutex::new((core, Vec::new(), Vec::new()));
        let app = Arc::new_cyclic(|app: &Weak<Self>| {
            let links = OnceLock::from(Links::new(connections, app.clone()));
            Self { env: env.clone(), links, state }
        });
        let (ticking, clock, token) = (app.clone(), env.clock.clone(), env.tasks.token().clone());
        env.tasks.spawn("application", async move {
            ticking.with(|core, now| core.handle_timeout(now));
            while token.run_until_cancelled(clock.sleep(Duration::from_millis(50))).await.is_some() {
                ticking.with(|core, now| core.handle_timeout(now));
            }
        });
        app
    }

    fn with<R>(&self, act: impl FnOnce(&mut UpstreamCore, hasp_proto::time::Time) -> R) -> R {
        let now = self.env.clock.now();
        let (core, answers, events) = &mut *self.state.lock().unwrap();
        let links = self.links.get().unwrap();
        let result = act(core, now);
        while let Some(output) = core.poll_output() {
            match output {
                Output::Connect(link, address) => links.connect(link, address),
                Output::Disconnect(link) => links.disconnect(&link),
                Output::Send(link, up) => links.send(&link, up),
                Output::Answered(ticket, answer) => answers.push((ticket, answer)),
                Output::Event(_, event) => events.push(event),
                Output::Routes(_) => {}
            }
        }
        result
    }

    fn welcomes(&self) -> usize {
        let is_welcome = |event: &&Event| matches!(event, Event::Welcomed { .. });
        self.state.lock().unwrap().2.iter().filter(is_welcome).count()
    }

    async fn ask(&self, name: &str) -> Answer {
        let name = Name::parse(name).unwrap();
        self.perform(Op::Open(Open::existing(name, Use::WriteAndLock))).await
    }

    async fn perform(&self, op: Op) -> Answer {
        let ticket = self.with(|core, now| core.submit(now, op.clone().into()));
        for _ in 0..10_000 {
            let answer = self.state.lock().unwrap().1.iter().find(|(of, _)| *of == ticket).cloned();
            match answer {
                Some((_, answer)) => return answer,
                None => self.env.clock.sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("no answer about {op:?}");
    }
}

impl LinkEvents for Application {
    fn connected(&self, link: LinkId) {
        self.with(|core, now| core.connected(now, &link));
    }

    fn received(&self, link: LinkId, items: Vec<Down>) {
        for down in items {
            self.with(|core, now| core.received(now, &link, down));
        }
    }

    fn disconnected(&self, link: LinkId) {
        self.with(|core, now| core.disconnected(now, &link));
    }
}

struct World {
    env: Env,
    cells: Vec<Arc<CellServer>>,
    map: PartitionMap,
}

impl World {
    async fn new() -> Self {
        let env = Env::in_memory(1);
        let mut cells = Vec::new();
        let mut addresses = BTreeMap::new();
        for name in ["a", "b"] {
            let (cell, address) = CellServer::start(&env, name).await;
            cells.push(cell);
            addresses.insert(CellName::new(name), vec![address]);
        }
        let map = PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], addresses).unwrap();
        Self { env, cells, map }
    }

    fn config(&self, name: &str) -> RelayConfig {
        RelayConfig {
            role: Role::Proxy,
            listen: format!("{name}:0"),
            advertise: None,
            map: self.map.clone(),
            upstream: Vec::new(),
            admin: Some(format!("{name}-admin:1")),
            terms: LeaseTerms::default(),
        }
    }

    async fn relay(&self, name: &str) -> RelayServer {
        let relay = RelayServer::start(self.config(name), &self.env).await.unwrap();
        relay.ready().await;
        relay
    }

    fn application(&self, relays: &[&RelayServer], seed: u8) -> Arc<Application> {
        let addresses: Vec<String> = relays.iter().map(|relay| relay.local_address().to_owned()).collect();
        Application::start(&self.env, &addresses, seed, Connections::dedicated(&self.env, Profile::clients()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_through_the_relay_to_its_cell_and_back() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let app = world.application(&[&relay], 1);

    for (name, cell) in [("/ls/dev/x", 0), ("/ls/dev/b/x", 1)] {
        let answer = app.ask(name).await;
        assert!(matches!(answer.result, Ok(Reply::Opened { .. })), "{answer:?}");
        let seen = world.cells[cell].with(|cell, _| cell.seen.clone());
        assert_eq!(seen[0].1.on_behalf.as_ref().map(|client| &*client.principal), Some("alice"));
    }

    world.env.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(app.welcomes(), 1, "one connection all the time");
    assert_eq!(relay.status().sessions, 1);
    relay.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_relay_sends_its_clients_to_the_next_and_leaves_its_cells() {
    let world = World::new().await;
    let (one, two) = (world.relay("p").await, world.relay("q").await);
    let app = world.application(&[&one, &two], 1);
    app.ask("/ls/dev/x").await;
    let (stays, goes) = if one.status().sessions == 1 { (two, one) } else { (one, two) };

    goes.shutdown().await.unwrap();
    let answer = app.ask("/ls/dev/y").await;

    assert!(answer.result.is_ok());
    assert_eq!((app.welcomes(), stays.status().sessions), (2, 1));
    assert_eq!(world.cells[0].with(|cell, _| cell.core.session_count()), 1);
}

#[tokio::test(start_paused = true)]
async fn cached_reads_are_answered_beside_the_machine_until_somebody_writes() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let (reader, writer) = (world.application(&[&relay], 1), world.application(&[&relay], 2));
    let open = async |app: &Application| match app.ask("/ls/dev/x").await.result {
        Ok(Reply::Opened { handle, .. }) => handle,
        other => panic!("opened: {other:?}"),
    };
    let (handle, to_write) = (open(&reader).await, open(&writer).await);
    let viewed = || relay.relay.view().expect("a proxy has one").hits();
    let read = async || match reader.perform(Op::GetContentsAndStat(handle.clone())).await {
        Answer { position: Some(position), result: Ok(Reply::Contents { contents, .. }), .. } => {
            (contents, position)
        }
        other => panic!("read: {other:?}"),
    };

    for _ in 0..5 {
        assert_eq!(read().await.0, "");
    }
    assert_eq!(viewed(), 3, "the cell, then the machine, then the view");
    let asked = world.cells[0].with(|cell, _| cell.ops().len());
    let contents = bytes::Bytes::from_static(b"new");
    let write = Op::SetContents { handle: to_write, contents, if_generation: None };
    let written = writer.perform(write).await.position.expect("of the cell");
    let (contents, position) = read().await;

    assert_eq!((contents, position), (bytes::Bytes::from_static(b"new"), written));
    assert_eq!(world.cells[0].with(|cell, _| cell.ops().len()), asked + 2, "the write and one read");
    read().await;
    read().await;
    assert_eq!((viewed(), relay.status().hits), (4, 6));
    relay.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_healthy_once_its_cells_have_welcomed_it_until_it_stops() {
    let world = World::new().await;
    let config = world.config("p");
    let relay = RelayServer::start(config, &world.env).await.unwrap();
    let connection = dial(&world.env, relay.local_address(), &Profile::clients(), DEADLINE).await.unwrap();

    assert!(!connection.is_serving().await.unwrap(), "nobody has welcomed it");
    relay.ready().await;
    assert!(connection.is_serving().await.unwrap());
    let _app = world.application(&[&relay], 1);
    let (stopped, last_word) = tokio::join!(relay.shutdown(), connection.is_serving());

    assert!(!last_word.unwrap(), "told to stop, it still answers");
    stopped.unwrap();
}

#[tokio::test(start_paused = true)]
async fn operators_see_sessions_and_rates() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let apps: Vec<_> = (0..20).map(|seed| world.application(&[&relay], seed)).collect();
    world.env.clock.sleep(Duration::from_secs(60)).await;

    let connection = dial(&world.env, relay.local_address(), &Profile::clients(), DEADLINE).await.unwrap();
    let reply = connection.admin().status(StatusRequest::default()).await.unwrap().into_inner();
    let locate = connection.hasp().locate(v1::LocateRequest {}).await.unwrap().into_inner();

    let Some(Server::Host(host)) = reply.server else { panic!("a host") };
    assert_eq!((&*host.role, &*host.address), ("proxy", relay.local_address()));
    assert_eq!((host.sessions, host.upstream_sessions), (20, 2));
    assert!((1.5..3.5).contains(&host.keepalives_per_s), "20 every 8 s: {}", host.keepalives_per_s);
    assert!(host.keepalives_total > 120 && host.upstream_keepalives_total < 30);
    assert_eq!(locate.host(), v1::locate_reply::Host::Proxy);
    assert_eq!(locate.map.map(|map| map.namespace), Some("dev".to_owned()));
    drop(apps);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_shown_to_scrapers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    let relay = world.relay("p").await;
    let app = world.application(&[&relay], 1);
    app.ask("/ls/dev/x").await;

    let mut io = world.env.transport.connect("p-admin:1").await.unwrap();
    io.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    io.read_to_string(&mut page).await.unwrap();

    for line in [
        "hasp_sessions 1\n",
        "hasp_upstream_sessions 2\n",
        "hasp_requests_total 1\n",
        "hasp_keepalives_total",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

/// Sends raw items on a stream of its own; what comes back until the host ends it.
async fn talk(world: &World, relay: &RelayServer, items: Vec<v1::Up>, answers: usize) -> Vec<Down> {
    let connection = dial(&world.env, relay.local_address(), &Profile::clients(), DEADLINE).await.unwrap();
    let outbox = Arc::new(Outbox::new(LIMITS));
    let mut link = SessionLink::open(&connection, outbox.clone(), DEADLINE).await.unwrap();
    for item in items {
        outbox.push(item, 1).unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < answers
        && let Ok(Some(items)) = link.receive().await
    {
        heard.extend(items.into_iter().map(|item| Down::try_from(item).unwrap()));
    }
    heard
}

fn hello() -> v1::Up {
    let hello = Hello {
        protocol: hasp_proto::limits::PROTOCOL,
        key: hasp_proto::id::SessionKey::new([5; 16]),
        role: Role::Client,
        principal: "eve".into(),
        known_since: None,
        next_request: hasp_proto::id::RequestNumber(1),
        claim: hasp_proto::id::Claim(1),
        advertise: String::new(),
        lease_left: std::time::Duration::ZERO,
    };
    Up::Hello(hello).into()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_item_of_the_protocol_ends_only_the_connection_it_came_on() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let app = world.application(&[&relay], 1);

    let heard = talk(&world, &relay, vec![hello(), v1::Up { item: None }], 2).await;

    assert!(
        matches!(&heard[1], Down::Refused(error) if error.code == ErrorCode::InvalidArgument),
        "{heard:?}"
    );
    assert!(app.ask("/ls/dev/x").await.result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_bad_name_is_an_answer_not_the_end() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let request = v1::Request {
        number: 1,
        settled_below: 1,
        op: Some(v1::request::Op::Open(v1::Open { name: "nonsense".into(), r#use: 1, ..Default::default() })),
        ..Default::default()
    };
    let bad = v1::Up { item: Some(v1::up::Item::Request(request)) };
    let keep_alive =
        v1::Up { item: Some(v1::up::Item::KeepAlive(v1::KeepAlive { number: 1, settled_below: 2 })) };

    let heard = talk(&world, &relay, vec![hello(), bad, keep_alive], 3).await;

    assert!(matches!(heard[0], Down::Welcome(_)));
    let Down::Answer(answer) = &heard[1] else { panic!("{heard:?}") };
    assert!(matches!(&answer.result, Err(error) if error.code == ErrorCode::InvalidName));
    assert!(matches!(heard[2], Down::Lease { keep_alive: 1, .. }), "the session goes on");
}

#[tokio::test(start_paused = true)]
async fn sessions_share_connections_if_told_to() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let clients = world.env.child("clients");
    let connections = Connections::shared(&clients, Profile::clients(), 10);
    let addresses = [relay.local_address().to_owned()];

    let apps: Vec<_> =
        (0..25).map(|seed| Application::start(&clients, &addresses, seed, connections.clone())).collect();
    world.env.clock.sleep(Duration::from_secs(1)).await;

    assert!(apps.iter().all(|app| app.welcomes() == 1));
    let tasks = clients.tasks.running();
    // A driver of hyper's and one of ours for each of three connections; two of ours and two of hyper's
    // for each application at most.
    assert!(tasks <= 25 * 4 + 3 * 2, "{tasks} tasks");
    assert_eq!(relay.status().sessions, 25);
    clients.tasks.abort();
    world.env.clock.sleep(Duration::from_secs(20)).await;
    assert_eq!(relay.status().sessions, 0, "their leases have run out");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_reached_is_reported_and_tried_again() {
    let world = World::new().await;
    let relay = world.relay("p").await;
    let addresses = ["nobody:1".to_owned(), relay.local_address().to_owned()];

    let apps: Vec<_> = (0..8)
        .map(|seed| {
            let connections = Connections::dedicated(&world.env, Profile::clients());
            Application::start(&world.env, &addresses, seed, connections)
        })
        .collect();
    world.env.clock.sleep(Duration::from_secs(2)).await;

    assert!(apps.iter().all(|app| app.welcomes() == 1));
    assert!(apps.iter().all(|app| app.links.get().unwrap().count() == 1));
}
