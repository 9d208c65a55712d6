//! Those that use the prefix while it moves, and those that write elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hasp_client::{
    CallError, Client, ConnectOptions, Connections, Env, EventKind, EventMask, Events, Generation, Handle,
    HandleEvent, LockMode, LossCause, NodeEvents, OpenOptions, Sequencer, Service, SessionEvent, Timers,
};
use hasp_loadtest::bench::Span;
use hasp_loadtest::system::NAMESPACE;
use hasp_proto::time::Time;
use hasp_rt::rpc::Profile;
use tokio::task::JoinSet;

use crate::PATIENCE;

/// Clients that want the same lock.
pub const CLIENTS_PER_LOCK: u32 = 5;
/// Clients being connected at a time.
const CONNECTING: usize = 64;
/// Why operations failed: so many are kept.
const FAILURES_MAX: usize = 8;

/// What moves.
pub fn prefix() -> String {
    format!("/ls/{NAMESPACE}/jobs")
}

/// Of whoever writes elsewhere: one directory in each cell, neither of which moves.
pub fn elsewhere() -> [String; 2] {
    [format!("/ls/{NAMESPACE}/elsewhere"), format!("/ls/{NAMESPACE}/b/elsewhere")]
}

/// What all clients found so far.
#[derive(Default)]
pub struct Found {
    pub jeopardies: AtomicU64,
    pub sessions_lost: AtomicU64,
    pub errors: AtomicU64,
    /// Acquisitions whose generation was not greater than that of the one before.
    pub generations_fallen: AtomicU64,
    /// Acquisitions of a lock that another client held.
    pub two_holders: AtomicU64,
    /// Reads of something older than what was written before.
    pub stale_reads: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Found {
    fn failed(&self, what: &str, error: &CallError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures();
        if failures.len() < FAILURES_MAX {
            failures.push(format!("{what}: {error}"));
        }
    }

    pub fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a file or a lock that several clients use.
#[derive(Default)]
struct Floor {
    /// Greatest generation of a write that was complete, or of an acquisition.
    generation: AtomicU64,
    is_held: AtomicBool,
}

/// What all clients share.
pub struct Scene {
    pub env: Env,
    pub found: Found,
    service: Service,
    options: ConnectOptions,
    /// One for each client.
    files: Vec<Floor>,
    locks: Vec<Floor>,
    is_over: AtomicBool,
}

impl Scene {
    pub async fn new(env: &Env, targets: &[String], clients: u32) -> anyhow::Result<Arc<Self>> {
        let service = Service::locate(targets, PATIENCE, env).await.context("find the service")?;
        let options = ConnectOptions {
            timeout: PATIENCE,
            connections: Some(Connections::shared(env, Profile::clients(), 1)),
            timers: Some(Timers::new(env)),
            ends_idle: false,
            ..ConnectOptions::new(targets.to_vec())
        };
        Ok(Arc::new(Self {
            env: env.clone(),
            found: Found::default(),
            service,
            options,
            files: (0..clients).map(|_| Floor::default()).collect(),
            locks: (0..clients.div_ceil(CLIENTS_PER_LOCK)).map(|_| Floor::default()).collect(),
            is_over: AtomicBool::new(false),
        }))
    }

    pub async fn connect(self: &Arc<Self>) -> anyhow::Result<Client> {
        let joined = Client::join(&self.service, self.options.clone(), &self.env).await;
        let client = joined.context("connect")?;
        self.env.tasks.spawn("client-events", watch_session(client.events(), self.clone()));
        Ok(client)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Waits until the next operation is due; what is late is left out.
    async fn pace(&self, due: &mut Time, period: Duration) {
        let now = self.env.clock.now();
        while *due <= now {
            *due = *due + period;
        }
        self.env.clock.sleep_until(*due).await;
    }

    fn span_since(&self, began: Time) -> Span {
        Span { began, ended: self.env.clock.now() }
    }
}

/// Counts what happens to a session until it is over.
async fn watch_session(mut events: Events, scene: Arc<Scene>) {
    let Found { jeopardies, sessions_lost, .. } = &scene.found;
    while let Some(event) = events.next().await {
        match event {
            SessionEvent::Jeopardy { .. } => jeopardies.fetch_add(1, Ordering::Relaxed),
            SessionEvent::Expired(_) | SessionEvent::CellLost { .. } => {
                sessions_lost.fetch_add(1, Ordering::Relaxed)
            }
            SessionEvent::Safe { .. } | SessionEvent::FailOver { .. } | SessionEvent::Missed(_) => 0,
        };
    }
}

/// One that uses the prefix: it writes its file, watches and reads the next one's, takes a lock that some share, and
/// holds another all the time.
pub struct JobClient {
    number: usize,
    client: Client,
    own: Handle,
    watched: Handle,
    shared_lock: Handle,
    kept: Kept,
}

struct Kept {
    handle: Handle,
    generation: Generation,
    sequencer: Sequencer,
}

/// Connects all of them.
pub async fn connect_all(scene: &Arc<Scene>, clients: u32) -> anyhow::Result<Vec<JobClient>> {
    let (mut connecting, mut connected) = (JoinSet::new(), Vec::new());
    for number in 0..clients as usize {
        if connecting.len() >= CONNECTING {
            connected.extend(next(&mut connecting).await?);
        }
        connecting.spawn(JobClient::connect(scene.clone(), number));
    }
    while let Some(client) = next(&mut connecting).await? {
        connected.push(client);
    }
    Ok(connected)
}

/// The next of some tasks that is done.
pub async fn next<T: 'static>(running: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    running.join_next().await.map(|done| done.context("join")?).transpose()
}

impl JobClient {
    async fn connect(scene: Arc<Scene>, number: usize) -> anyhow::Result<Self> {
        let (client, prefix) = (scene.connect().await?, prefix());
        let open = async |name: String, options: OpenOptions| {
            let opened = client.open(&name, options).await;
            anyhow::Ok(opened.with_context(|| format!("open {name}"))?.handle)
        };
        let file = |number: usize| format!("{prefix}/files/f{number}");
        let own = open(file(number), OpenOptions::write()).await?;
        let events = EventMask::of([EventKind::ContentsModified]);
        let watched =
            open(file((number + 1) % scene.files.len()), OpenOptions::read().events(events)).await?;
        let group = number / CLIENTS_PER_LOCK as usize;
        let shared_lock = open(format!("{prefix}/locks/s{group}"), OpenOptions::write()).await?;
        let handle = open(format!("{prefix}/locks/k{number}"), OpenOptions::write()).await?;
        let generation = handle.acquire(LockMode::Exclusive).await.context("acquire")?.lock_generation;
        let sequencer = handle.get_sequencer().await.context("get a sequencer")?;
        let kept = Kept { handle, generation, sequencer };
        Ok(Self { number, client, own, watched, shared_lock, kept })
    }

    /// Works at this pace until it is over.
    pub async fn work(self, scene: Arc<Scene>, period: Duration) -> anyhow::Result<Worked> {
        let heard = Arc::<Heard>::default();
        scene.env.tasks.spawn("node-events", listen(self.watched.events(), heard.clone()));
        let (mut operations, mut writes) = (Vec::new(), Vec::new());
        // They do not all come at once.
        let mut due = scene.env.clock.now() + period * (self.number as u32) / (scene.files.len() as u32);
        for round in self.number.. {
            scene.pace(&mut due, period).await;
            if scene.is_over() {
                break;
            }
            let began = scene.env.clock.now();
            let done = match round % 4 {
                0 | 2 => self.write(&scene).await.map_err(|error| ("write", error)),
                1 => self.lock(&scene).await.map_err(|error| ("lock", error)),
                _ => self.read(&scene).await.map_err(|error| ("read", error)),
            };
            match done {
                Ok(()) => {
                    let span = scene.span_since(began);
                    operations.push(span);
                    if round % 2 == 0 {
                        writes.push(span);
                    }
                }
                Err((what, error)) => scene.found.failed(what, &error),
            }
        }
        Ok(Worked { client: self, operations, writes, heard })
    }

    async fn write(&self, scene: &Scene) -> Result<(), CallError> {
        let floor = &scene.files[self.number];
        let written = self.own.set_contents("contents of a small file", None).await?;
        floor.generation.fetch_max(written.content_generation.0, Ordering::AcqRel);
        Ok(())
    }

    async fn read(&self, scene: &Scene) -> Result<(), CallError> {
        let floor = &scene.files[(self.number + 1) % scene.files.len()].generation;
        let before = floor.load(Ordering::Acquire);
        let read = self.watched.get_contents_and_stat().await?;
        if read.stat.content_generation.0 < before {
            scene.found.stale_reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn lock(&self, scene: &Scene) -> Result<(), CallError> {
        let floor = &scene.locks[self.number / CLIENTS_PER_LOCK as usize];
        let acquired = self.shared_lock.acquire(LockMode::Exclusive).await?.lock_generation.0;
        if floor.is_held.swap(true, Ordering::AcqRel) {
            scene.found.two_holders.fetch_add(1, Ordering::Relaxed);
        }
        if floor.generation.swap(acquired, Ordering::AcqRel) >= acquired {
            scene.found.generations_fallen.fetch_add(1, Ordering::Relaxed);
        }
        floor.is_held.store(false, Ordering::Release);
        self.shared_lock.release().await?;
        Ok(())
    }
}

/// What a client did.
pub struct Worked {
    client: JobClient,
    pub operations: Vec<Span>,
    /// Those among them that others are told of.
    writes: Vec<Span>,
    heard: Arc<Heard>,
}

/// What a client was told of the file that it watches.
#[derive(Default)]
struct Heard {
    events: AtomicU64,
    fail_overs: AtomicU64,
    other_losses: AtomicU64,
}

async fn listen(mut events: NodeEvents, heard: Arc<Heard>) {
    while let Some(event) = events.next().await {
        let count = match event {
            HandleEvent::Happened(_) => &heard.events,
            HandleEvent::EventsLost(LossCause::FailOver { .. }) => &heard.fail_overs,
            HandleEvent::EventsLost(_) | HandleEvent::Invalid(_) => &heard.other_losses,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes, and what was told of them.
#[derive(Debug, Default)]
pub struct Told {
    pub writes: u64,
    pub heard: u64,
    /// Losses announced because of a fail-over, or of a prefix that came to another master.
    pub fail_overs: u64,
    /// Losses announced for other reasons.
    pub other_losses: u64,
    /// Events that did not come although no loss was announced, or more than were written while the prefix moved.
    pub missing: u64,
    /// Events beyond the writes.
    pub repeated: u64,
}

/// What all of them were told, if the prefix moved at these times: a loss that is announced then is of what was written
/// then, and of nothing else.
pub fn told(worked: &[Worked], moves: &[Span]) -> Told {
    let by_number: BTreeMap<usize, &Worked> =
        worked.iter().map(|client| (client.client.number, client)).collect();
    let mut told = Told::default();
    for client in worked {
        if let Some(writer) = by_number.get(&((client.client.number + 1) % worked.len())) {
            client.add_to(&mut told, &writer.writes, moves);
        }
    }
    told
}

impl Worked {
    fn add_to(&self, told: &mut Told, writes: &[Span], moves: &[Span]) {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        let is_excused = |write: &&Span| moves.iter().any(|one| one.overlaps(**write));
        let excused = writes.iter().filter(is_excused).count() as u64;
        let writes = writes.len() as u64;
        let Heard { events, fail_overs, other_losses } = &*self.heard;
        let [heard, fail_overs, other_losses] = [events, fail_overs, other_losses].map(load);
        told.writes += writes;
        told.heard += heard;
        told.fail_overs += fail_overs;
        told.other_losses += other_losses;
        told.repeated += heard.saturating_sub(writes);
        let excused = if fail_overs + other_losses == 0 { 0 } else { excused };
        told.missing += writes.saturating_sub(heard).saturating_sub(excused);
    }

    /// Whether the lock that it took in the beginning is still its own: by the generation that the cell has, by the
    /// sequencer taken then, and by what its own library says.
    pub async fn keeps_lock(&self) -> anyhow::Result<bool> {
        let Kept { handle, generation, sequencer } = &self.client.kept;
        let stated = handle.get_stat().await.context("look at a lock")?;
        let checked = self.client.client.check_sequencer(sequencer).await;
        let is_told = handle.get_sequencer().await;
        Ok(stated.stat.lock_generation == *generation && checked.is_ok() && is_told.is_ok())
    }
}

/// Writes a file where nothing moves, until it is over.
pub async fn write_elsewhere(
    scene: Arc<Scene>,
    client: Client,
    name: String,
    period: Duration,
) -> anyhow::Result<Vec<Span>> {
    let opened = client.open(&name, OpenOptions::create_file("")).await;
    let handle = opened.with_context(|| format!("open {name}"))?.handle;
    let (mut due, mut operations) = (scene.env.clock.now(), Vec::new());
    loop {
        scene.pace(&mut due, period).await;
        if scene.is_over() {
            return Ok(operations);
        }
        let began = scene.env.clock.now();
        match handle.set_contents("elsewhere", None).await {
            Ok(_) => operations.push(scene.span_since(began)),
            Err(error) => scene.found.failed("write elsewhere", &error),
        }
    }
}
