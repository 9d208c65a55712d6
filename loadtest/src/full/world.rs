//! Machines and the network between them: replicas whose disks outlive them, proxies, hosts of applications, and what
//! can go wrong with each.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hasp_cell::service::CellConfig;
use hasp_client::Env;
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proxy::ProxyConfig;
use hasp_rt::rng::{Rng, Seeds};
use turmoil::Sim;

use super::history::Moment;
use super::journal::{Journal, Pages};
use super::layout::listen;
pub use super::layout::{Shape, address};
use super::machines::{Habitat, Replica, run_proxy, run_replica};

/// Between two steps of the simulated network.
const TICK: Duration = Duration::from_millis(5);
/// Two clocks of a run differ by less than the clock-rate bound of 10,000.
const SKEW_PPM: u64 = 4_500;

/// Cells, their proxies, and the hosts of their clients.
pub struct World {
    sim: Sim<'static>,
    seed: u64,
    rng: Rng,
    map: PartitionMap,
    shape: Shape,
    replicas: BTreeMap<String, Replica>,
    hosts: Vec<String>,
    /// By cell.
    last_masters: BTreeMap<CellName, String>,
    /// Requests that upper proxies received.
    layered: Arc<AtomicU64>,
    /// What the clients were told, and what happened.
    pub journal: Journal,
}

impl World {
    /// Replicas of cell `a` named `replica-1` and so on, and proxies `proxy-1` and so on.
    pub fn new(seed: u64, replicas: usize, proxies: usize) -> Self {
        Self::shaped(seed, Shape::of(replicas, proxies), Journal::default())
    }

