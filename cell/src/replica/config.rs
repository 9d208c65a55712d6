//! What a replica is told when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of one replica.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// The cell's name.
    pub cell: String,
    /// This replica's id; a key of `peers`.
    pub id: u64,
    /// All replicas of the cell, this one included: id to `host:port`.
    pub peers: BTreeMap<u64, String>,
    /// The data directory.
    pub dir: PathBuf,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Entries applied since the last snapshot after which the next one is taken.
    pub snapshot_after: u64,
    /// Entries kept in the log below the last snapshot, for followers that lag a little.
    pub keep_after_snapshot: u64,
}

impl ReplicaConfig {
    /// A configuration with the default timing and snapshots every 20,000 entries.
    pub fn new(cell: &str, id: u64, peers: BTreeMap<u64, String>, dir: PathBuf) -> Self {
        Self {
            cell: cell.to_owned(),
            id,
            peers,
            dir,
            timing: Timing::default(),
            snapshot_after: 20_000,
            keep_after_snapshot: 2_000,
        }
    }

    pub(super) fn raft(&self) -> openraft::Config {
        let Timing { heartbeat, election_min, election_max } = self.timing;
        openraft::Config {
            cluster_name: self.cell.clone(),
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(election_min),
            election_timeout_max: millis(election_max),
            // A leader that restarts within its term must not go on as if nothing happened: what it had appended but
            // not fsynced is gone, its followers may have it, and it would hand the same indices out again.
            // `tests/write_loss.rs` fails with any other value.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            // An old leader that reaches only some followers stops holding them back.
            quorum_loss_probe_interval: Some(millis(election_max) * 2),
            // Votes are held after a start; `Replica` switches elections on.
            enable_elect: false,
            // Batches are cut by bytes in the log; the count is only an upper bound.
            max_payload_entries: 1024,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.keep_after_snapshot,
            replication_lag_threshold: self.snapshot_after.saturating_mul(2),
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            ..openraft::Config::default()
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How often the leader is heard, and how long the others wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats of the leader.
    pub heartbeat: Duration,
    /// A follower waits at least this long before it stands for election.
    pub election_min: Duration,
    /// It waits at most this long. Also the leader's lease, and with a tenth on top the hold on votes after a start.
    pub election_max: Duration,
}

impl Timing {
    /// How long votes are held after a start: the lease and a margin for clocks of different rates.
    pub fn vote_hold(&self) -> Duration {
        self.election_max + self.election_max / 10
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1_000),
        }
    }
}
