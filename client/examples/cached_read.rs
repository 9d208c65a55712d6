//! How many reads of a cached file one thread gets through, and what each costs.
//!
//! ```sh
//! cargo run --release -p hasp-client --example cached_read [-- SECONDS]
//! ```
//!
//! The library, with its real clock, is connected to a host of a few lines in the same process. That
//! host lets everything be cached, so after the first read of the file nobody is asked any more; for
//! comparison, the same reads are then made with the cache switched off.

#![allow(clippy::unwrap_used, reason = "a measurement that fails should stop")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hasp_client::{
    AclNames, CellName, Client, ConnectOptions, Env, Epoch, Generation, Handle, Instance, NodeKind,
    OpenOptions, Position, Stat,
};
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::id::SessionId;
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::request::{Answer, Op, Open, Reply, Request};
use hasp_proto::stream::{Down, Grant, Up, Welcome};
use hasp_proto::wire::v1;
use hasp_rt::clock::SystemClock;
use hasp_rt::outbox::{Limits, Outbox};
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::rpc::session::{HaspService, LocateHandler, SessionHandler};

const ADDRESS: &str = "host:1";
/// Reads between two looks at the clock.
const BATCH: u32 = 1_000;
const LEASE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |text| text.parse()).context("read the seconds")?;
    let duration = Duration::from_secs(seconds);
    let env = Env { clock: Arc::new(SystemClock), ..Env::in_memory(1) };
    let host = Host::start(&env).await?;
    let (rate, clock) = measure(&env, duration / 4, async || {
        black_box(env.clock.now());
    })
    .await;
    println!("looks at the clock   {rate:>10.0} /s  {clock:>8.1} ns each");
    for (what, cache) in [("cached reads", true), ("uncached reads", false)] {
        let options = ConnectOptions { cache, ..ConnectOptions::new([ADDRESS]) };
        let client = Client::connect(options, &env).await.context("connect")?;
        let file = client.open("/ls/local/file", OpenOptions::read()).await.context("open")?.handle;
        read(&file).await;
        let asked = host.asked();
        let (rate, each) = measure(&env, duration, async || read(&file).await).await;
        let asked = host.asked() - asked;
        println!("{what:<20} {rate:>10.0} /s  {each:>8.1} ns each; the host was asked {asked} times");
        client.close().await;
    }
    Ok(())
}

async fn read(file: &Handle) {
    let read = file.get_contents_and_stat().await.unwrap();
    assert_eq!(read.contents.len(), 64);
    black_box(read);
}

/// How often in a second, and how many nanoseconds each time.
async fn measure(env: &Env, duration: Duration, mut act: impl AsyncFnMut()) -> (f64, f64) {
    let begin = env.clock.now();
    let mut count = 0_u32;
    loop {
        for _ in 0..BATCH {
            act().await;
        }
        count += BATCH;
        let passed = env.clock.now().saturating_since(begin);
        if passed >= duration {
            let seconds = passed.as_secs_f64();
            return (f64::from(count) / seconds, seconds * 1e9 / f64::from(count));
        }
        // The connection has its turn, too.
        tokio::task::yield_now().await;
    }
}

/// Welcomes every session, knows every file, lets everything be cached.
struct Host {
    connections: Mutex<BTreeMap<u64, Connection>>,
    asked: AtomicU64,
}

/// To whom, and whose session.
type Connection = (Arc<Outbox<v1::Down>>, Option<SessionId>);

impl Host {
    async fn start(env: &Env) -> anyhow::Result<Arc<Self>> {
        let host = Arc::new(Self { connections: Mutex::default(), asked: AtomicU64::new(0) });
        let limits = Limits { items_max: 1_000, bytes_max: 1 << 20 };
        let service = HaspService::server(host.clone(), limits, &Profile::clients());
        let listener = env.transport.listen(ADDRESS).await.context("listen")?;
        serve(&env.tasks, listener, Dispatch::new().with(service), Profile::clients());
        Ok(host)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn reply(&self, session: Option<SessionId>, request: &Request) -> Reply {
        match &request.op {
            Op::Open(open) => opened(session.unwrap(), request, open),
            Op::GetContentsAndStat(_) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                Reply::Contents { contents: Bytes::from_static(&[7; 64]), stat: stat() }
            }
            _ => Reply::Closed,
        }
    }
}

fn opened(session: SessionId, request: &Request, open: &Open) -> Reply {
    let body = HandleBody {
        cell: CellName::new("a"),
        name: open.name.clone(),
        instance: Instance(1),
        kind: NodeKind::File,
        r#use: open.r#use,
        session,
        opened_by: request.number,
        epoch: Epoch(1),
        lock_delay: open.lock_delay,
        events: open.events,
        ephemeral: false,
    };
    let handle = HandleKey::new(Bytes::from_static(&[1; 32])).seal(&body);
    Reply::Opened { handle, created: false, stat: stat() }
}

fn stat() -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 64,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

impl SessionHandler for Host {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, _peer: &str) -> u64 {
        let mut connections = self.connections.lock().unwrap();
        let connection = connections.keys().next_back().map_or(1, |last| last + 1);
        connections.insert(connection, (outbox, None));
        connection
    }

    fn received(&self, connection: u64, items: Vec<v1::Up>) {
        let mut connections = self.connections.lock().unwrap();
        let Some((outbox, session)) = connections.get_mut(&connection) else { return };
        let grant = Grant { held: Duration::ZERO, session: LEASE, cache: LEASE };
        for item in items {
            let down = match Up::try_from(item).unwrap() {
                Up::Hello(hello) => {
                    *session = Some(hello.key.id());
                    let (session, resumed) = (hello.key.id(), hello.known_since.is_some());
                    let (master_of, handle_keys, lost_cells) = (None, Vec::new(), Vec::new());
                    Down::Welcome(Welcome { session, resumed, grant, master_of, handle_keys, lost_cells })
                }
                Up::Request(request) => {
                    let position = Some(Position { cell: CellName::new("a"), epoch: Epoch(1), index: 1 });
                    let caches = ItemKinds::of(ItemKind::ALL);
                    let plain = Answer::plain(request.number, Ok(self.reply(*session, &request)));
                    Down::Answer(Answer { position, caches, ..plain })
                }
                Up::EndSession => return outbox.close(),
                Up::KeepAlive(_) | Up::Acknowledge(_) | Up::Cancel(_) => continue,
            };
            outbox.push(down.into(), 1).unwrap();
        }
    }

    fn disconnected(&self, connection: u64) {
        self.connections.lock().unwrap().remove(&connection);
    }
}

impl LocateHandler for Host {
    fn locate(&self) -> v1::LocateReply {
        let host = v1::locate_reply::Host::Proxy.into();
        v1::LocateReply { host, cell: String::new(), master: String::new(), map: None }
    }
}
