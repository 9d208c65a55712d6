//! The clients of one worker: how they come to have their sessions, and what is known of all of them.
//!
//! A client costs a session, a handle in each cell and a few numbers; timers, connections and
//! statistics are shared.

mod opening;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hasp_client::{Client, ConnectOptions, Connections, Handle, Service, Timers};
use hasp_proto::position::Position;
use hasp_proto::time::Time;
use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::check::{FileFloor, Holder, Mark, SessionFloor, Violation, Violations};
use crate::churn::Visits;
use crate::job::{Checks, Job, Progress, Sessions};
use crate::measure::{Latencies, OpStats};
use crate::tree::Place;
use opening::Opener;

/// How long a client tries to get a session before it is tried anew.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Sessions being opened, or ended, at a time: enough to keep the hosts busy, and so few that those which are open are
/// not late with their KeepAlives where all share a machine.
const CONNECTING: usize = 128;
/// How long the ends of all sessions may take together.
const CLOSE_DEADLINE: Duration = Duration::from_secs(45);

/// What is counted while a worker works; shared by all of its tasks.
#[derive(Default)]
pub struct Tally {
    opened: AtomicU64,
    lost: AtomicU64,
    jeopardy: AtomicU64,
    connected: AtomicU64,
    /// Of sessions that have ended since.
    keep_alives_ended: AtomicU64,
    findings: Mutex<Findings>,
    visits: Mutex<Visits>,
}

/// What operations and checks found.
#[derive(Default)]
pub struct Findings {
    /// Of the load.
    pub ops: OpStats,
    /// What was done.
    pub checks: Checks,
    /// What was broken.
    pub violations: Violations,
    /// What may have been.
    pub late_writes: Violations,
}

impl Tally {
    /// How the clients' sessions fare.
    pub fn sessions(&self) -> Sessions {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sessions { opened: load(&self.opened), lost: load(&self.lost), jeopardy: load(&self.jeopardy) }
    }

    /// Where everything stands.
    pub fn progress(&self) -> Progress {
        let visits_failed = self.visits().failed;
        let findings = self.findings();
        Progress {
            sessions: self.sessions(),
            connected: self.connected.load(Ordering::Relaxed),
            ops: findings.ops.count(),
            errors: findings.ops.errors() + findings.checks.errors + visits_failed,
            violations: findings.violations.count,
        }
    }

    /// What was found so far.
    pub fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of those that come and go.
    pub fn visits(&self) -> MutexGuard<'_, Visits> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a check's result.
    pub fn note(&self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            tracing::error!(%violation, "check failed");
            self.findings().violations.add(violation);
        }
    }
}

/// One client.
pub struct LoadClient {
    /// Among those of all workers.
    pub number: usize,
    /// Its session.
    pub client: Client,
    /// Of its file in each cell.
    files: Vec<Handle>,
    seen: Mutex<SessionFloor>,
    /// It does not know whether its locks stand.
    is_doubtful: Arc<AtomicBool>,
}

impl LoadClient {
    /// The handle of its file in a cell.
    pub fn file(&self, cell: usize) -> &Handle {
        &self.files[cell]
    }

    /// Whether it is in jeopardy or over, and so believes in no lock.
    pub fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Acquire)
    }

    fn seen(&self) -> MutexGuard<'_, SessionFloor> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that all clients share.
#[derive(Default)]
pub struct SharedLock {
    /// Who of this process holds it.
    pub holder: Holder,
    floor: Mutex<FileFloor>,
}

/// What an operation may not see less than: taken before it is sent.
pub struct Marks {
    file: Mark,
    session: SessionFloor,
}

/// All clients of a worker, with sessions.
pub struct Fleet {
    env: Env,
    job: Job,
    service: Service,
    options: ConnectOptions,
    clients: Vec<LoadClient>,
    floors: Vec<Mutex<FileFloor>>,
    locks: Vec<SharedLock>,
    tally: Arc<Tally>,
    next_write: AtomicU64,
    is_ending: watch::Sender<bool>,
}

/// How the ramp went.
pub struct Ramp {
    /// From the first attempt to the last client ready.
    pub took: Duration,
    /// From each client's intended start until it was ready.
    pub latencies: Latencies,
}

impl Fleet {
    /// Gets every client its session and handles, at the rate of the job.
    ///
    /// A client that cannot get a session is left out, and missing in the tally.
    ///
    /// # Errors
    /// The service cannot be found.
    pub async fn ramp(env: &Env, job: Job, tally: Arc<Tally>) -> anyhow::Result<(Fleet, Ramp)> {
        let service =
            Service::locate(&job.targets, CONNECT_TIMEOUT, env).await.context("find the service")?;
        let options = ConnectOptions {
            principal: "loadtest".into(),
            timeout: CONNECT_TIMEOUT,
            connections: Some(Connections::shared(env, Profile::clients(), job.sessions_per_connection)),
            timers: Some(Timers::new(env)),
            // They are given all proxies, and one read more for each would be load that nobody asked for.
            follows_list: false,
            ..ConnectOptions::new(job.targets.clone())
        };
        let mut fleet = Fleet {
            env: env.clone(),
            service,
            options,
            clients: Vec::new(),
            floors: job.tree.places().map(|_| Mutex::default()).collect(),
            locks: job.tree.lock_places().map(|_| SharedLock::default()).collect(),
            tally,
            next_write: AtomicU64::new(0),
            is_ending: watch::Sender::new(false),
            job,
        };
        let began = env.clock.now();
        let mut latencies = Latencies::new();
        for (client, latency) in fleet.open_all(began).await {
            latencies.record(latency);
            fleet.clients.push(client);
        }
        fleet.clients.sort_by_key(|client| client.number);
        Ok((fleet, Ramp { took: env.clock.now().saturating_since(began), latencies }))
    }

