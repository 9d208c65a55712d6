//! What a relay counts for reports. Nothing is decided by it, so `Debug` shows none of it: who compares machines by
//! their text takes two that differ only here for the same.

use std::fmt;

use hasp_proto::client::NewsId;
use hasp_proto::time::Time;

/// Events since the start.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    /// Reads that could have been answered here and were not.
    pub(super) misses: u64,
    /// Items that cells took back.
    pub(super) invalidations: u64,
    /// In so many messages.
    pub(super) upstream_invalidations: u64,
    /// Names that had to make room for others.
    pub(super) evictions: u64,
    /// Sessions of clients that came from another host and were let in.
    pub(super) taken_over: u64,
    /// Those that were not, for good, or not for long.
    pub(super) expelled: u64,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

/// What a round of invalidations is for, and since when it goes on.
#[derive(Clone)]
pub(super) struct Round {
    /// What to acknowledge above when it is finished.
    pub(super) news: Option<NewsId>,
    pub(super) began: Time,
}

impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").field("news", &self.news).finish_non_exhaustive()
    }
}
