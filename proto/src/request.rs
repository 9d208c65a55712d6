//! Requests and answers as the machines see them (design §4.3).

use std::time::Duration;

use bytes::Bytes;

use crate::crossing::{Anchor, Chore, CrossOp, Evidence, Need, Root, SealTicket};
use crate::error::Error;
use crate::event::EventMask;
use crate::handle::HandleToken;
use crate::id::{CellName, Claim, Generation, RequestNumber, SessionId};
use crate::item::ItemKinds;
use crate::limits::LOCK_DELAY;
use crate::name::Name;
use crate::node::{AclNames, Child, LockMode, NodeKind, Stat};
use crate::position::Position;
use crate::sequencer::SequencerToken;
use crate::trace::TraceContext;

/// A request on a session stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// From 1, growing, never used again for another request of the session.
    pub number: RequestNumber,
    /// Every request below has been answered to its caller and will not be asked again.
    pub settled_below: RequestNumber,
    /// For whom a proxy or router asks; `None` for the session itself.
    pub on_behalf: Option<OnBehalf>,
    /// A sequencer that must stand when it is done, else it fails with `SequencerInvalid`.
    pub guard: Option<SequencerToken>,
    /// The session would keep what it reads, and give it up when told to.
    pub caches: bool,
    /// For those who follow it on its way.
    pub trace: Option<TraceContext>,
    /// What is asked.
    pub op: Op,
}

/// The client that a proxy or router asks for (`proxy-1`, `proxy-6`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBehalf {
    /// The client's session.
    pub session: SessionId,
    /// The client's own number of the request.
    pub number: RequestNumber,
    /// The client's own mark of what is settled.
    pub settled_below: RequestNumber,
    /// Which of the client's connections speaks; the newest wins.
    pub claim: Claim,
    /// As whom the client is authenticated.
    pub principal: String,
    /// The client may have seen elsewhere what has not reached the hosts above: only what the cell itself says to this
    /// request will do (P-MONO).
    pub is_mover: bool,
    /// What the cell needs to know of other cells for it.
    pub evidence: Option<Box<Evidence>>,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes a handle.
    Open(Open),
    /// Ends a handle: frees its lock at once, cancels its waiting `Acquire`.
    Close(HandleToken),
    /// Contents and metadata together.
    GetContentsAndStat(HandleToken),
    /// Metadata.
    GetStat(HandleToken),
    /// Names and metadata of all children, by name.
    ReadDir(HandleToken),
    /// Replaces the contents; with a generation only if that is current.
    SetContents {
        /// Of a file, opened for writing.
        handle: HandleToken,
        /// All of it.
        contents: Bytes,
        /// Compare-and-swap.
        if_generation: Option<Generation>,
    },
    /// Deletes the node, which must have no children.
    Delete(HandleToken),
    /// Waits, first come first served, until the lock is held.
    Acquire(HandleToken, LockMode),
    /// Takes the lock or fails.
    TryAcquire(HandleToken, LockMode),
    /// Frees the lock, without lock-delay.
    Release(HandleToken),
    /// Replaces the ACL names; with a generation only if that is current.
    SetAcl {
        /// Opened for changing ACLs.
        handle: HandleToken,
        /// All three.
        acls: AclNames,
        /// Compare-and-swap on the ACL generation.
        if_generation: Option<Generation>,
    },
    /// What the holder of the lock shows to other services.
    GetSequencer(HandleToken),
    /// Whether the acquisition still stands.
    CheckSequencer(SequencerToken),
    /// Shows a handle to a host that may not know it: its events are wanted from here on.
    Refresh(HandleToken),
    /// A proxy's or router's word that its client is gone.
    EndClient(EndCause),
    /// A proxy's or router's word that these clients have their answers.
    Settle(Vec<(SessionId, RequestNumber)>),
    /// A proxy's or router's word that the client speaks through it now (`proxy-4`).
    Claim,
    /// A proxy or router asks one cell for the sake of another.
    Cross(CrossOp),
}

