//! A cell of several replicas in one process, whose hosts crash and come back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hasp_rt::clock::SystemClock;
use hasp_rt::disk::MemDisk;
use hasp_rt::env::Env;
use hasp_rt::rng::Seeds;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::{PipeTransport, Transport};
use rpds::VectorSync;

use super::cuts::Cuts;

use super::super::connect::{Link, Peers};
use super::super::memory_log::MemoryDisk;
use super::super::{
    Machine, MachineError, Mastery, MasteryToken, Replica, ReplicaConfig, StartError, Timing, profile,
};

/// A list that grows: every entry is one item.
#[derive(Clone, Default)]
pub struct Items(VectorSync<Bytes>);

impl Items {
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
    }
}

pub const POISON: &[u8] = b"poison";

impl Machine for Items {
    /// How many items there are with this one.
    type Outcome = usize;

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<usize>, MachineError> {
        if entry == POISON {
            return Err(MachineError("poisoned entry".to_owned()));
        }
        self.0.push_back_mut(Bytes::copy_from_slice(entry));
        Ok(vec![self.0.len()])
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        self.0.iter().cloned().collect()
    }

    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        Ok(Self(records.collect()))
    }
}

/// One machine: its disks outlive what runs on it.
pub struct Host {
    pub log: MemoryDisk,
    pub files: Arc<MemDisk>,
    running: Option<Running>,
}

struct Running {
    replica: Replica<Items>,
    tasks: Tasks,
}

/// A cell and the network it is on.
pub struct World {
    pub transport: PipeTransport,
    pub cuts: Cuts,
    pub config: ReplicaConfig,
    pub hosts: BTreeMap<u64, Host>,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// Hosts 1 to `count`, on which nothing runs yet.
    pub fn new(count: u64) -> Self {
        let peers: BTreeMap<u64, String> = (1..=count).map(|id| (id, address(id))).collect();
        let host = || Host { log: MemoryDisk::default(), files: Arc::new(MemDisk::new()), running: None };
        let hosts = peers.keys().map(|id| (*id, host())).collect();
        let config = ReplicaConfig::new("a", 0, peers, PathBuf::from("/data"));
        Self { transport: PipeTransport::new(), cuts: Cuts::default(), config, hosts }
    }

    /// A founded cell with a leader.
    pub async fn founded(count: u64) -> Self {
        let mut world = Self::new(count);
        world.start_all().await;
        world.leader().await;
        world
    }

    pub fn timing(&self) -> Timing {
        self.config.timing
    }

    fn env(&self, id: u64, tasks: Tasks) -> Env {
        Env {
            clock: Arc::new(SystemClock),
            transport: Arc::new(self.cuts.over(id, self.transport.clone())),
            disk: self.hosts[&id].files.clone(),
            seeds: Seeds::from_seed(id),
            tasks,
        }
    }

    pub async fn start_all(&mut self) {
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.start(id).await;
        }
    }

    pub async fn start(&mut self, id: u64) {
        self.try_start(id).await.expect("replica starts");
    }

    pub async fn try_start(&mut self, id: u64) -> Result<(), StartError> {
        let tasks = Tasks::new();
        let config = ReplicaConfig { id, ..self.config.clone() };
        let log = self.hosts[&id].log.open();
        let replica = Replica::start_on(config, self.env(id, tasks.clone()), log).await?;
        let listener = self.transport.listen(&address(id)).await.expect("address is free");
        serve(&tasks, listener, Dispatch::new().with(replica.service()), profile());
        let host = self.hosts.get_mut(&id).expect("host exists");
        host.running = Some(Running { replica, tasks });
        Ok(())
    }

    /// Pulls the plug: what was not fsynced is gone.
    pub async fn crash(&mut self, id: u64) {
        let host = self.hosts.get_mut(&id).expect("host exists");
        host.log.crash();
        host.files.crash();
        let Running { replica, tasks } = host.running.take().expect("host runs");
        tasks.abort();
        replica.shutdown().await;
        let _aborted = tasks.drain(Duration::from_secs(5)).await;
    }

    /// Pulls the plug and puts in new disks.
    pub async fn lose_disk(&mut self, id: u64) {
        self.crash(id).await;
        let host = self.hosts.get_mut(&id).expect("host exists");
        host.log = MemoryDisk::default();
        host.files = Arc::new(MemDisk::new());
    }

    pub fn replica(&self, id: u64) -> &Replica<Items> {
        &self.hosts[&id].running.as_ref().expect("host runs").replica
    }

    fn running(&self) -> impl Iterator<Item = (u64, &Replica<Items>)> {
        self.hosts.iter().filter_map(|(id, host)| Some((*id, &host.running.as_ref()?.replica)))
    }

    pub fn is_running(&self, id: u64) -> bool {
        self.hosts[&id].running.is_some()
    }

    /// The leader of the highest term, of those that are not cut off.
    pub fn leader_now(&self) -> Option<(u64, MasteryToken)> {
        let reachable = self.running().filter(|(id, _)| !self.cuts.isolates(*id));
        reachable
            .filter_map(|(id, replica)| match *replica.mastery().borrow() {
                Mastery::Leader { token } => Some((id, token)),
                Mastery::Follower { .. } | Mastery::Dead { .. } => None,
            })
            .max_by_key(|(_, token)| *token)
    }

    pub async fn leader(&self) -> (u64, MasteryToken) {
        self.until("a leader", |world| world.leader_now().is_some()).await;
        self.leader_now().expect("just seen")
    }

    /// A follower of the current leader.
    pub async fn follower(&self) -> u64 {
        let (leader, _) = self.leader().await;
        self.running().map(|(id, _)| id).find(|id| *id != leader).expect("a cell of several")
    }

    /// Waits in simulated time until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            let states: Vec<_> = self
                .running()
                .map(|(_, replica)| (replica.status(), replica.mastery().borrow().clone()))
                .collect();
            panic!("no {what} within {PATIENCE:?}: {states:#?}");
        }
    }

    /// Proposes `item` until some leader has it applied.
    pub async fn put(&self, item: &str) -> usize {
        loop {
            let (leader, token) = self.leader().await;
            let entry = Bytes::copy_from_slice(item.as_bytes());
            match self.replica(leader).propose(token, entry).await {
                Ok(outcomes) => return outcomes[0],
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub fn items(&self, id: u64) -> Vec<String> {
        self.replica(id).read(|items, _| items.texts())
    }

    /// Waits until every running replica has exactly these items.
    pub async fn until_all_have(&self, items: &[String]) {
        self.until("agreement", |world| {
            world.running().all(|(_, replica)| replica.read(|now, _| now.texts() == items))
        })
        .await;
    }

    /// A link to replica `to`, as from replica `from`.
    pub fn link(&self, from: u64, to: u64) -> Arc<Link> {
        let peers = Peers::new("a", from, &self.config.peers, &self.env(from, Tasks::new()));
        peers.get(to).expect("another replica").control.clone()
    }
}

pub fn address(id: u64) -> String {
    format!("replica-{id}:1")
}

/// `item-0`, `item-1` and so on.
pub fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("item-{number}")).collect()
}
