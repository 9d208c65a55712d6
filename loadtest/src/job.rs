//! What the load test and its worker processes say to one another: a line of JSON each.
//!
//! ```text
//! worker: reads Job -- Progress.. --> Ramped -- Begin --> load, Progress.. -- End --> Finished, exits
//! ```
//! A worker whose standard input ends stops at once: it never outlives who started it for long.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::check::Violations;
use crate::churn::{Churn, VisitsRecord};
use crate::measure::OpRecord;
use crate::tree::TreeSpec;
use crate::workload::Rates;

/// Where the clients of the first worker connect from; those of the next from the next.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The first line that a worker is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Which worker, from 0.
    pub worker: usize,
    /// Number of its first client among those of all workers.
    pub first_client: usize,
    /// How many clients.
    pub clients: usize,
    /// Addresses of hosts.
    pub targets: Vec<String>,
    /// The names they use.
    pub tree: TreeSpec,
    /// Operations per second and client.
    pub rates: Rates,
    /// Clients that come and go besides, if any.
    pub churn: Option<Churn>,
    /// Sessions to be opened per second, by this worker.
    pub ramp_per_s: f64,
    /// How many clients share a connection.
    pub sessions_per_connection: usize,
    /// Of the whole load test; the same in all workers.
    pub seed: u64,
}

impl Job {
    /// The address that this worker's clients connect from, if that matters: one of the loopback's own, 127.0.0.2 for the
    /// first worker, so that they do not all look for free ports of 127.0.0.1. `None` if a target is elsewhere or is no
    /// address of IPv4, and where only 127.0.0.1 is this machine (all but Linux).
    pub fn source(&self) -> Option<IpAddr> {
        let is_loopback =
            |target: &String| target.parse::<SocketAddrV4>().is_ok_and(|address| address.ip().is_loopback());
        if !cfg!(target_os = "linux") || !self.targets.iter().all(is_loopback) {
            return None;
        }
        let nth = u32::try_from(self.worker).ok()?;
        let source = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits().checked_add(nth)?);
        source.is_loopback().then_some(IpAddr::V4(source))
    }
}

/// A later line that a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start the load and the measurement.
    Begin,
    /// End the measurement, then the load, then all sessions.
    End,
}

/// A line that a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// From time to time.
    Progress(Progress),
    /// From time to time: latencies of the operations that were done since the last time, in pairs of microseconds and
    /// count.
    Recent(Vec<(u64, u64)>),
    /// All clients have their sessions and handles.
    Ramped(Ramped),
    /// The last line.
    Finished(Box<Finished>),
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Of its clients.
    pub sessions: Sessions,
    /// Clients that speak with a host, since the load began.
    pub connected: u64,
    /// Operations done since the load began.
    pub ops: u64,
    /// Operations failed since the load began.
    pub errors: u64,
    /// Checks failed.
    pub violations: u64,
}

/// How the clients' sessions fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Welcomed by a host.
    pub opened: u64,
    /// Over without being asked to end.
    pub lost: u64,
    /// How often one went into jeopardy.
    pub jeopardy: u64,
}

impl Sessions {
    /// Adds those of another process.
    pub fn add(&mut self, other: Sessions) {
        self.opened += other.opened;
        self.lost += other.lost;
        self.jeopardy += other.jeopardy;
    }
}

/// How the ramp went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramped {
    /// From the first attempt to the last session ready.
    pub seconds: f64,
    /// From each client's intended start until it had its session, in pairs of microseconds and count.
    pub latencies: Vec<(u64, u64)>,
}

/// All that a worker measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Of its clients, from their first attempt until just before they were ended.
    pub sessions: Sessions,
    /// Length of the measurement.
    pub seconds: f64,
    /// Sent by its clients within the measurement.
    pub keep_alives_sent: u64,
    /// Of the load's operations.
    pub ops: OpRecord,
    /// Of clients that came and went.
    pub visits: VisitsRecord,
    /// What the checks did.
    pub checks: Checks,
    /// What the checks found.
    pub violations: Violations,
    /// Writes under a lock that came after the lock had gone to another. No violation if some
    /// process has a write whose outcome it never learned.
    pub late_writes: Violations,
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// Answers compared with what had to be seen at least.
    pub reads: u64,
    /// Writes read back through another client.
    pub writes_read_back: u64,
    /// Exclusive acquisitions that made their entry undisturbed.
    pub exclusive_entries: u64,
    /// Writes of which it was never learned whether they took effect.
    pub unknown_writes: u64,
    /// Check steps that failed for want of an answer.
    pub errors: u64,
}

impl Checks {
    /// Adds those of another process.
    pub fn add(&mut self, other: Checks) {
        self.reads += other.reads;
        self.writes_read_back += other.writes_read_back;
        self.exclusive_entries += other.exclusive_entries;
        self.unknown_writes += other.unknown_writes;
        self.errors += other.errors;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn every_worker_has_a_source_of_its_own_if_all_targets_are_on_loopback() {
        let source = |worker, targets: &[&str]| {
            let job = Job {
                worker,
                first_client: 0,
                clients: 1,
                targets: targets.iter().map(|target| (*target).to_owned()).collect(),
                tree: TreeSpec::new(vec!["/ls/load".into()], 1),
                rates: Rates::paper(1),
                churn: None,
                ramp_per_s: 1.0,
                sessions_per_connection: 1,
                seed: 1,
            };
            job.source().map(|source| source.to_string())
        };

        assert_eq!(source(0, &["127.0.0.1:1", "127.0.0.9:2"]).as_deref(), Some("127.0.0.2"));
        assert_eq!(source(1, &["127.0.0.1:1"]).as_deref(), Some("127.0.0.3"));
        assert_eq!(source(254, &["127.0.0.1:1"]).as_deref(), Some("127.0.1.0"));
        assert_eq!(source(1 << 24, &["127.0.0.1:1"]), None, "the loopback has no more");
        for elsewhere in ["10.0.0.7:1", "[::1]:1", "localhost:1"] {
            assert_eq!(source(0, &["127.0.0.1:1", elsewhere]), None, "{elsewhere}");
        }
    }

    #[test]
    fn orders_and_words_are_lines_of_json() {
        assert_eq!(serde_json::to_string(&Order::Begin).expect("plain"), r#""begin""#);
        let said = Said::Progress(Progress { ops: 3, ..Progress::default() });

        let line = serde_json::to_string(&said).expect("plain");

        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Said>(&line).expect("the same"), said);
    }
}
