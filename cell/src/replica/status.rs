//! Where a replica stands, in plain numbers.

use std::collections::BTreeMap;

use super::gate::Standing;
use super::types::{LogId, Metrics};

/// A position in the log: term and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The leader's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

impl From<LogId> for Position {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

/// One replica as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The replica.
    pub id: u64,
    /// The term it is in.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// What it is to its cell.
    pub standing: Standing,
    /// Index of its last log entry.
    pub last_log: Option<u64>,
    /// What a quorum is known to hold.
    pub committed: Option<Position>,
    /// What its machine has applied.
    pub applied: Option<Position>,
    /// What its last snapshot holds.
    pub snapshot: Option<Position>,
    /// Up to where its log is gone.
    pub purged: Option<Position>,
    /// Id to address of every replica in the cell.
    pub members: BTreeMap<u64, String>,
    /// How far each follower is known to be; empty unless this replica leads.
    pub followers: BTreeMap<u64, Option<Position>>,
}

impl ReplicaStatus {
    pub(super) fn new(metrics: &Metrics, applied: Option<LogId>, standing: Standing) -> Self {
        let members = metrics.membership_config.nodes();
        let followers = metrics.replication.iter().flatten();
        Self {
            id: metrics.id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            standing,
            last_log: metrics.last_log_index,
            committed: metrics.cluster_committed.map(Position::from),
            applied: applied.map(Position::from),
            snapshot: metrics.snapshot.map(Position::from),
            purged: metrics.purged.map(Position::from),
            members: members.map(|(id, node)| (*id, node.addr.clone())).collect(),
            followers: followers.map(|(id, at)| (*id, (*at).map(Position::from))).collect(),
        }
    }
}
