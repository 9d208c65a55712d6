//! Machines and the network between them: replicas whose disks outlive them, proxies, hosts of applications, and what
//! can go wrong with each.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hasp_cell::replica::memory_log::MemoryDisk;
use hasp_cell::service::{CellConfig, CellServer};
use hasp_client::Env;
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proxy::{Proxy, ProxyConfig};
use hasp_rt::clock::{Clock, SkewedClock, TokioClock};
use hasp_rt::disk::MemDisk;
use hasp_rt::rng::{Rng, Seeds};
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::SimTransport;
use tokio::sync::Notify;
use turmoil::Sim;

use crate::history::Moment;
use crate::journal::{Journal, Pages};

const PORT: u16 = 7000;
/// Between two steps of the simulated network.
const TICK: Duration = Duration::from_millis(5);
/// Two clocks of a run differ by less than the clock-rate bound of 10,000.
const SKEW_PPM: u64 = 4_500;
/// Few entries, so that snapshots and cut logs are common.
const SNAPSHOT_AFTER: u64 = 50;
/// So few that a replica that was away for a while needs the snapshot.
const KEEP_AFTER_SNAPSHOT: u64 = 20;

/// Runs a scenario with each of its usual seeds, or with those that `HASP_SIM_SEEDS` says (`7` or `0..30`).
pub fn for_seeds(usual: impl IntoIterator<Item = u64>, scenario: impl Fn(u64)) {
    log_if_asked();
    let mut failed = Vec::new();
    for seed in asked().unwrap_or_else(|| usual.into_iter().collect()) {
        // All seeds are tried: which of them fail says more than the first.
        if std::panic::catch_unwind(AssertUnwindSafe(|| scenario(seed))).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
}

fn asked() -> Option<Vec<u64>> {
    let text = std::env::var("HASP_SIM_SEEDS").ok()?;
    let number = |text: &str| text.parse::<u64>().expect("HASP_SIM_SEEDS is N or N..M");
    Some(match text.split_once("..") {
        Some((from, to)) => (number(from)..number(to)).collect(),
        None => vec![number(&text)],
    })
}

fn log_if_asked() {
    struct SimulatedTime;
    impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
        fn format_time(&self, out: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            write!(out, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
        }
    }
    if std::env::var("RUST_LOG").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another scenario may have set it already.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SimulatedTime).try_init();
    }
}

/// What makes an [`Env`] on a simulated host, anew each time it starts.
#[derive(Clone)]
struct Habitat {
    label: String,
    seed: u64,
    starts: Arc<AtomicU64>,
    disk: MemDisk,
    skew: Option<u64>,
}

impl Habitat {
    /// Must be called on the host.
    fn env(&self) -> Env {
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

#[derive(Clone)]
struct Replica {
    log: MemoryDisk,
    files: MemDisk,
    is_master: Arc<AtomicBool>,
    stop: Arc<Notify>,
    has_stopped: Arc<AtomicBool>,
}

/// One cell, its proxies, and the hosts of their clients.
pub struct World {
    sim: Sim<'static>,
    seed: u64,
    rng: Rng,
    map: PartitionMap,
    replicas: BTreeMap<String, Replica>,
    hosts: Vec<String>,
    pub journal: Journal,
}

impl World {
    /// Replicas of cell `a` named `replica-1` and so on, and proxies `proxy-1` and so on.
    pub fn new(seed: u64, replicas: usize, proxies: usize) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(65_536)
            .enable_random_order();
        let names: Vec<String> = (1..=replicas).map(|id| format!("replica-{id}")).collect();
        let cells = [(CellName::new("a"), names.iter().map(|name| address(name)).collect())];
        let map = PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells.into()).expect("a good map");
        let mut world = Self {
            sim: builder.build(),
            seed,
            rng: Seeds::from_seed(seed).stream("faults"),
            map,
            replicas: BTreeMap::new(),
            hosts: Vec::new(),
            journal: Journal::default(),
        };
        for (id, name) in (1..).zip(&names) {
            world.add_replica(id, name);
        }
        for place in 1..=proxies {
            world.add_proxy(&format!("proxy-{place}"));
        }
        world
    }

