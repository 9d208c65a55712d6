//! Why a request with a sequencer, or without one, is not let through.

use http::StatusCode;

use hasp_proto::id::Generation;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::sequencer::NotASequencer;

use crate::error::CallError;

/// Why a [`Fence`](super::Fence) refuses. [`may_retry`](Self::may_retry) tells who acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// The request shows no sequencer. The caller must hold the lock and show its sequencer.
    #[error("no sequencer is shown")]
    Missing,
    /// What is shown is no sequencer. The caller is wrong.
    #[error("{0}")]
    Malformed(#[from] NotASequencer),
    /// It is of a lock that does not guard this service. The caller is wrong.
    #[error("a sequencer of {shown}, which guards nothing here")]
    WrongLock {
        /// The lock it is of.
        shown: Name,
    },
    /// The lock is not held in the mode that is asked for. The caller is wrong.
    #[error("a sequencer of a {} lock", mode(.shown))]
    WrongMode {
        /// How it is held.
        shown: LockMode,
    },
    /// The lock has been acquired since: the caller must stop, or acquire it anew.
    #[error("outdated: {name} is held in generation {newest} by now, this is of {shown}")]
    Outdated {
        /// The lock.
        name: Name,
        /// Generation of the sequencer shown.
        shown: Generation,
        /// The newest generation seen.
        newest: Generation,
    },
    /// It cannot be true if what was seen before is: one of the two is forged.
    #[error("generation {shown} of {name} contradicts generation {newest}, seen before")]
    Contradictory {
        /// The lock.
        name: Name,
        /// Generation of the sequencer shown.
        shown: Generation,
        /// The newest generation seen.
        newest: Generation,
    },
    /// The cell says that the acquisition does not stand: the caller must stop, or acquire the lock anew.
    #[error("{0}")]
    Invalid(CallError),
    /// Whether it is outdated cannot be told without asking the cell, which this fence does not do, or
    /// not in this call.
    #[error("whether generation {shown} of {name} is outdated cannot be told without asking its cell")]
    Undecided {
        /// The lock.
        name: Name,
        /// Generation of the sequencer shown.
        shown: Generation,
    },
    /// The cell did not say whether the acquisition stands. The caller may try again.
    #[error("not checked: {0}")]
    Unanswered(CallError),
    /// Requests of an earlier holder have not ended in time. The caller may try again.
    #[error("requests of an earlier holder of {name} go on")]
    Busy {
        /// The lock.
        name: Name,
    },
    /// Too many locks are being asked about or worked under at once. The caller may try again.
    #[error("sequencers of too many locks at once")]
    Full,
}

impl FenceError {
    /// Whether the same request may succeed later. If not, who sent it must not go on as the lock's holder.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::Unanswered(_) | Self::Busy { .. } | Self::Full => true,
            Self::Missing
            | Self::Malformed(_)
            | Self::WrongLock { .. }
            | Self::WrongMode { .. }
            | Self::Outdated { .. }
            | Self::Contradictory { .. }
            | Self::Invalid(_)
            | Self::Undecided { .. } => false,
        }
    }

    /// The status of an HTTP response that says so: 400 for what is not shown or is no sequencer, 403 for one
    /// of another lock or mode, 412 for one that does not stand, 503 for what may be tried again.
    pub const fn http_status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::WrongLock { .. } | Self::WrongMode { .. } => StatusCode::FORBIDDEN,
            Self::Outdated { .. }
            | Self::Contradictory { .. }
            | Self::Invalid(_)
            | Self::Undecided { .. } => StatusCode::PRECONDITION_FAILED,
            Self::Unanswered(_) | Self::Busy { .. } | Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

const fn mode(mode: &LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Exclusive => "exclusive",
    }
}
