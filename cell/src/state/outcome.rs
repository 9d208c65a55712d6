//! What came of a command. Kept for P-ONCE, so it holds nothing that is large.

use std::time::Duration;

use hasp_proto::crossing::{Need, SealTicket};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Epoch, Generation};
use hasp_proto::name::Name;
use hasp_proto::node::Stat;
use hasp_proto::position::Position;

/// What came of one command, and at which position.
///
/// The position is the command's own: its epoch, and its index. Of a write that was asked again and is
/// not done again it is that of the write which took effect, as the outcome is (P-ONCE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedOutcome {
    /// Where in the cell's history it came about.
    pub position: Position,
    /// What came of the command.
    pub outcome: Outcome,
}

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done: the entry was proposed under another mastership, or too early (`fail-1`).
    Rejected(Rejection),
    /// The mastership of this number has begun.
    EpochBegun(Epoch),
    /// The session is in the state.
    SessionCreated {
        /// It was before.
        existed: bool,
    },
    /// The session is not in the state any more, if it ever was.
    SessionEnded {
        /// Names of the nodes of which it held the lock, in order, each once: free now, or delayed.
        unlocked: Vec<Name>,
    },
    /// The client holds nothing any more. Of `EndClient` and `OrphanEnd`.
    ClientEnded {
        /// Names of the nodes of which it held the lock, in order, each once: free now, or delayed.
        unlocked: Vec<Name>,
    },
    /// The node is there.
    Created {
        /// This command made it.
        created: bool,
        /// The node then, which need not be of the kind that was asked for unless it had to be created.
        stat: Box<Stat>,
    },
    /// The contents were replaced.
    Written {
        /// The new generation.
        content_generation: Generation,
        /// Of the contents replaced.
        previous_generation: Generation,
    },
    /// The node is gone, and with it whatever locks were held on it.
    Deleted,
    /// The lock is held.
    Acquired {
        /// Of this acquisition.
        lock_generation: Generation,
        /// The lock was free before.
        is_first: bool,
    },
    /// The ACL names were replaced.
    AclSet {
        /// The new generation.
        acl_generation: Generation,
    },
    /// Of [`Command::Reap`](super::Command::Reap).
    Reaped {
        /// Whether it went; not if it was opened, filled or deleted since.
        deleted: bool,
    },
    /// The state's checksum before the command was noted.
    ChecksumTaken {
        /// The command's index.
        index: u64,
        /// The checksum.
        checksum: u64,
    },
    /// This replica's state is not the master's: it must stop (P-STOP).
    Diverged {
        /// Where the two were compared.
        index: u64,
        /// This replica's checksum there.
        ours: u64,
        /// The master's.
        theirs: u64,
    },
    /// Others hold the lock in a mode that conflicts: the master queues the request and proposes it again.
    LockHeld,
    /// A lock-delay bars the lock: the master queues the request and proposes it again.
    LockDelayed {
        /// The longest of the lock-delays in the way, in full: when it began only the master's clock knows.
        longest: Duration,
    },
    /// Nothing was done, for want of this.
    Needs(Need),
    /// Nobody creates below the directory.
    Sealed(SealTicket),
    /// The lock is given back.
    Released,
    /// The handle holds nothing. Closing never fails.
    Closed,
    /// Taken note of. Of `Settle` and `EndLockDelay`, and of `OrphanEnd` when the client was claimed since.
    Noted,
    /// Refused, with what the client is told.
    Failed(Error),
}

/// Why a command was not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The entry's epoch is not the cell's (`fail-1`).
    WrongEpoch {
        /// The cell's epoch when it was applied.
        current: Epoch,
    },
    /// The cell does not know yet what it is: its first command must be a `MasterEpoch` with a genesis.
    NoGenesis,
}

impl Outcome {
    /// Short for a refusal.
    pub fn failed(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Failed(code.because(detail))
    }

    /// Whether asking again with the same number may bring another outcome. Such outcomes are not kept
    /// for P-ONCE; all others of a write are, the refusals too, since a compare-and-swap that is
    /// retried must hear its first answer.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::LockHeld | Self::LockDelayed { .. } | Self::Needs(_) => true,
            Self::Failed(error) => matches!(
                error.code,
                ErrorCode::SessionMoved
                    | ErrorCode::SessionExpired
                    // By the next map the node may be here.
                    | ErrorCode::WrongCell { .. }
                    | ErrorCode::Unavailable
                    | ErrorCode::RateLimited { .. }
            ),
            Self::EpochBegun(_)
            | Self::SessionCreated { .. }
            | Self::SessionEnded { .. }
            | Self::ClientEnded { .. }
            | Self::Created { .. }
            | Self::Written { .. }
            | Self::Deleted
            | Self::Acquired { .. }
            | Self::AclSet { .. }
            | Self::Reaped { .. }
            | Self::ChecksumTaken { .. }
            | Self::Diverged { .. }
            | Self::Sealed(_)
            | Self::Released
            | Self::Closed
            | Self::Noted => false,
        }
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