    /// The same with other limits, and a journal that somebody else reads too.
    pub fn shaped(seed: u64, shape: Shape, journal: Journal) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(65_536)
            .enable_random_order();
        let mut world = Self {
            sim: builder.build(),
            seed,
            rng: Seeds::from_seed(seed).stream("faults"),
            map: shape.map(),
            shape,
            replicas: BTreeMap::new(),
            hosts: Vec::new(),
            last_masters: BTreeMap::new(),
            layered: Arc::default(),
            journal,
        };
        for (cell, names) in shape.cells() {
            for (id, name) in (1..).zip(&names) {
                world.add_replica(&cell, id, name);
            }
        }
        let upper: Vec<String> = shape.upper_proxies().iter().map(|name| address(name)).collect();
        for name in shape.upper_proxies() {
            let counted = world.layered.clone();
            world.add_proxy(&name, Vec::new(), counted);
        }
        for name in shape.lower_proxies() {
            world.add_proxy(&name, upper.clone(), Arc::default());
        }
        world
    }

    fn habitat(&mut self, name: &str, skew: Option<u64>) -> Habitat {
        self.hosts.push(name.to_owned());
        Habitat::new(name, self.seed, skew)
    }

    fn add_replica(&mut self, cell: &CellName, id: u64, name: &str) {
        let habitat = self.habitat(name, None);
        let config = CellConfig {
            snapshot_after: self.shape.snapshot_after,
            keep_after_snapshot: self.shape.keep_after_snapshot,
            ..CellConfig::new(cell.clone(), id, &listen(), PathBuf::from("/data"), self.map.clone())
        };
        let replica = Replica::new(cell.clone(), habitat.disk.clone(), self.journal.clone());
        let at_start = replica.clone();
        self.replicas.insert(name.to_owned(), replica);
        self.sim.host(name, move || run_replica(config.clone(), habitat.env(), at_start.clone()));
    }

    fn add_proxy(&mut self, name: &str, upstream: Vec<String>, requests: Arc<AtomicU64>) {
        let skew = self.skew();
        let habitat = self.habitat(name, Some(skew));
        let config = ProxyConfig {
            listen: listen(),
            advertise: Some(address(name)),
            map: self.map.clone(),
            upstream,
            admin: None,
            terms: LeaseTerms { lease: self.shape.proxy_lease },
        };
        self.sim.host(name, move || run_proxy(config.clone(), habitat.env(), requests.clone()));
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
        self.sim.host(name, move || {
            let env = habitat.env();
            let work = work(env.clone());
            async move {
                tokio::select! {
                    done = work => done,
                    failure = env.tasks.failed() => Err(failure.into()),
                }
            }
        });
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

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.sim.elapsed().as_millis()).expect("runs last minutes"))
    }

    /// One step of the network. Whether all clients are done, but for those on mortal hosts.
    pub fn step(&mut self) -> bool {
        let is_done = match self.sim.step() {
            Ok(is_done) => is_done,
            Err(error) => panic!("seed {} at {}: {error}", self.seed, self.now()),
        };
        let masters = self.masters();
        for (cell, name) in &masters {
            if self.last_masters.get(cell) != Some(name) {
                self.journal.elected();
                self.tell(&format!("{name} is master"));
            }
        }
        self.last_masters = masters;
        is_done
    }

    /// Notes what happens to the world.
    pub fn tell(&self, what: &str) {
        self.journal.tell_at(self.sim.elapsed(), what);
    }

    /// Since the world began.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets the world go on for so long.
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

    /// The replica of each cell that serves as its master, as far as it knows itself.
    pub fn masters(&self) -> BTreeMap<CellName, String> {
        let is_master = |replica: &Replica| replica.is_master.load(Ordering::Relaxed);
        let masters = self.replicas.iter().rev().filter(|(_, replica)| is_master(replica));
        // Of several the first stays.
        masters.map(|(name, replica)| (replica.cell.clone(), name.clone())).collect()
    }

    /// The master of the first cell.
    pub fn master(&self) -> Option<String> {
        self.masters().remove(&CellName::new("a"))
    }

    /// Waits until each cell has a master. That of the first.
    pub fn some_master(&mut self) -> String {
        let cells = self.map.cells.len();
        self.run_until("master", Duration::from_secs(30), |world| world.masters().len() == cells);
        self.master().expect("just seen")
    }

    /// Requests that came through two layers of proxies. None is counted where applications know both.
    pub fn layered(&self) -> u64 {
        if self.shape.is_upper_known { 0 } else { self.layered.load(Ordering::Relaxed) }
    }

    /// Names of all replicas, in order.
    pub fn replica_names(&self) -> Vec<String> {
        self.replicas.keys().cloned().collect()
    }

    /// The place of the replica's cell among all cells.
    pub fn place_of_cell(&self, replica: &str) -> Option<usize> {
        let cell = &self.replicas.get(replica)?.cell;
        self.map.cells.keys().position(|other| other == cell)
    }

    /// Which cell owns which names.
    pub const fn map(&self) -> &PartitionMap {
        &self.map
    }

    /// What the replica writes to its log is safe only this long after.
    pub fn slow_disk(&self, replica: &str, delay: Duration) {
        self.replicas[replica].set_sync_delay(delay);
    }

    fn others(&self, name: &str) -> Vec<String> {
        self.hosts.iter().filter(|other| *other != name).cloned().collect()
    }

    /// From now on the replica's disk takes nothing more.
    pub fn fill_disk(&self, replica: &str) {
        let replica = &self.replicas[replica];
        replica.may_fail.store(true, Ordering::Relaxed);
        replica.log.fill();
        replica.files.limit(0);
    }

    /// The replica's disk takes more again.
    pub fn make_room(&self, replica: &str) {
        self.replicas[replica].log.make_room();
        self.replicas[replica].files.make_room();
    }

    /// Whether a write of the running replica's log has failed: nothing more is written.
    pub fn has_failed(&self, replica: &str) -> bool {
        self.replicas[replica].log.has_failed()
    }

    /// Whether the replica has heard of that, so that it must go out of service.
    pub fn must_stop(&self, replica: &str) -> bool {
        self.replicas[replica].log.has_told_of_failure()
    }

    /// Power loss: nobody hears a last word, and what was not synced is gone.
    pub fn cut_power(&mut self, name: &str) {
        self.cut_power_torn(name, 0);
    }

    /// Power loss, of which so many of a thousand parts of what was not synced survive.
    pub fn cut_power_torn(&mut self, name: &str, per_mille: usize) {
        for other in self.others(name) {
            self.sim.partition(name, other);
        }
        if let Some(replica) = self.replicas.get(name) {
            replica.log.crash_torn(per_mille);
            replica.set_sync_delay(Duration::ZERO);
            replica.files.crash_torn(per_mille);
            replica.is_master.store(false, Ordering::Relaxed);
        }
        self.sim.crash(name);
    }

    /// As by `kill -9`: the kernel closes the connections.
    pub fn kill(&mut self, name: &str) {
        if let Some(replica) = self.replicas.get(name) {
            replica.is_master.store(false, Ordering::Relaxed);
        }
        self.sim.crash(name);
    }

    /// As by SIGTERM: the replica hands over what it has and ends by itself.
    pub fn stop(&self, replica: &str) {
        self.replicas[replica].is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the replica has ended by itself.
    pub fn has_stopped(&self, replica: &str) -> bool {
        self.replicas[replica].has_stopped.load(Ordering::Relaxed)
    }

    /// Starts what runs on the host, from its disk, and mends its links.
    pub fn start(&mut self, name: &str) {
        if let Some(replica) = self.replicas.get(name) {
            for flag in [&replica.may_fail, &replica.is_leaving, &replica.has_stopped] {
                flag.store(false, Ordering::Relaxed);
            }
        }
        self.mend(name);
        self.sim.bounce(name);
    }

    /// Cuts the host off from these others, in both directions.
    pub fn cut_off(&self, name: &str, others: &[String]) {
        for other in others.iter().filter(|other| *other != name) {
            self.sim.partition(name, other.as_str());
        }
    }

    /// What the host sends to these others is lost; what they send arrives.
    pub fn silence(&self, name: &str, others: &[String]) {
        for other in others.iter().filter(|other| *other != name) {
            self.sim.partition_oneway(name, other.as_str());
        }
    }

    /// What the two send one another waits until [`release`](Self::release).
    pub fn hold(&self, one: &str, other: &str) {
        self.sim.hold(one, other);
    }

    /// Ends [`hold`](Self::hold): all that waits arrives.
    pub fn release(&self, one: &str, other: &str) {
        self.sim.release(one, other);
    }

    /// Links of the host work again. What was held there stays lost.
    pub fn mend(&self, name: &str) {
        for other in self.others(name) {
            self.sim.repair(name, other);
        }
    }

    /// Whether the host is a replica.
    pub fn is_replica(&self, name: &str) -> bool {
        self.replicas.contains_key(name)
    }

    /// Names of all hosts.
    pub fn host_names(&self) -> Vec<String> {
        self.hosts.clone()
    }

    /// What each replica of the cell has applied, with the checksum of its state there. All must be running.
    pub fn digests(&mut self, cell: &CellName) -> BTreeMap<String, (u64, u64)> {
        let of_cell = self.replicas.iter().filter(|(_, replica)| replica.cell == *cell);
        let replicas: Vec<(String, Replica)> =
            of_cell.map(|(name, replica)| (name.clone(), replica.clone())).collect();
        replicas.iter().for_each(|(_, replica)| replica.ask_digest());
        self.run_until("digests of all replicas", Duration::from_secs(1), |_| {
            replicas.iter().all(|(_, replica)| replica.digest().is_some())
        });
        replicas.iter().filter_map(|(name, replica)| Some((name.clone(), replica.digest()?))).collect()
    }

    /// What is safe on the log of each of the cell's replicas: term, index and contents of each entry.
    pub fn logs(&self, cell: &CellName) -> BTreeMap<String, Vec<(u64, u64, String)>> {
        let replicas = self.replicas.iter().filter(|(_, replica)| replica.cell == *cell);
        replicas.map(|(name, replica)| (name.clone(), replica.log.durable_entries())).collect()
    }
}
