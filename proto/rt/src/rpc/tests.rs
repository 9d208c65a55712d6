//! Both ends of the session stream against each other, over pipes and over the simulated network.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::wire::v1::{self, down, up};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::Service as _;

use super::Profile;
use super::client::{Connection, dial};
use super::server::{Dispatch, serve};
use super::session::{HaspService, LocateHandler, SessionHandler, SessionLink};
use crate::env::Env;
use crate::outbox::{Limits, Outbox};

const LIMITS: Limits = Limits { items_max: 10_000, bytes_max: 1 << 20 };
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers each KeepAlive with a lease of its number, and an EndSession with a refusal and the end.
#[derive(Default)]
struct Echo {
    seen: Mutex<Seen>,
    disconnects: tokio::sync::Notify,
}

#[derive(Default)]
struct Seen {
    outboxes: Vec<Arc<Outbox<v1::Down>>>,
    received: Vec<(u64, v1::Up)>,
    disconnected: Vec<u64>,
}

impl SessionHandler for Echo {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, _: &str) -> u64 {
        let mut seen = self.seen.lock().unwrap();
        seen.outboxes.push(outbox);
        seen.outboxes.len() as u64 - 1
    }

    fn received(&self, connection: u64, items: Vec<v1::Up>) {
        let mut seen = self.seen.lock().unwrap();
        let outbox = seen.outboxes[connection as usize].clone();
        for item in items {
            match &item.item {
                Some(up::Item::KeepAlive(keep_alive)) => {
                    let _ = outbox.push(lease(keep_alive.number), 10);
                }
                _ => {
                    let _ =
                        outbox.push(v1::Down { item: Some(down::Item::Refused(v1::Refused::default())) }, 10);
                    outbox.close();
                }
            }
            seen.received.push((connection, item));
        }
    }

    fn disconnected(&self, connection: u64) {
        self.seen.lock().unwrap().disconnected.push(connection);
        self.disconnects.notify_one();
    }
}

impl LocateHandler for Echo {
    fn locate(&self) -> v1::LocateReply {
        v1::LocateReply { cell: "a".to_owned(), ..Default::default() }
    }
}

fn keep_alive(number: u64) -> v1::Up {
    v1::Up { item: Some(up::Item::KeepAlive(v1::KeepAlive { number, settled_below: 0 })) }
}

fn end_session() -> v1::Up {
    v1::Up { item: Some(up::Item::EndSession(v1::EndSession {})) }
}

fn lease(keep_alive: u64) -> v1::Down {
    v1::Down { item: Some(down::Item::Lease(v1::Lease { keep_alive, grant: None })) }
}

/// A server on a network of its own.
struct World {
    env: Env,
    server: Env,
    echo: Arc<Echo>,
    address: String,
    stalls: Counter,
}

async fn start(env: &Env, profile: Profile, listen: &str) -> (Arc<Echo>, String, Counter) {
    let echo = Arc::new(Echo::default());
    let listener = env.transport.listen(listen).await.unwrap();
    let address = listener.local_address();
    let dispatch = Dispatch::new().with(HaspService::server(echo.clone(), LIMITS, &profile));
    let stalls = serve(&env.tasks, listener, dispatch, profile);
    (echo, address, stalls)
}

impl World {
    async fn new() -> Self {
        Self::with(Profile::clients()).await
    }

    async fn with(profile: Profile) -> Self {
        let env = Env::in_memory(1);
        let server = env.child("server");
        let (echo, address, stalls) = start(&server, profile, "server:0").await;
        Self { env, server, echo, address, stalls }
    }

    async fn dial(&self) -> Connection {
        dial(&self.env, &self.address, &Profile::clients(), DEADLINE).await.unwrap()
    }

    async fn session(&self) -> Session {
        Session::open(&self.dial().await).await
    }

    async fn until_disconnected(&self, expected: &[u64]) {
        let enough = async {
            while self.echo.seen.lock().unwrap().disconnected.len() < expected.len() {
                self.echo.disconnects.notified().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, enough).await;
        let mut disconnected = self.echo.seen.lock().unwrap().disconnected.clone();
        disconnected.sort_unstable();
        assert_eq!(disconnected, expected);
        waited.unwrap();
    }
}

struct Session {
    outbox: Arc<Outbox<v1::Up>>,
    link: SessionLink,
}

impl Session {
    async fn open(connection: &Connection) -> Self {
        let outbox = Arc::new(Outbox::new(LIMITS));
        let link = SessionLink::open(connection, outbox.clone(), DEADLINE).await.unwrap();
        Self { outbox, link }
    }

