//! What can be left out of the protocol, at the seams between the machines, to show that it is needed.

use std::fmt;

/// Something that the protocol does and that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Omission {
    /// An invalidation's acknowledgement is not awaited (`cache-1`).
    InvalidationNotAwaited,
    /// Clocks differ by more than the bound that leases allow for (`time-2`).
    ClocksUnbounded,
    /// A client counts its leases from when they came, not from when it asked for them (`time-2`).
    LeaseFromReceipt,
    /// An invalidation leaves no floor behind (`cache-3`).
    FloorForgotten,
    /// A new master does not wait until its predecessor's sessions have dropped what they cached (`fail-2`).
    FailOverNotAwaited,
    /// A master believes in its lease though no quorum answers (`lease-5`).
    MasterLeaseUnearned,
    /// What an outdated master says of writes is done in its successor's epoch (`fail-1`).
    EpochShared,
    /// An outdated master ends the session of its successor's client (`fail-1`).
    EndedByOldMaster,
    /// A proxy goes on before its claim is in the log (`proxy-4`).
    ClaimNotAwaited,
    /// A write that is asked again has another number (P-ONCE).
    RetriedAnew,
    /// A seal is taken back though the cell of the node goes by it still (`route-4`).
    SealNotVoided,
    /// What was said of a directory before it went still counts (`route-3`).
    EvidenceNotVoided,
    /// A directory is sealed without a look at its children (`route-4`).
    ChildrenNotLookedFor,
    /// A directory with its children elsewhere is deleted without a seal (`route-4`).
    DeletedUnsealed,
    /// A destination serves what has come without the home cell's decision (`move-4`).
    MoveNotDecided,
    /// A source serves what it has exported until all is decided (`move-2`).
    NotPacked,
    /// A change is done before everything has come (`move-4`).
    ImportNotAwaited,
    /// A destination keeps what has come though the change was given up (`move-4`).
    ParcelNotDropped,
    /// The answers that were given at the source stay there (`move-3`).
    AnswersLeftBehind,
    /// The last stamp of the source stays there (`move-3`).
    StampLeftBehind,
    /// Who holds locks stays at the source (`move-3`).
    LocksLeftBehind,
    /// Whose session has ended before its locks came goes on holding them (`proxy-3`).
    OrphanKept,
    /// The keys of the source's handles stay there (`move-3`).
    KeysLeftBehind,
}

impl Omission {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::InvalidationNotAwaited,
        Self::ClocksUnbounded,
        Self::LeaseFromReceipt,
        Self::FloorForgotten,
        Self::FailOverNotAwaited,
        Self::MasterLeaseUnearned,
        Self::EpochShared,
        Self::EndedByOldMaster,
        Self::ClaimNotAwaited,
        Self::RetriedAnew,
        Self::SealNotVoided,
        Self::EvidenceNotVoided,
        Self::ChildrenNotLookedFor,
        Self::DeletedUnsealed,
        Self::MoveNotDecided,
        Self::NotPacked,
        Self::ImportNotAwaited,
        Self::ParcelNotDropped,
        Self::AnswersLeftBehind,
        Self::StampLeftBehind,
        Self::LocksLeftBehind,
        Self::OrphanKept,
        Self::KeysLeftBehind,
    ];

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidationNotAwaited => "invalidation-not-awaited",
            Self::ClocksUnbounded => "clocks-unbounded",
            Self::LeaseFromReceipt => "lease-from-receipt",
            Self::FloorForgotten => "floor-forgotten",
            Self::FailOverNotAwaited => "fail-over-not-awaited",
            Self::MasterLeaseUnearned => "master-lease-unearned",
            Self::EpochShared => "epoch-shared",
            Self::EndedByOldMaster => "ended-by-old-master",
            Self::ClaimNotAwaited => "claim-not-awaited",
            Self::RetriedAnew => "retried-anew",
            Self::SealNotVoided => "seal-not-voided",
            Self::EvidenceNotVoided => "evidence-not-voided",
            Self::ChildrenNotLookedFor => "children-not-looked-for",
            Self::DeletedUnsealed => "deleted-unsealed",
            Self::MoveNotDecided => "move-not-decided",
            Self::NotPacked => "not-packed",
            Self::ImportNotAwaited => "import-not-awaited",
            Self::ParcelNotDropped => "parcel-not-dropped",
            Self::AnswersLeftBehind => "answers-left-behind",
            Self::StampLeftBehind => "stamp-left-behind",
            Self::LocksLeftBehind => "locks-left-behind",
            Self::OrphanKept => "orphan-kept",
            Self::KeysLeftBehind => "keys-left-behind",
        }
    }

    /// Whether it is left out of [`Directories`](super::Directories).
    pub const fn is_of_directories(self) -> bool {
        matches!(
            self,
            Self::SealNotVoided
                | Self::EvidenceNotVoided
                | Self::ChildrenNotLookedFor
                | Self::DeletedUnsealed
        )
    }

    /// Whether it is left out of [`Moves`](super::Moves).
    pub const fn is_of_moves(self) -> bool {
        matches!(
            self,
            Self::MoveNotDecided
                | Self::NotPacked
                | Self::ImportNotAwaited
                | Self::ParcelNotDropped
                | Self::AnswersLeftBehind
                | Self::StampLeftBehind
                | Self::LocksLeftBehind
                | Self::OrphanKept
                | Self::KeysLeftBehind
        )
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|omission| omission.name() == name)
    }
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