impl Op {
    /// The call's name in reports and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Close(_) => "close",
            Self::GetContentsAndStat(_) => "get_contents_and_stat",
            Self::GetStat(_) => "get_stat",
            Self::ReadDir(_) => "read_dir",
            Self::SetContents { .. } => "set_contents",
            Self::Delete(_) => "delete",
            Self::Acquire(..) => "acquire",
            Self::TryAcquire(..) => "try_acquire",
            Self::Release(_) => "release",
            Self::SetAcl { .. } => "set_acl",
            Self::GetSequencer(_) => "get_sequencer",
            Self::CheckSequencer(_) => "check_sequencer",
            Self::Refresh(_) => "refresh",
            Self::EndClient(_) => "end_client",
            Self::Settle(_) => "settle",
            Self::Claim => "claim",
            Self::Cross(op) => op.name(),
        }
    }

    /// Whether only proxies and routers may ask it.
    pub fn is_tier_only(&self) -> bool {
        matches!(self, Self::EndClient(_) | Self::Settle(_) | Self::Claim | Self::Cross(_))
    }

    /// Whether it opens a name relative to the directory of that name.
    pub fn is_relative_to(&self, directory: &Name) -> bool {
        let Self::Open(Open { relative_to: Some(token), .. }) = self else { return false };
        token.claimed_body().is_some_and(|claimed| claimed.name == *directory)
    }

    /// The handle it works on, if it does.
    pub fn handle(&self) -> Option<&HandleToken> {
        match self {
            Self::Close(handle)
            | Self::GetContentsAndStat(handle)
            | Self::GetStat(handle)
            | Self::ReadDir(handle)
            | Self::SetContents { handle, .. }
            | Self::Delete(handle)
            | Self::Acquire(handle, _)
            | Self::TryAcquire(handle, _)
            | Self::Release(handle)
            | Self::SetAcl { handle, .. }
            | Self::GetSequencer(handle)
            | Self::Refresh(handle) => Some(handle),
            Self::Open(_)
            | Self::CheckSequencer(_)
            | Self::EndClient(_)
            | Self::Settle(_)
            | Self::Claim
            | Self::Cross(_) => None,
        }
    }

    /// Rough size on the wire, in bytes: what queues are bounded by.
    pub fn weight(&self) -> usize {
        let body = match self {
            Self::Open(open) => open.create.as_ref().map_or(0, |create| create.contents.len()),
            Self::SetContents { contents, .. } => contents.len(),
            Self::Settle(clients) => clients.len() * 32,
            Self::SetAcl { acls, .. } => acls.read.len() + acls.write.len() + acls.change.len(),
            Self::CheckSequencer(sequencer) => sequencer.as_bytes().len(),
            Self::Cross(CrossOp::Import { data, .. }) => data.len(),
            _ => 0,
        };
        let subject = match self {
            Self::Open(open) => open.name.as_str().len(),
            other => other.handle().map_or(0, |handle| handle.as_bytes().len()),
        };
        body + subject + 64
    }
}

/// The parameters of `Open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which node.
    pub name: Name,
    /// For what.
    pub r#use: Use,
    /// Whether to create it.
    pub create: Option<Create>,
    /// For how long the lock stays barred to others if it is lost with the session.
    pub lock_delay: Duration,
    /// A directory above the name, which must still be the one that was opened.
    pub relative_to: Option<HandleToken>,
    /// What the handle is to be told of the node.
    pub events: EventMask,
}

impl Open {
    /// Opens a node that exists, with the default lock-delay and without events.
    pub const fn existing(name: Name, r#use: Use) -> Self {
        Self { name, r#use, create: None, lock_delay: LOCK_DELAY, relative_to: None, events: EventMask::NONE }
    }
}

/// What a handle may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Read contents, metadata, children.
    Read,
    /// Besides: write, delete, lock.
    WriteAndLock,
    /// Besides: change the ACL names.
    ChangeAcl,
}

