//! The clients at the proxy that is to be killed: a session each, and what some of them hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use hasp_client::{
    Client, ConnectOptions, Connections, Env, Events, Generation, Handle, LockMode, OpenOptions, Sequencer,
    Service, SessionEvent, Timers,
};
use hasp_loadtest::system::NAMESPACE;
use hasp_rt::rpc::Profile;
use tokio::task::JoinSet;

use crate::{Flags, PATIENCE};

/// Clients being connected at a time.
const CONNECTING: usize = 200;

/// What happened to all sessions so far.
#[derive(Default)]
pub struct Happened {
    pub jeopardies: AtomicU64,
    pub lost: AtomicU64,
}

/// One client, with its session.
pub struct HoldingClient {
    pub client: Client,
    /// On the file that all read.
    pub file: Handle,
    pub lock: Option<Held>,
    /// Kept: the file is there as long as this is.
    pub _ephemeral: Option<Handle>,
}

/// A lock that a client holds exclusively.
pub struct Held {
    pub number: u32,
    pub handle: Handle,
    pub generation: Generation,
    pub sequencer: Sequencer,
}

pub fn lock_name(number: u32) -> String {
    format!("{}/l{number}", directory("locks"))
}

pub fn directory(name: &str) -> String {
    format!("/ls/{NAMESPACE}/{name}")
}

/// Connects all of them. The first ones hold a lock each, the last ones an ephemeral file.
pub async fn connect_all(
    env: &Env,
    targets: &[String],
    flags: &Flags,
    happened: &Arc<Happened>,
) -> anyhow::Result<Vec<HoldingClient>> {
    let service = Service::locate(targets, PATIENCE, env).await.context("find the service")?;
    let options = ConnectOptions {
        timeout: PATIENCE,
        connections: Some(Connections::shared(env, Profile::clients(), 1)),
        timers: Some(Timers::new(env)),
        // So that every call needs a host.
        cache: false,
        ends_idle: false,
        ..ConnectOptions::new(targets.to_vec())
    };
    let first = Client::join(&service, options.clone(), env).await.context("connect")?;
    for name in ["locks", "ephemerals"] {
        first.open(directory(name), OpenOptions::create_directory()).await.context("create a directory")?;
    }
    first.open(directory("file"), OpenOptions::create_file("read by all")).await.context("create a file")?;
    first.close().await;
    let (mut connecting, mut clients) = (JoinSet::new(), Vec::new());
    for number in 0..flags.clients {
        if connecting.len() >= CONNECTING {
            clients.extend(next(&mut connecting).await?);
        }
        let (env, service, options, happened) =
            (env.clone(), service.clone(), options.clone(), happened.clone());
        let locks = number < flags.locks;
        let is_present = number >= flags.clients - flags.ephemerals;
        connecting.spawn(async move {
            let client = Client::join(&service, options, &env).await.context("connect")?;
            env.tasks.spawn("client-events", watch(client.events(), happened));
            let file =
                client.open(directory("file"), OpenOptions::read()).await.context("open the file")?.handle;
            let lock = if locks { Some(lock(&client, number).await?) } else { None };
            let ephemeral = if is_present { Some(appear(&client, number).await?) } else { None };
            anyhow::Ok(HoldingClient { client, file, lock, _ephemeral: ephemeral })
        });
    }
    while let Some(client) = next(&mut connecting).await? {
        clients.push(client);
    }
    Ok(clients)
}

async fn next<T: 'static>(running: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    running.join_next().await.map(|done| done.context("join")?).transpose()
}

async fn lock(client: &Client, number: u32) -> anyhow::Result<Held> {
    let opened =
        client.open(lock_name(number), OpenOptions::create_file("")).await.context("create a lock")?;
    let acquired = opened.handle.acquire(LockMode::Exclusive).await.context("acquire")?;
    let sequencer = opened.handle.get_sequencer().await.context("get a sequencer")?;
    Ok(Held { number, handle: opened.handle, generation: acquired.lock_generation, sequencer })
}

async fn appear(client: &Client, number: u32) -> anyhow::Result<Handle> {
    let name = format!("{}/e{number}", directory("ephemerals"));
    let create = OpenOptions::create_file("").ephemeral().must_create();
    Ok(client.open(name, create).await.context("create an ephemeral file")?.handle)
}

/// Counts what happens to a session until it is over.
async fn watch(mut events: Events, happened: Arc<Happened>) {
    while let Some(event) = events.next().await {
        match event {
            SessionEvent::Jeopardy { .. } => happened.jeopardies.fetch_add(1, Ordering::Relaxed),
            SessionEvent::Expired(_) | SessionEvent::CellLost { .. } => {
                happened.lost.fetch_add(1, Ordering::Relaxed)
            }
            SessionEvent::Safe { .. } | SessionEvent::FailOver { .. } | SessionEvent::Missed(_) => 0,
        };
    }
}
