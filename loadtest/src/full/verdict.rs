//! What came of a world.

use serde::{Deserialize, Serialize};

/// Figures of one world, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Simulated milliseconds.
    pub millis: u64,
    /// Hosts that were killed or lost their power.
    pub crashes: u64,
    /// Power losses that left a part of what was not synced.
    pub torn: u64,
    /// Replicas that were told to end.
    pub hand_overs: u64,
    /// Partitions, one-way partitions, held links.
    pub cuts: u64,
    /// Disks that became slow or full.
    pub disk_faults: u64,
    /// Replicas that went out of service because their disk was full.
    pub left_service: u64,
    /// Masterships.
    pub elections: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Those of them that were guarded by a sequencer.
    pub guarded: u64,
    /// Reads answered.
    pub reads: u64,
    /// Those of them that the library answered from its cache.
    pub cached_reads: u64,
    /// Locks acquired.
    pub locks: u64,
    /// Those of them that somebody else had at that time.
    pub shared: u64,
    /// Events told of a file.
    pub events: u64,
    /// What an ACL guards was opened.
    pub let_in: u64,
    /// The same was refused.
    pub shut_out: u64,
    /// Nodes created and deleted.
    pub lives: u64,
    /// Those of them in directories whose nodes are in another cell.
    pub across: u64,
    /// Directories deleted whose children were in another cell.
    pub directories_across: u64,
    /// Requests that went through two layers of proxies.
    pub layered: u64,
    /// Directories read.
    pub listings: u64,
    /// Changes of the map by which names went from cell to cell.
    pub moves: u64,
    /// Those of them while something was wrong.
    pub moves_in_trouble: u64,
    /// Changes of the map that were taken back in time.
    pub moves_recalled: u64,
    /// Locks that were held on while they moved.
    pub locks_moved: u64,
    /// Sessions lost.
    pub sessions_lost: u64,
}

/// What came of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Of the world.
    pub seed: u64,
    /// Promises that were broken, and what else must not be, each in words.
    pub broken: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// Of the story: the same if it is the same.
    pub fingerprint: u64,
    /// The story, a line for each thing that happened.
    #[serde(skip)]
    pub story: Vec<String>,
}
