//! What runs on the hosts of a world: replicas whose disks outlive them, and proxies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hasp_cell::replica::memory_log::MemoryDisk;
use hasp_cell::service::{CellConfig, CellServer};
use hasp_client::Env;
use hasp_proto::id::CellName;
use hasp_proxy::{Proxy, ProxyConfig};
use hasp_rt::clock::{Clock, SkewedClock, TokioClock};
use hasp_rt::disk::MemDisk;
use hasp_rt::rng::Seeds;
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::SimTransport;

use super::journal::Journal;

/// How often a replica is looked at from outside.
const WATCH: Duration = Duration::from_millis(10);
/// How often a proxy's requests are counted.
const COUNT: Duration = Duration::from_millis(200);

/// What makes an [`Env`] on a simulated host, anew each time it starts.
#[derive(Clone)]
pub(super) struct Habitat {
    label: String,
    seed: u64,
    starts: Arc<AtomicU64>,
    /// Outlives what runs on the host.
    pub(super) disk: MemDisk,
    skew: Option<u64>,
}

impl Habitat {
    /// Of the host of that name, whose clock is right or goes at that rate.
    pub(super) fn new(label: &str, seed: u64, skew: Option<u64>) -> Self {
        Self { label: label.to_owned(), seed, starts: Arc::default(), disk: MemDisk::new(), skew }
    }

    /// Must be called on the host.
    pub(super) fn env(&self) -> Env {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let clock: Arc<dyn Clock> = match self.skew {
            Some(rate) => Arc::new(SkewedClock::new(Arc::new(TokioClock::new()), Duration::ZERO, rate)),
            None => Arc::new(TokioClock::new()),
        };
        Env {
            clock,
            transport: Arc::new(SimTransport),
            disk: Arc::new(self.disk.clone()),
            seeds: Seeds::from_seed(self.seed).child(&format!("{} start {start}", self.label)),
            tasks: Tasks::new(),
        }
    }
}

/// A replica as the world sees it. A clone is the same one.
#[derive(Clone)]
pub(super) struct Replica {
    /// Which cell it is of.
    pub(super) cell: CellName,
    pub(super) log: MemoryDisk,
    pub(super) files: MemDisk,
    pub(super) is_master: Arc<AtomicBool>,
    /// It is told to hand over and end.
    pub(super) is_leaving: Arc<AtomicBool>,
    pub(super) has_stopped: Arc<AtomicBool>,
    /// Its disk has been full since its start: it may go out of service.
    pub(super) may_fail: Arc<AtomicBool>,
    /// The index that it has applied and the checksum of its state there, if somebody asked for them.
    digest: Arc<Mutex<Option<(u64, u64)>>>,
    wants_digest: Arc<AtomicBool>,
    journal: Journal,
}

impl Replica {
    pub(super) fn new(cell: CellName, files: MemDisk, journal: Journal) -> Self {
        Self {
            cell,
            log: MemoryDisk::default(),
            files,
            is_master: Arc::default(),
            is_leaving: Arc::default(),
            has_stopped: Arc::default(),
            may_fail: Arc::default(),
            digest: Arc::default(),
            wants_digest: Arc::default(),
            journal,
        }
    }

    /// From now on its digest is what it says next.
    pub(super) fn ask_digest(&self) {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.wants_digest.store(true, Ordering::Relaxed);
    }

    /// What it has applied, with the checksum of its state there, once it has said so.
    pub(super) fn digest(&self) -> Option<(u64, u64)> {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it writes is safe only so much later.
    pub(super) fn set_sync_delay(&self, delay: Duration) {
        self.log.set_sync_delay(delay);
        self.files.set_sync_delay(delay);
    }
}

/// Runs a replica until it is told to leave, or its disk fails.
pub(super) async fn run_replica(config: CellConfig, env: Env, replica: Replica) -> turmoil::Result {
    let listener = env.transport.listen(&config.listen).await?;
    let server = CellServer::start_on_log(listener, config, &env, replica.log.open()).await?;
    let watch = async {
        while !replica.is_leaving.load(Ordering::Relaxed) {
            replica.is_master.store(server.status().is_master(), Ordering::Relaxed);
            if replica.wants_digest.swap(false, Ordering::Relaxed) {
                let digest = server.status().digest();
                *replica.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
            }
            env.clock.sleep(WATCH).await;
        }
    };
    let failure = tokio::select! {
        failure = env.tasks.failed() => return Err(failure.into()),
        reason = server.dead() => Some(reason),
        () = watch => None,
    };
    replica.is_master.store(false, Ordering::Relaxed);
    match failure {
        None => server.shutdown().await,
        Some(reason) if !replica.may_fail.load(Ordering::Relaxed) => return Err(reason.into()),
        Some(reason) => {
            replica.journal.note("out of service: full disk");
            replica.journal.tell(&format!("out of service: {reason}"));
        }
    }
    replica.has_stopped.store(true, Ordering::Relaxed);
    Ok(())
}

/// Runs a proxy for ever. What it is asked is added to `requests`.
pub(super) async fn run_proxy(config: ProxyConfig, env: Env, requests: Arc<AtomicU64>) -> turmoil::Result {
    let proxy = Proxy::start(config, &env).await?;
    let watch = async {
        let mut seen = 0;
        loop {
            let received = proxy.status().requests;
            requests.fetch_add(received - seen, Ordering::Relaxed);
            seen = received;
            env.clock.sleep(COUNT).await;
        }
    };
    tokio::select! {
        failure = env.tasks.failed() => Err(failure.into()),
        never = watch => never,
    }
}
