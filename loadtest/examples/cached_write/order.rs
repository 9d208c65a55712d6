//! What a benchmark and its workers say to one another: lines of JSON.

use serde::{Deserialize, Serialize};

/// To a worker, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Hold so many sessions, an equal share with each of these hosts, and open this file in each.
    Hold { targets: Vec<String>, sessions: usize, per_connection: usize, file: String },
    /// A write of this generation has returned: nobody may believe in an older one any more. Then all
    /// read the file, and ask to cache it.
    Read { generation: u64 },
}

/// Of a worker, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// All sessions stand.
    Holding,
    /// All have read.
    Read(ReadAll),
}

/// What became of reading a file in all sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReadAll {
    /// Sessions that believed in something older than what was written.
    pub stale: usize,
    /// Reads that brought something older.
    pub stale_reads: usize,
    /// Sessions that may cache the file now.
    pub cached: usize,
    /// Sessions that are over.
    pub lost: usize,
    /// How long all reads together took, in milliseconds.
    pub took_ms: f64,
    /// The longest that any of them may use what it cached, by its own clock, in milliseconds.
    pub cache_lease_left_ms: f64,
    /// The first that went wrong, for people.
    pub failure: Option<String>,
}
