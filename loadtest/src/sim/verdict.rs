//! What came of a world.

/// Figures of one world, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Replicas, proxies and clients that crashed.
    pub crashes: u64,
    /// Other faults: pauses, cuts, resets, hand-overs.
    pub other_faults: u64,
    /// Elections won.
    pub elections: u64,
    /// Calls answered.
    pub answers: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads answered from the client's own cache.
    pub cached_reads: u64,
    /// Locks acquired.
    pub locks: u64,
    /// Things that were compared with what they had to be.
    pub checks: u64,
}

impl Counts {
    /// Adds another's.
    pub const fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.crashes += other.crashes;
        self.other_faults += other.other_faults;
        self.elections += other.elections;
        self.answers += other.answers;
        self.writes += other.writes;
        self.cached_reads += other.cached_reads;
        self.locks += other.locks;
        self.checks += other.checks;
    }
}

/// What came of one world.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Of the world.
    pub seed: u64,
    /// Promises that were broken, each in words; empty if all were kept.
    pub broken: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// Of the story.
    pub fingerprint: u64,
    /// The story, if it was asked for.
    pub story: Vec<String>,
}