    async fn ping(&mut self, number: u64) {
        self.outbox.push(keep_alive(number), 10).unwrap();
        assert_eq!(self.link.receive().await.unwrap(), Some(vec![lease(number)]));
    }
}

#[tokio::test(start_paused = true)]
async fn items_go_up_and_answers_come_down_in_order() {
    let mut session = World::new().await.session().await;

    for number in 0..100 {
        session.outbox.push(keep_alive(number), 10).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 100 {
        received.extend(session.link.receive().await.unwrap().unwrap());
    }

    assert_eq!(received, (0..100).map(lease).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_burst_comes_as_one_batch() {
    let world = World::new().await;
    let mut session = world.session().await;
    let outbox = world.echo.seen.lock().unwrap().outboxes[0].clone();

    for number in 0..100 {
        outbox.push(lease(number), 10).unwrap();
    }

    assert_eq!(session.link.receive().await.unwrap().unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_closed_outbox_is_flushed_before_the_stream_ends() {
    let world = World::new().await;
    let mut session = world.session().await;

    session.outbox.push(end_session(), 10).unwrap();

    let last = session.link.receive().await.unwrap().unwrap();
    assert!(matches!(last[0].item, Some(down::Item::Refused(_))));
    assert_eq!(session.link.receive().await.unwrap(), None);
    world.until_disconnected(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_its_last_still_hears_what_was_under_way() {
    let world = World::new().await;
    let mut session = world.session().await;

    session.outbox.push(keep_alive(1), 10).unwrap();
    session.outbox.close();

    assert_eq!(session.link.receive().await.unwrap(), Some(vec![lease(1)]));
    assert_eq!(session.link.receive().await.unwrap(), None);
    world.until_disconnected(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_link_ends_that_session_and_no_other() {
    let world = World::new().await;
    let connection = world.dial().await;
    let first = Session::open(&connection).await;
    let mut second = Session::open(&connection).await;
    let outbox = first.outbox.clone();

    drop(first);

    world.until_disconnected(&[0]).await;
    second.ping(1).await;
    assert!(outbox.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_server_is_noticed_by_its_clients() {
    let world = World::new().await;
    let connection = world.dial().await;
    let mut session = Session::open(&connection).await;
    session.ping(1).await;

    world.server.tasks.abort();

    assert!(session.link.receive().await.is_err());
    connection.closed().await;
    assert!(connection.is_closed());
    world.until_disconnected(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_client_is_noticed_by_its_server() {
    let world = World::new().await;
    let client = world.env.child("client");
    let connection = dial(&client, &world.address, &Profile::clients(), DEADLINE).await.unwrap();
    let mut session = Session::open(&connection).await;
    session.ping(1).await;

    client.tasks.abort();

    world.until_disconnected(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_ends_even_with_open_sessions() {
    let world = World::new().await;
    let mut session = world.session().await;
    session.ping(1).await;

    world.server.tasks.drain(DEADLINE).await.unwrap();

    assert!(session.link.receive().await.is_err());
    world.until_disconnected(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn many_sessions_share_one_connection() {
    let world = World::new().await;
    let connection = world.dial().await;
    let mut sessions = Vec::new();

    for _ in 0..1_000 {
        sessions.push(Session::open(&connection).await);
    }

    for (number, session) in sessions.iter_mut().enumerate() {
        session.ping(number as u64).await;
    }
    drop((sessions, connection));
    world.until_disconnected(&(0..1_000).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn locate_is_answered_and_unknown_services_are_not() {
    let world = World::new().await;
    let connection = world.dial().await;

    let reply = connection.hasp().locate(v1::LocateRequest {}).await.unwrap();
    assert_eq!(reply.into_inner().cell, "a");

    let request = hasp_proto::wire::admin::v1::StatusRequest::default();
    let status = connection.admin().status(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

/// Writes `bytes` on a connection of its own, and reads until the server closes it.
async fn garbage(world: &World, bytes: &[u8]) {
    let mut io = world.env.transport.connect(&world.address).await.unwrap();
    let _ = io.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_costs_only_the_connection_it_came_on() {
    let world = World::new().await;
    let mut session = world.session().await;

    garbage(&world, b"GET / HTTP/1.1\r\nhost: somewhere\r\n\r\n").await;
    garbage(&world, &[0xff; 100]).await;
    let mut after_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    after_preface.extend([0xff; 100]);
    garbage(&world, &after_preface).await;

    session.ping(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_cut_off() {
    let world = World::new().await;
    let before = world.env.clock.now();

    garbage(&world, b"PRI * HT").await;

    let waited = world.env.clock.now().saturating_since(before);
    assert_eq!(waited, Profile::clients().handshake_timeout);
}

/// Sends one gRPC message of `bytes` on a session stream of `connection`; the status it ends with.
async fn send_raw(connection: &mut Connection, bytes: &[u8]) -> String {
    let mut message = vec![0];
    message.extend((bytes.len() as u32).to_be_bytes());
    message.extend(bytes);
    let body = Full::new(Bytes::from(message)).map_err(|never| match never {});
    let request = http::Request::post("/hasp.v1.Hasp/Session")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let response = connection.call(request).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    collected.trailers().unwrap()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_ends_only_its_stream() {
    let world = World::new().await;
    let mut connection = world.dial().await;
    let mut session = Session::open(&connection).await;

    let status = send_raw(&mut connection, &[0xff; 3]).await;

    assert_eq!(status, (tonic::Code::Internal as i32).to_string());
    session.ping(1).await;
    world.until_disconnected(&[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_only_its_stream() {
    let world = World::new().await;
    let mut connection = world.dial().await;
    let mut session = Session::open(&connection).await;

    let status = send_raw(&mut connection, &vec![0; (1 << 20) + 1]).await;

    assert_eq!(status, (tonic::Code::OutOfRange as i32).to_string());
    session.ping(1).await;
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_of_connections_a_new_one_is_closed() {
    let world = World::with(Profile { connections_max: 1, ..Profile::clients() }).await;
    let mut session = world.session().await;

    let second = world.dial().await;
    let outbox = Arc::new(Outbox::new(LIMITS));
    assert!(SessionLink::open(&second, outbox, DEADLINE).await.is_err());
    session.ping(1).await;

    drop(session);
    world.until_disconnected(&[0]).await;
    world.session().await.ping(2).await;
}

#[tokio::test(start_paused = true)]
async fn of_those_who_come_at_once_a_few_are_begun_with_and_the_silent_hold_up_nobody_for_long() {
    let world = World::with(Profile { greeting_at_once: 2, ..Profile::clients() }).await;
    let before = world.env.clock.now();
    let waited = || world.env.clock.now().saturating_since(before);
    let mut talking = Vec::new();
    for ping in 0..6 {
        let mut session = world.session().await;
        session.ping(ping).await;
        talking.push(session);
    }
    assert_eq!(waited(), Duration::ZERO, "who makes a call makes room");

    let (mut silent, preface) = (Vec::new(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for said in [&b""[..], b"PRI * HT", preface, preface] {
        let mut io = world.env.transport.connect(&world.address).await.unwrap();
        io.write_all(said).await.unwrap();
        silent.push(io);
    }
    world.session().await.ping(7).await;

    assert_eq!(waited(), Profile::clients().greeting_max * 2, "four silent ones, two at a time");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_given_up_at_the_deadline() {
    let env = Env::in_memory(1);
    let listener = env.transport.listen("mute:0").await.unwrap();
    let connection = dial(&env, &listener.local_address(), &Profile::clients(), DEADLINE).await.unwrap();

    let opened = SessionLink::open(&connection, Arc::new(Outbox::new(LIMITS)), DEADLINE).await;

    assert_eq!(opened.err().unwrap().code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn nobody_at_the_address_is_an_error_that_names_it() {
    let error = dial(&Env::in_memory(1), "gone:1", &Profile::clients(), DEADLINE).await.err().unwrap();

    assert!(error.to_string().contains("gone:1"));
}

/// A little over 10 KB: seven are more than a peer's window takes.
const LARGE: usize = 10_000;

/// An item of a little over `bytes`.
fn item_of(bytes: usize) -> v1::Down {
    let error = v1::Error { detail: "x".repeat(bytes), ..Default::default() };
    v1::Down { item: Some(down::Item::Refused(v1::Refused { error: Some(error) })) }
}

/// How long it took until the connection was gone, by the world's clock.
async fn until_closed(world: &World, connection: &Connection) -> Duration {
    let before = world.env.clock.now();
    tokio::time::timeout(Duration::from_secs(600), connection.closed()).await.unwrap();
    world.env.clock.now().saturating_since(before)
}

/// Checks that a connection was given up for a stall: after the limit, and no later than promised.
fn check_stall(waited: Duration) {
    let profile = Profile::clients();
    let latest = profile.write_stall_max * 5 / 4 + profile.shutdown_grace;
    assert!((profile.write_stall_max..=latest).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_and_never_reads_loses_its_connection_and_nobody_elses() {
    let world = World::new().await;
    let mut other = world.session().await;
    let tasks = world.server.tasks.running();
    let connection = world.dial().await;
    let deaf = Session::open(&connection).await;
    let outbox = world.echo.seen.lock().unwrap().outboxes[1].clone();

    for _ in 0..50 {
        outbox.push(item_of(LARGE), LARGE).unwrap();
    }
    let pinging = async {
        let mut numbers = 0..;
        while !connection.is_closed() {
            other.ping(numbers.next().unwrap()).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (waited, ()) = tokio::join!(until_closed(&world, &connection), pinging);

    check_stall(waited);
    world.until_disconnected(&[1]).await;
    assert!(outbox.is_closed() && outbox.bytes() == 0, "nothing is kept for it");
    assert_eq!(world.server.tasks.running(), tasks, "nothing of it runs on");
    assert_eq!(world.stalls.get(), 1);
    other.ping(1_000).await;
    drop(deaf);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_does_not_save_a_connection_that_is_not_read() {
    let world = World::new().await;
    let connection = world.dial().await;
    let _deaf = Session::open(&connection).await;
    let outbox = world.echo.seen.lock().unwrap().outboxes[0].clone();

    // More than the peer's window, but all of it goes to HTTP/2, as does the end of the stream.
    outbox.push(item_of(100_000), 100_000).unwrap();
    outbox.close();

    check_stall(until_closed(&world, &connection).await);
    world.until_disconnected(&[0]).await;
    assert_eq!(world.stalls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_or_has_nothing_to_read_keeps_its_connection() {
    let world = World::new().await;
    let mut idle = world.session().await;
    let mut slow = world.session().await;
    let outbox = world.echo.seen.lock().unwrap().outboxes[1].clone();

    // Ten times the limit, and always more under way than its window takes.
    for _ in 0..40 {
        for _ in 0..8 {
            outbox.push(item_of(LARGE), LARGE).unwrap();
        }
        tokio::time::sleep(Profile::clients().write_stall_max / 4).await;
        slow.link.receive().await.unwrap().unwrap();
    }

    idle.ping(1).await;
    assert_eq!(world.stalls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_over_the_limit_of_its_outbox_loses_its_connection_at_once() {
    let world = World::new().await;
    let mut other = world.session().await;
    let connection = world.dial().await;
    let _deaf = Session::open(&connection).await;
    let outbox = world.echo.seen.lock().unwrap().outboxes[1].clone();

    // What is pushed once HTTP/2 takes no more stays in the outbox.
    while outbox.push(item_of(LARGE), LARGE).is_ok() {
        tokio::task::yield_now().await;
    }
    outbox.abandon();

    assert!(until_closed(&world, &connection).await <= Profile::clients().shutdown_grace);
    world.until_disconnected(&[1]).await;
    assert_eq!(outbox.bytes(), 0);
    other.ping(1).await;
}

#[test]
fn a_partition_is_noticed_by_both_ends_through_the_keepalive() {
    let quick = Profile {
        keepalive_interval: Duration::from_secs(1),
        keepalive_timeout: Duration::from_secs(1),
        ..Profile::clients()
    };
    let simulated = || Env { transport: Arc::new(crate::transport::SimTransport), ..Env::in_memory(1) };
    let profile = quick.clone();
    let ended = Arc::new(Mutex::new(0));
    let counted = ended.clone();
    let mut sim = turmoil::Builder::new().simulation_duration(Duration::from_secs(30)).build();
    sim.host("server", move || {
        let (profile, counted) = (profile.clone(), counted.clone());
        async move {
            let (echo, ..) = start(&simulated(), profile, "0.0.0.0:7000").await;
            echo.disconnects.notified().await;
            *counted.lock().unwrap() += 1;
            Ok(())
        }
    });
    sim.client("client", async move {
        let connection = dial(&simulated(), "server:7000", &quick, DEADLINE).await?;
        let mut session = Session::open(&connection).await;
        session.ping(1).await;
        turmoil::partition("client", "server");
        assert!(session.link.receive().await.is_err());
        connection.closed().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    });

    sim.run().unwrap();

    assert_eq!(*ended.lock().unwrap(), 1);
}
