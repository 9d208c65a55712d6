//! What can go wrong with a replica, and who acts on it.

use std::io;
use std::path::PathBuf;

use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};

use super::identity::{Identity, IdentityError};
use super::log::OpenLogError;
use super::snapshot::SnapshotError;
use super::types::Types;

/// A replica could not start. An operator acts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The data directory is another replica's, or unreadable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The directory holds a log but not the file that says whose it is.
    #[error("{} holds a log but nothing says whose: move it away, and {identity} is rebuilt", dir.display())]
    Nameless {
        /// The directory.
        dir: PathBuf,
        /// Who wanted to use it.
        identity: Identity,
    },
    /// The log is damaged or cannot be opened.
    #[error(transparent)]
    OpenLog(#[from] OpenLogError),
    /// The log cannot be read.
    #[error("read the log")]
    Log(#[source] io::Error),
    /// The snapshot is damaged.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// openraft refused what it found.
    #[error("start raft: {0}")]
    Raft(String),
}

/// An entry was not applied, or nobody knows whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not applied: the token's mastery has ended.
    #[error("not the leader any more")]
    NotLeader {
        /// Who leads, if that is known here.
        leader: Option<u64>,
    },
    /// Not applied: no quorum has been heard for a lease. Still the leader; the same entry may be proposed again.
    #[error("the leader's lease has run out")]
    LeaseExpired,
    /// Not applied: too many entries wait. Try again later.
    #[error("too many entries wait")]
    Overloaded,
    /// Not applied: the entry is longer than [`super::ENTRY_BYTES_MAX`].
    #[error("entry of {bytes} bytes is too large")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Maybe applied, now or later: the leader changed, or openraft stopped, before the result was known.
    #[error("leadership ended before the result was known")]
    Unknown,
    /// Not applied: the replica is out of service.
    #[error("out of service: {reason}")]
    Dead {
        /// Why.
        reason: String,
    },
}

impl From<ClientWriteError<Types>> for ProposeError {
    fn from(error: ClientWriteError<Types>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(ForwardToLeader {
                reason: ForwardReason::LeaseExpired,
                ..
            }) => Self::LeaseExpired,
            ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }) => {
                Self::NotLeader { leader: leader_id }
            }
            ClientWriteError::LogEntryDiscarded(_) => Self::Unknown,
            // Only changes of membership return these; an entry's fate would be unknown.
            ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
                Self::Unknown
            }
        }
    }
}

/// A hand-over did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// There is nothing to hand over.
    #[error("not the leader")]
    NotLeader,
    /// There is nobody to hand over to.
    #[error("the cell has no other voter")]
    NoFollower,
    /// None of the followers took over in time. Somebody is elected as after a crash.
    #[error("none of the replicas {asked:?} took over in time")]
    NotTaken {
        /// Who should have, in the order they were asked.
        asked: Vec<u64>,
    },
    /// The replica is out of service.
    #[error("out of service: {reason}")]
    Dead {
        /// Why.
        reason: String,
    },
}
