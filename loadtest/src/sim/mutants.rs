//! Mistakes that a world can make on purpose, at the seams between the machines, to show that they would be seen.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// An invalidation is acknowledged for a client that hears of it much later (`cache-1`).
    AcknowledgedUnheard,
    /// An invalidation is acknowledged and never delivered (`cache-4`).
    InvalidationLost,
    /// A client counts its leases from when the grant came (`time-2`).
    LeaseFromReceipt,
    /// The log says that an entry was applied before a majority has it (P-DUR).
    AppliedEarly,
    /// Votes go to replicas that lack what was committed (P-DUR).
    TailLost,
    /// A master extends its lease though no majority answers (`lease-5`).
    MasterLeaseUnearned,
    /// A write that is asked again has another number (P-ONCE).
    RetriedAnew,
    /// Masters' clocks run far beyond the clock-rate bound (`time-2`).
    FastMasterClock,
    /// The fail-over is acknowledged for clients that never hear of it (`fail-2`).
    FailOverUnheard,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AcknowledgedUnheard,
        Self::InvalidationLost,
        Self::LeaseFromReceipt,
        Self::AppliedEarly,
        Self::TailLost,
        Self::MasterLeaseUnearned,
        Self::RetriedAnew,
        Self::FastMasterClock,
        Self::FailOverUnheard,
    ];
}