    fn habitat(&mut self, name: &str, skew: Option<u64>) -> Habitat {
        self.hosts.push(name.to_owned());
        Habitat {
            label: name.to_owned(),
            seed: self.seed,
            starts: Arc::default(),
            disk: MemDisk::new(),
            skew,
        }
    }

    fn add_replica(&mut self, id: u64, name: &str) {
        let habitat = self.habitat(name, None);
        let (log, is_master) = (MemoryDisk::default(), Arc::new(AtomicBool::new(false)));
        let config = CellConfig {
            snapshot_after: SNAPSHOT_AFTER,
            keep_after_snapshot: KEEP_AFTER_SNAPSHOT,
            ..CellConfig::new(CellName::new("a"), id, &listen(), PathBuf::from("/data"), self.map.clone())
        };
        let replica = Replica {
            log: log.clone(),
            files: habitat.disk.clone(),
            is_master,
            stop: Arc::default(),
            has_stopped: Arc::default(),
        };
        let at_start = replica.clone();
        self.replicas.insert(name.to_owned(), replica);
        self.sim.host(name, move || run_replica(config.clone(), habitat.env(), at_start.clone()));
    }

    fn add_proxy(&mut self, name: &str) {
        let skew = self.skew();
        let habitat = self.habitat(name, Some(skew));
        let config = ProxyConfig {
            listen: listen(),
            advertise: Some(address(name)),
            map: self.map.clone(),
            admin: None,
            terms: LeaseTerms::default(),
        };
        self.sim.host(name, move || run_proxy(config.clone(), habitat.env()));
    }

    /// A host of applications that runs until its work is done; all of them end before the run does.
    pub fn add_clients<F>(&mut self, name: &str, work: impl FnOnce(Env) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let skew = self.skew();
        let habitat = self.habitat(name, Some(skew));
        self.sim.client(name, async move {
            let env = habitat.env();
            tokio::select! {
                done = work(env.clone()) => done,
                failure = env.tasks.failed() => Err(failure.into()),
            }
        });
    }

    /// A host of applications that may crash; each start does the work anew.
    pub fn add_mortal_clients<F>(&mut self, name: &str, work: impl Fn(Env) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let skew = self.skew();
        let habitat = self.habitat(name, Some(skew));
        self.sim.host(name, move || work(habitat.env()));
    }

    fn skew(&mut self) -> u64 {
        1_000_000 - SKEW_PPM + self.below(2 * SKEW_PPM)
    }