    async fn open_all(&self, began: Time) -> Vec<(LoadClient, Duration)> {
        let seats = Arc::new(Semaphore::new(CONNECTING));
        let mut opening = JoinSet::new();
        for index in 0..self.job.clients {
            let intended = began + Duration::from_secs_f64(index as f64 / self.job.ramp_per_s);
            self.env.clock.sleep_until(intended).await;
            let Ok(seat) = seats.clone().acquire_owned().await else { break };
            let opener = Opener {
                number: self.job.first_client + index,
                env: self.env.clone(),
                service: self.service.clone(),
                options: self.options.clone(),
                names: self.names_of(self.job.first_client + index),
                tally: self.tally.clone(),
            };
            opening.spawn(async move {
                let client = opener.open().await;
                drop(seat);
                client.map(|client| {
                    let latency = opener.env.clock.now().saturating_since(intended);
                    (client, latency)
                })
            });
        }
        let mut ready = Vec::new();
        while let Some(opened) = opening.join_next().await {
            ready.extend(opened.ok().flatten());
        }
        ready
    }

    /// A client's file in each cell.
    fn names_of(&self, client: usize) -> Vec<String> {
        let tree = &self.job.tree;
        (0..tree.cells()).map(|cell| tree.file_name(tree.file_of(client, cell))).collect()
    }

    /// The world.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// What it is to do.
    pub const fn job(&self) -> &Job {
        &self.job
    }

    /// Where everything is counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Those that have a session, by number.
    pub fn clients(&self) -> &[LoadClient] {
        &self.clients
    }

    /// Another session like the clients' own.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn connect(&self) -> Result<Client, hasp_client::ConnectError> {
        Client::join(&self.service, self.options.clone(), &self.env).await
    }

    /// A session of [`Fleet::connect`] has ended: what it sent counts as the clients' own.
    pub fn disconnected(&self, client: &Client) {
        self.tally.keep_alives_ended.fetch_add(client.keep_alives_sent(), Ordering::Relaxed);
    }

    /// Counts for the tally who speaks with a host now.
    pub fn count_connected(&self) {
        let connected = self.clients.iter().filter(|client| client.client.is_connected()).count();
        self.tally.connected.store(connected as u64, Ordering::Relaxed);
    }

    /// KeepAlives sent by all sessions since the start.
    pub fn keep_alives_sent(&self) -> u64 {
        let own: u64 = self.clients.iter().map(|client| client.client.keep_alives_sent()).sum();
        own + self.tally.keep_alives_ended.load(Ordering::Relaxed)
    }

    /// A number for the contents of a write.
    pub fn next_write(&self) -> u64 {
        self.next_write.fetch_add(1, Ordering::Relaxed)
    }

    /// No new operations from now on.
    pub fn begin_end(&self) {
        self.is_ending.send_replace(true);
    }

    /// Whether no new operations are to begin.
    pub fn is_ending(&self) -> bool {
        *self.is_ending.borrow()
    }

    /// Completes when no new operations are to begin.
    pub async fn ended(&self) {
        // The sender is here, so it cannot be gone.
        let _ = self.is_ending.subscribe().wait_for(|is_ending| *is_ending).await;
    }

    /// A lock that all clients share.
    pub fn lock(&self, cell: usize, lock: usize) -> &SharedLock {
        &self.locks[cell * self.job.tree.locks() + lock]
    }

    fn floor(&self, place: Place) -> MutexGuard<'_, FileFloor> {
        let floor = &self.floors[place.cell * self.job.tree.files + place.file];
        floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an operation on a file may not see less than.
    pub fn marks(&self, client: &LoadClient, place: Place) -> Marks {
        Marks { file: self.floor(place).mark(), session: client.seen().mark() }
    }

    /// What an acquisition may not see less than.
    pub fn lock_marks(&self, client: &LoadClient, lock: &SharedLock) -> Marks {
        let file = lock.floor.lock().unwrap_or_else(PoisonError::into_inner).mark();
        Marks { file, session: client.seen().mark() }
    }

    /// Checks what an operation on a file saw.
    pub fn check(
        &self,
        client: &LoadClient,
        place: Place,
        marks: &Marks,
        position: Option<&Position>,
        seen: impl FnOnce(&mut FileFloor, Mark) -> Result<(), Violation>,
    ) {
        let result = seen(&mut self.floor(place), marks.file);
        self.tally.note(result);
        self.check_position(client, marks, position);
    }

    /// Checks the generation of an acquisition.
    pub fn check_acquired(
        &self,
        client: &LoadClient,
        lock: &SharedLock,
        marks: &Marks,
        acquired: &hasp_client::Acquired,
    ) {
        let mut floor = lock.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let result = floor.acquired(marks.file, acquired.lock_generation.0);
        drop(floor);
        self.tally.note(result);
        self.check_position(client, marks, acquired.position.as_ref());
    }

    fn check_position(&self, client: &LoadClient, marks: &Marks, position: Option<&Position>) {
        if let Some(position) = position {
            let result = client.seen().seen(&marks.session, position);
            self.tally.note(result);
        }
        self.tally.findings().checks.reads += 1;
    }

    /// Ends all sessions, as far as the time suffices; the others end with the process.
    pub async fn close(&self) {
        let closing = async {
            for some in self.clients.chunks(CONNECTING) {
                let mut closing = JoinSet::new();
                for client in some {
                    let client = client.client.clone();
                    closing.spawn(async move { client.close().await });
                }
                closing.join_all().await;
            }
        };
        if tokio::time::timeout(CLOSE_DEADLINE, closing).await.is_err() {
            tracing::warn!("not all sessions ended in time");
        }
    }
}