/// How `Open` creates a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// `true`: fails if the node exists. `false`: opens it then.
    pub must: bool,
    /// What to create.
    pub kind: NodeKind,
    /// Of a file.
    pub contents: Bytes,
    /// Goes when its last handle does.
    pub ephemeral: bool,
    /// Instead of the parent's.
    pub acls: Option<AclNames>,
}

/// How a session or client came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// By its own wish: locks are free at once.
    Closed,
    /// It failed or became unreachable: lock-delay applies (`lock-4`, `proxy-2`).
    Failed,
}

/// An answer on a session stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Of the request.
    pub number: RequestNumber,
    /// What the answer reflects; `None` if no cell was asked.
    pub position: Option<Position>,
    /// What the session that asked may cache of it, until it is told otherwise or its cache lease
    /// ends.
    pub caches: ItemKinds,
    /// What came of it.
    pub result: Result<Reply, Error>,
}

impl Answer {
    /// An answer that reflects no cell's state and may not be cached.
    pub const fn plain(number: RequestNumber, result: Result<Reply, Error>) -> Self {
        Self { number, position: None, caches: ItemKinds::NONE, result }
    }
}

/// What a request that succeeded brings back.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Of `Open`.
    Opened {
        /// The handle.
        handle: HandleToken,
        /// Whether this call created the node.
        created: bool,
        /// The node's metadata.
        stat: Stat,
    },
    /// Of `Close`.
    Closed,
    /// Of `GetContentsAndStat`.
    Contents {
        /// All of it.
        contents: Bytes,
        /// Metadata at the same point.
        stat: Stat,
    },
    /// Of `GetStat` and `Refresh`.
    Stat(Stat),
    /// Of `ReadDir`.
    Children {
        /// Sorted by component; without their lock generations, which are 0.
        children: Vec<Child>,
        /// Of the directory.
        acls: AclNames,
    },
    /// Of `SetContents`.
    Written {
        /// The new generation.
        content_generation: Generation,
        /// Of the contents replaced.
        previous_generation: Generation,
    },
    /// Of `Delete`.
    Deleted,
    /// Of `Acquire` and `TryAcquire`.
    Acquired {
        /// The lock generation of this acquisition.
        lock_generation: Generation,
    },
    /// Of `Release`.
    Released,
    /// Of `SetAcl`.
    AclSet {
        /// The new generation of the ACL names.
        acl_generation: Generation,
    },
    /// Of `GetSequencer`.
    Sequencer(SequencerToken),
    /// Of `CheckSequencer`: the acquisition stands.
    SequencerStands,
    /// Of `EndClient`, `Settle` and `Claim`.
    Noted,
    /// A relay has noted the claim for all cells but these, with which it has no session at the moment: what the client had
    /// there is lost.
    ClaimedWithout(Vec<CellName>),
    /// To a proxy or router: nothing was done, for want of this. Asked again with it, the request is decided.
    Needs(Need, Anchor),
    /// Of `DescribeRoot`.
    Root(Root),
    /// Of `Seal`.
    Sealed(SealTicket),
    /// Of `Vouch`.
    Anchored(Anchor),
    /// Of `Chores`.
    Chores(Vec<Chore>),
    /// Of `Export`.
    Parcel {
        /// For the other cell to understand.
        data: Bytes,
        /// How many parts there are.
        parts: u64,
    },
}

impl Reply {
    /// Rough size on the wire, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Contents { contents, .. } => contents.len() + 160,
            Self::Children { children, .. } => {
                children.iter().map(|c| c.component.len() + 128).sum::<usize>() + 64
            }
            Self::Opened { handle, .. } => handle.as_bytes().len() + 160,
            Self::Sequencer(sequencer) => sequencer.as_bytes().len() + 64,
            Self::Parcel { data, .. } => data.len() + 64,
            _ => 96,
        }
    }
}