    /// A number from the run's own stream.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    /// A duration of `from` to `to` milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.rng.below(to - from + 1))
    }

    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.sim.elapsed().as_millis()).expect("runs last minutes"))
    }

    /// One step of the network. Whether all clients are done.
    fn step(&mut self) -> bool {
        match self.sim.step() {
            Ok(is_done) => is_done,
            Err(error) => panic!("seed {} at {}: {error}", self.seed, self.now()),
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.sim.elapsed() + duration;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    /// Runs until `condition` holds.
    pub fn run_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let end = self.sim.elapsed() + limit;
        while !condition(self) {
            assert!(self.sim.elapsed() < end, "seed {} at {}: no {what}", self.seed, self.now());
            self.step();
        }
    }

    /// Lets everything recover, tells the clients to finish and waits for them, then checks that each of them had
    /// answers in the last five seconds before that.
    pub fn finish(&mut self, recovery: Duration) -> Pages {
        self.run_for(recovery);
        let stopped = self.now();
        let answered = self.journal.read().last_success;
        self.journal.stop();
        let end = self.sim.elapsed() + Duration::from_secs(30);
        while !self.step() {
            let at_work = self.journal.read().at_work;
            assert!(self.sim.elapsed() < end, "seed {} at {}: still {at_work:?}", self.seed, self.now());
        }
        assert!(!answered.is_empty(), "seed {}: nobody was answered anything", self.seed);
        for (client, last) in answered {
            assert!(
                last.0 + 5_000 > stopped.0,
                "seed {}: client {client} had its last answer at {last}",
                self.seed
            );
        }
        self.journal.read()
    }

    /// The replica that serves as master, as far as it knows itself.
    pub fn master(&self) -> Option<String> {
        let is_master = |replica: &Replica| replica.is_master.load(Ordering::Relaxed);
        let masters = self.replicas.iter().filter(|(_, replica)| is_master(replica));
        masters.map(|(name, _)| name.clone()).next()
    }

    /// Waits for a master.
    pub fn some_master(&mut self) -> String {
        self.run_until("master", Duration::from_secs(30), |world| world.master().is_some());
        self.master().expect("just seen")
    }

    pub fn replica_names(&self) -> Vec<String> {
        self.replicas.keys().cloned().collect()
    }

    /// What the replica writes to its log is safe only this long after.
    pub fn slow_disk(&self, replica: &str, delay: Duration) {
        self.replicas[replica].log.set_sync_delay(delay);
    }

    fn others(&self, name: &str) -> Vec<String> {
        self.hosts.iter().filter(|other| *other != name).cloned().collect()
    }

    /// Power loss: nobody hears a last word, and what was not synced is gone.
    pub fn cut_power(&mut self, name: &str) {
        for other in self.others(name) {
            self.sim.partition(name, other);
        }
        if let Some(replica) = self.replicas.get(name) {
            replica.log.crash();
            replica.log.set_sync_delay(Duration::ZERO);
            replica.files.crash();
            replica.is_master.store(false, Ordering::Relaxed);
        }
        self.sim.crash(name);
    }

    /// As by `kill -9`: the kernel closes the connections.
    pub fn kill(&mut self, name: &str) {
        self.sim.crash(name);
    }

    /// As by SIGTERM: the replica hands over what it has and ends by itself.
    pub fn stop(&self, replica: &str) {
        self.replicas[replica].stop.notify_one();
    }

    /// Whether the replica has ended since it was told to.
    pub fn has_stopped(&self, replica: &str) -> bool {
        self.replicas[replica].has_stopped.load(Ordering::Relaxed)
    }

    pub fn start(&mut self, name: &str) {
        self.mend(name);
        self.sim.bounce(name);
    }

    /// Cuts the host off from these others, in both directions.
    pub fn cut_off(&self, name: &str, others: &[String]) {
        for other in others.iter().filter(|other| *other != name) {
            self.sim.partition(name, other.as_str());
        }
    }

    pub fn mend(&self, name: &str) {
        for other in self.others(name) {
            self.sim.repair(name, other);
        }
    }
}

pub fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

fn listen() -> String {
    format!("0.0.0.0:{PORT}")
}

async fn run_replica(config: CellConfig, env: Env, replica: Replica) -> turmoil::Result {
    let Replica { log, is_master, stop, has_stopped, .. } = replica;
    has_stopped.store(false, Ordering::Relaxed);
    let listener = env.transport.listen(&config.listen).await?;
    let server = CellServer::start_on_log(listener, config, &env, log.open()).await?;
    let watch = async {
        loop {
            is_master.store(server.status().is_master(), Ordering::Relaxed);
            env.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        failure = env.tasks.failed() => Err(failure.into()),
        reason = server.dead() => Err(reason.into()),
        () = watch => Ok(()),
        () = stop.notified() => {
            is_master.store(false, Ordering::Relaxed);
            server.shutdown().await;
            has_stopped.store(true, Ordering::Relaxed);
            Ok(())
        }
    }
}

async fn run_proxy(config: ProxyConfig, env: Env) -> turmoil::Result {
    let _proxy = Proxy::start(config, &env).await?;
    Err(env.tasks.failed().await.into())
}
