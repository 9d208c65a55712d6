//! What the Raft layer costs: three replicas on real files and sockets in one process, 256-byte writes, some of them
//! to an entry as the master batches them.
//!
//! `cargo run --release -p hasp-cell --example replica_speed -- SECONDS` with how long each row runs;
//! replicas and proposer share the machine's cores.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures real time, and ends where it fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hasp_cell::replica::{Machine, MachineError, Mastery, MasteryToken, Replica, ReplicaConfig, profile};
use hasp_rt::clock::SystemClock;
use hasp_rt::disk::FileDisk;
use hasp_rt::env::Env;
use hasp_rt::rng::Seeds;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::TcpTransport;

const WRITE_BYTES: usize = 256;

#[derive(Clone, Default)]
struct Counter(u64);

impl Machine for Counter {
    type Outcome = u64;

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<u64>, MachineError> {
        self.0 += (entry.len() / WRITE_BYTES) as u64;
        Ok(vec![self.0])
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(&self.0.to_le_bytes())]
    }

    fn from_snapshot(mut records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        let number =
            records.next().and_then(|record| record.as_ref().try_into().ok()).map(u64::from_le_bytes);
        number.map(Self).ok_or_else(|| MachineError("not a counter".to_owned()))
    }
}

async fn cell(dir: &std::path::Path, tasks: &Tasks) -> Vec<Replica<Counter>> {
    let env = Env {
        clock: Arc::new(SystemClock),
        transport: Arc::new(TcpTransport::new()),
        disk: Arc::new(FileDisk),
        seeds: Seeds::from_os().unwrap(),
        tasks: tasks.clone(),
    };
    let mut peers = BTreeMap::new();
    let mut listeners = Vec::new();
    for id in 1..=3 {
        let listener = env.transport.listen("127.0.0.1:0").await.unwrap();
        peers.insert(id, listener.local_address());
        listeners.push(listener);
    }
    let mut replicas = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let config = ReplicaConfig::new("a", id, peers.clone(), dir.join(id.to_string()));
        let replica = Replica::start(config, env.clone()).await.unwrap();
        serve(tasks, listener, Dispatch::new().with(replica.service()), profile());
        replicas.push(replica);
    }
    replicas
}

async fn leader(replicas: &[Replica<Counter>]) -> (&Replica<Counter>, MasteryToken) {
    let led = replicas.iter().map(|replica| {
        Box::pin(async move {
            let mut mastery = replica.mastery();
            let led = mastery.wait_for(|mastery| matches!(mastery, Mastery::Leader { .. })).await.unwrap();
            let Mastery::Leader { token } = *led else { unreachable!() };
            (replica, token)
        })
    });
    tokio::time::timeout(Duration::from_secs(20), futures_util::future::select_all(led)).await.unwrap().0
}

/// CPU time of this process so far, in user and kernel mode: fields 14 and 15, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Proposes entries of `batch` writes for `length`, `window` of them under way, and prints what came of it.
async fn measure(
    replica: &Replica<Counter>,
    token: MasteryToken,
    batch: usize,
    window: usize,
    length: Duration,
) {
    let entry = Bytes::from(vec![b'x'; batch * WRITE_BYTES]);
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut under_way = std::collections::VecDeque::new();
    let mut latencies = Vec::new();
    let mut writes = 0;
    while began.elapsed() < length {
        while under_way.len() < window {
            under_way.push_back((Instant::now(), replica.propose(token, entry.clone())));
        }
        let (sent, proposal) = under_way.pop_front().unwrap();
        proposal.await.unwrap();
        latencies.push(sent.elapsed());
        writes += batch as u64;
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), (cpu() - cpu_before).as_secs_f64());
    for (_, proposal) in under_way {
        proposal.await.unwrap();
    }
    latencies.sort();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    println!(
        "{batch:>4} writes an entry, {window:>4} entries under way: {:>8.0} writes/s {:>6.0} entries/s \
         {:>6.1} us CPU a write over 3 replicas, median {:?}, 99% {:?}",
        writes as f64 / elapsed,
        latencies.len() as f64 / elapsed,
        cpu * 1e6 / writes as f64,
        at(50),
        at(99),
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let length = Duration::from_secs_f64(seconds);
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let replicas = cell(dir.path(), &tasks).await;
    let (leader, token) = leader(&replicas).await;

    for (batch, window) in [(1, 1), (1, 64), (1, 512), (8, 64), (32, 16), (128, 8)] {
        measure(leader, token, batch, window, length).await;
    }

    for replica in replicas {
        replica.shutdown().await;
    }
}
