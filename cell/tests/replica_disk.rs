//! Replicas on real files and real sockets, in real time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::replica::{
    Machine, MachineError, Mastery, MasteryToken, ProposeError, Replica, ReplicaConfig, Timing, profile,
};
use hasp_rt::clock::SystemClock;
use hasp_rt::disk::FileDisk;
use hasp_rt::env::Env;
use hasp_rt::rng::Seeds;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::{Listener, TcpTransport, Transport as _};

/// Counts entries and remembers their length.
#[derive(Clone, Default)]
struct Counter {
    entries: u64,
    bytes: u64,
}

impl Machine for Counter {
    type Outcome = u64;

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<u64>, MachineError> {
        self.entries += 1;
        self.bytes += entry.len() as u64;
        Ok(vec![self.entries])
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        [self.entries, self.bytes].map(|number| Bytes::copy_from_slice(&number.to_le_bytes())).to_vec()
    }

    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        let numbers: Vec<u64> =
            records.filter_map(|record| Some(u64::from_le_bytes(record.as_ref().try_into().ok()?))).collect();
        match numbers[..] {
            [entries, bytes] => Ok(Self { entries, bytes }),
            _ => Err(MachineError("not a counter".to_owned())),
        }
    }
}

struct Host {
    replica: Replica<Counter>,
    tasks: Tasks,
}

impl Host {
    async fn stop(self) {
        self.replica.shutdown().await;
        self.tasks.drain(Duration::from_secs(5)).await.expect("everything stops");
    }
}

fn env(tasks: Tasks) -> Env {
    Env {
        clock: Arc::new(SystemClock),
        transport: Arc::new(TcpTransport::new()),
        disk: Arc::new(FileDisk),
        seeds: Seeds::from_os().expect("entropy"),
        tasks,
    }
}

async fn start(config: ReplicaConfig, listener: Box<dyn Listener>) -> Host {
    let tasks = Tasks::new();
    let replica = Replica::start(config, env(tasks.clone())).await.expect("replica starts");
    serve(&tasks, listener, Dispatch::new().with(replica.service()), profile());
    Host { replica, tasks }
}

/// Ports that are free, and their listeners.
async fn listeners(count: u64) -> (BTreeMap<u64, String>, Vec<Box<dyn Listener>>) {
    let mut addresses = BTreeMap::new();
    let mut listeners = Vec::new();
    for id in 1..=count {
        let listener = TcpTransport::new().listen("127.0.0.1:0").await.expect("a port is free");
        addresses.insert(id, listener.local_address());
        listeners.push(listener);
    }
    (addresses, listeners)
}

fn config(id: u64, peers: &BTreeMap<u64, String>, dir: &Path) -> ReplicaConfig {
    let timing = Timing {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
    };
    ReplicaConfig { timing, ..ReplicaConfig::new("a", id, peers.clone(), dir.join(id.to_string())) }
}

async fn leads(replica: &Replica<Counter>) -> MasteryToken {
    let mut mastery = replica.mastery();
    let led = mastery.wait_for(|mastery| matches!(mastery, Mastery::Leader { .. }));
    let led =
        tokio::time::timeout(Duration::from_secs(20), led).await.expect("a leader in time").expect("running");
    let Mastery::Leader { token } = *led else { unreachable!() };
    token
}

async fn any_leader(hosts: &[Host]) -> (usize, MasteryToken) {
    let candidates =
        hosts.iter().enumerate().map(|(at, host)| Box::pin(async move { (at, leads(&host.replica).await) }));
    futures_util::future::select_all(candidates).await.0
}

#[tokio::test]
async fn a_cell_on_real_files_comes_back_with_everything_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (peers, mut ports) = listeners(3).await;
    for round in 0..3_u64 {
        let mut hosts = Vec::new();
        for (id, port) in (1..).zip(ports) {
            hosts.push(start(config(id, &peers, dir.path()), port).await);
        }
        let (leader, token) = any_leader(&hosts).await;

        let found = hosts[leader].replica.read(|counter, _| counter.entries);
        assert_eq!(found, round * 500);
        let proposals = (0..500).map(|_| hosts[leader].replica.propose(token, Bytes::from(vec![0; 256])));
        for outcome in proposals.collect::<Vec<_>>() {
            outcome.await.unwrap();
        }

        for host in hosts {
            host.stop().await;
        }
        ports = Vec::new();
        for address in peers.values() {
            ports.push(TcpTransport::new().listen(address).await.expect("the port is ours again"));
        }
    }
}

const CHILD_DIR: &str = "HASP_TEST_FULL_DISK_DIR";

/// Runs itself again in a process that may write no file longer than 256 KiB, which is what a full disk looks like.
#[test]
fn a_full_disk_takes_the_replica_out_of_service() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(fill_the_disk(PathBuf::from(dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "a_full_disk_takes_the_replica_out_of_service";
    let script = r#"trap "" XFSZ; ulimit -f 512; exec "$0" --exact "$1" --nocapture"#;

    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();

    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

async fn fill_the_disk(dir: PathBuf) {
    let (peers, mut ports) = listeners(1).await;
    let host = start(config(1, &peers, &dir), ports.remove(0)).await;
    let token = leads(&host.replica).await;

    let mut acknowledged = 0;
    let refused = loop {
        match host.replica.propose(token, Bytes::from(vec![0; 10_000])).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 100, "the disk was never full");
    };

    assert!(matches!(refused, ProposeError::Unknown | ProposeError::Dead { .. }), "{refused}");
    let mut mastery = host.replica.mastery();
    let dead = mastery.wait_for(|mastery| matches!(mastery, Mastery::Dead { .. }));
    let dead = tokio::time::timeout(Duration::from_secs(10), dead)
        .await
        .expect("it notices")
        .expect("running")
        .clone();
    println!("{acknowledged} entries, then {dead:?}");
    assert_eq!(host.replica.lease_end(), None);
    host.stop().await;
}
