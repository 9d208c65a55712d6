//! Mistakes that a world can make on purpose, at the seams between the machines, to show that they would be seen.

use super::verdict::Verdict;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// An invalidation is acknowledged for a client that hears of it much later (`cache-1`).
    AcknowledgedUnheard,
    /// An invalidation is acknowledged and never delivered (`cache-4`).
    InvalidationLost,
    /// An invalidation leaves no floor behind, and what was read before it comes after it (`cache-3`).
    NoFloor,
    /// A client counts its leases from when the grant came (`time-2`).
    LeaseFromReceipt,
    /// Masters' clocks run far beyond the clock-rate bound (`time-2`).
    FastMasterClock,
    /// The log says that an entry was applied before a majority has it (P-DUR).
    AppliedEarly,
    /// A replica that crashes loses the last of what it said it has (P-DUR).
    AcknowledgedBeforeFsync,
    /// Votes go to replicas that lack what was committed (P-DUR).
    TailLost,
    /// A leader that crashes goes on in its term, without the last of what its followers have (`fail-4`).
    LeaderRestored,
    /// A replica that restarts elects another at once (`fail-4`).
    VotesNotHeld,
    /// A master extends its lease though no majority answers (`lease-5`).
    MasterLeaseUnearned,
    /// The fail-over is acknowledged for clients that never hear of it (`fail-2`).
    FailOverUnheard,
    /// A master that was deposed ends the sessions of its successor's clients (`fail-1`).
    EndedByOldMaster,
    /// A master that was deposed goes on writing, in the epoch of its successor (`fail-1`).
    EpochShared,
    /// A write that is asked again has another number (P-ONCE).
    RetriedAnew,
    /// A cell forgets what numbers it has given when its master changes (P-SEQ).
    GenerationReset,
    /// An event is told when its action is proposed (P-EVENT).
    EventBeforeAction,
    /// Events are acknowledged for clients that never hear of them (P-EVENT).
    EventUnheard,
    /// That an ACL file changes is acknowledged for those who never hear of it (P-ACL).
    AclPastRevocation,
    /// An invalidation is acknowledged for a proxy whose clients hear of it much later (`cache-4`).
    ProxyAcknowledgesEarly,
    /// A proxy takes its own leases for longer than they are, so that those below are not bound by them (`lease-1`).
    ProxyLeaseUnbound,
    /// Cells do not hear that a client has come to another proxy (`proxy-4`).
    ClaimNotSent,
    /// A proxy before others takes an invalidation for acknowledged by those, who hear of it much later (`cache-4`).
    UpperAcknowledgesEarly,
    /// A proxy behind another takes its cache lease for as long as its session lease, whatever is left of the other's
    /// own (`lease-1`).
    LowerLeaseUnbound,
    /// A proxy before others does not tell those of a fail-over (`fail-2`).
    FailOverKeptAbove,
    /// That a client has come to another proxy is noted by the one before it and goes no further (`proxy-4`).
    ClaimKeptAbove,
    /// A directory is taken to be sealed although the cell of its children was not asked (`route-4`).
    SealNotAsked,
    /// A seal is taken back although the cell of the directory goes by it still (`route-4`).
    UnsealNotVoided,
    /// What a directory was is said of it as if it were so still, though it is gone (`route-3`).
    RootFromMemory,
    /// Routers do not hear that an ACL is taken back, and vouch for what it was (`route-5`).
    AclEvidenceKept,
    /// What moves to another cell comes there without who holds which lock (`move-3`).
    MovedWithoutHolders,
    /// What moves to another cell comes there without the lock-delays that run (`move-3`).
    MovedWithoutDelays,
    /// The new cell of what has moved does not hear through whom those speak who have it (`move-4`).
    MoveNotClaimed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::AcknowledgedUnheard,
        Self::InvalidationLost,
        Self::NoFloor,
        Self::LeaseFromReceipt,
        Self::FastMasterClock,
        Self::AppliedEarly,
        Self::AcknowledgedBeforeFsync,
        Self::TailLost,
        Self::LeaderRestored,
        Self::VotesNotHeld,
        Self::MasterLeaseUnearned,
        Self::FailOverUnheard,
        Self::EndedByOldMaster,
        Self::EpochShared,
        Self::RetriedAnew,
        Self::GenerationReset,
        Self::EventBeforeAction,
        Self::EventUnheard,
        Self::AclPastRevocation,
        Self::ProxyAcknowledgesEarly,
        Self::ProxyLeaseUnbound,
        Self::ClaimNotSent,
        Self::UpperAcknowledgesEarly,
        Self::LowerLeaseUnbound,
        Self::FailOverKeptAbove,
        Self::ClaimKeptAbove,
        Self::SealNotAsked,
        Self::UnsealNotVoided,
        Self::RootFromMemory,
        Self::AclEvidenceKept,
        Self::MovedWithoutHolders,
        Self::MovedWithoutDelays,
        Self::MoveNotClaimed,
    ];

    /// The promise that it breaks, and that must be seen to be broken.
    pub const fn promise(self) -> &'static str {
        match self {
            Self::AcknowledgedUnheard
            | Self::InvalidationLost
            | Self::NoFloor
            | Self::FailOverUnheard
            | Self::EpochShared
            | Self::ProxyAcknowledgesEarly
            | Self::ProxyLeaseUnbound
            | Self::UpperAcknowledgesEarly
            | Self::LowerLeaseUnbound
            | Self::FailOverKeptAbove => "P-LIN",
            Self::LeaseFromReceipt
            | Self::FastMasterClock
            | Self::VotesNotHeld
            | Self::MasterLeaseUnearned
            | Self::EndedByOldMaster
            | Self::ClaimNotSent
            | Self::ClaimKeptAbove
            | Self::MoveNotClaimed => "P-LEASE",
            Self::MovedWithoutHolders => "P-LOCK",
            Self::MovedWithoutDelays => "P-DELAY",
            Self::AppliedEarly | Self::AcknowledgedBeforeFsync | Self::TailLost | Self::LeaderRestored => {
                "P-DUR"
            }
            Self::RetriedAnew => "P-ONCE",
            Self::GenerationReset => "P-SEQ",
            Self::EventBeforeAction | Self::EventUnheard => "P-EVENT",
            Self::AclPastRevocation | Self::AclEvidenceKept => "P-ACL",
            Self::SealNotAsked | Self::UnsealNotVoided | Self::RootFromMemory => "P-TREE",
        }
    }

    /// Whether there have to be proxies for it to show.
    pub const fn is_of_proxies(self) -> bool {
        matches!(
            self,
            Self::ProxyAcknowledgesEarly
                | Self::ProxyLeaseUnbound
                | Self::ClaimNotSent
                | Self::UpperAcknowledgesEarly
                | Self::LowerLeaseUnbound
                | Self::FailOverKeptAbove
                | Self::ClaimKeptAbove
                | Self::SealNotAsked
                | Self::UnsealNotVoided
                | Self::RootFromMemory
                | Self::AclEvidenceKept
                | Self::MovedWithoutHolders
                | Self::MovedWithoutDelays
                | Self::MoveNotClaimed
        )
    }

    /// Whether logs may lose what was committed: the world mends its records then instead of giving up.
    pub const fn loses_entries(self) -> bool {
        matches!(self, Self::TailLost | Self::AcknowledgedBeforeFsync | Self::LeaderRestored)
    }

    /// What shows that it was made: its promise is broken, and is not in the same world without it.
    pub fn seen_in(self, made: &Verdict, without: impl FnOnce() -> Verdict) -> Option<String> {
        let promise = format!("{}:", self.promise());
        let breaks = |verdict: &Verdict| verdict.broken.iter().find(|told| told.contains(&promise)).cloned();
        breaks(made).filter(|_| breaks(&without()).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::guard::guarded;
    use super::super::plan::{Plan, Setting};
    use super::super::random::Random;
    use super::super::verdict::Counts;
    use super::*;

    fn verdict(broken: &[&str]) -> Verdict {
        let broken = broken.iter().map(ToString::to_string).collect();
        Verdict { seed: 1, broken, counts: Counts::default(), fingerprint: 0, story: Vec::new() }
    }

    #[test]
    fn a_mistake_is_seen_only_by_its_promise_and_only_if_the_world_keeps_it_otherwise() {
        let mutant = Mutant::VotesNotHeld;
        let seen = |made: &[&str], without: &[&str]| mutant.seen_in(&verdict(made), || verdict(without));

        assert_eq!(seen(&["P-LIN: x", " 1.2 P-LEASE: y"], &["P-LIN: x"]).as_deref(), Some(" 1.2 P-LEASE: y"));
        assert_eq!(seen(&["P-LIN: x", "panic: y"], &[]), None, "another promise");
        assert_eq!(seen(&["P-LEASE: y"], &["P-LEASE: z"]), None, "broken anyway");
        assert_eq!(seen(&[], &[]), None);
    }

    #[test]
    fn the_worlds_of_a_mistake_are_the_same_without_it() {
        for mutant in Mutant::ALL {
            let draw = |setting| Plan::draw(&mut Random::new(7), setting);
            let (made, without) = (draw(Setting::for_mutant(mutant)), draw(Setting::without(mutant)));

            assert!(!made.faults.is_empty(), "{mutant:?} needs something to go wrong");
            assert_eq!(made.proxies > 0, mutant.is_of_proxies(), "{mutant:?}");
            assert_eq!(format!("{made:?}"), format!("{without:?}"));
        }
    }

    #[test]
    fn without_the_mistake_that_forgets_votes_leases_stand_and_with_it_they_do_not() {
        let mutant = Mutant::VotesNotHeld;
        let without = |seed| guarded(seed, Setting::without(mutant));
        let seen = |seed| mutant.seen_in(&guarded(seed, Setting::for_mutant(mutant)), || without(seed));

        assert!((1..=20).any(|seed| seen(seed).is_some()));
    }
}
