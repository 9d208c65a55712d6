//! What a cell's log says, as domain types: entries, and the commands in them.
//!
//! `codec` turns them into bytes and back. What a command does is decided by the parts of
//! [`State`](super::State), never here.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::crossing::{CrossOp, Evidence};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{EndCause, Use};
use hasp_proto::stream::Role;

use super::access::Who;

/// What a master proposes at once: applied in order, or rejected whole if its epoch is over (`fail-1`).
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// The mastership that proposes it. An entry with a [`Command::MasterEpoch`] carries the epoch it ends.
    pub epoch: Epoch,
    /// Applied in this order.
    pub commands: Vec<Command>,
}

/// One step of a cell's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A new mastership begins.
    MasterEpoch {
        /// Raft id of the new master.
        replica: u64,
        /// What the cell is; needed in the first of a cell, ignored in later ones.
        genesis: Option<Genesis>,
    },
    /// Somebody speaks to the master directly: an application, a proxy or a router.
    CreateSession(CreateSession),
    /// A session is over.
    EndSession {
        /// Whose.
        session: SessionId,
        /// Decides whether its locks are free at once.
        cause: EndCause,
    },
    /// A write of a session, or of a client behind a proxy's or router's session.
    ClientWrite(ClientWrite),
    /// A proxy or router says that its client is gone (`proxy-2`).
    EndClient {
        /// The client.
        session: SessionId,
        /// The session of the proxy or router.
        via: SessionId,
        /// Under which claim it speaks for the client.
        claim: Claim,
        /// Decides whether the client's locks are free at once.
        cause: EndCause,
    },
    /// These clients have their answers below these numbers: the cell may forget them.
    Settle(Vec<(SessionId, RequestNumber)>),
    /// A client behind a proxy or router speaks through this one from here on (`proxy-4`), known before or not.
    ClaimClient {
        /// The client.
        session: SessionId,
        /// The session of the proxy or router.
        via: SessionId,
        /// Under which claim; an outdated one changes nothing.
        claim: Claim,
    },
    /// A lock-delay has passed, by the master's clock (`time-4`).
    EndLockDelay {
        /// The node.
        name: Name,
        /// Of the node.
        instance: Instance,
        /// Index of the command that began it.
        began: u64,
    },
    /// The claim window of a client whose proxy is gone has passed, by the master's clock (`proxy-3`).
    OrphanEnd {
        /// The client.
        session: SessionId,
        /// Index of the command that orphaned it: if it was claimed since, this command does nothing.
        orphaned_at: u64,
    },
    /// Records of clients on which nothing has hung since this command have lingered long enough, by the master's
    /// clock (`proxy-1`, `time-4`).
    Forget {
        /// Index of the command.
        since: u64,
    },
    /// An ephemeral node that nobody has open goes, unless somebody has opened it since.
    Reap {
        /// The node.
        name: Name,
        /// Of the node.
        instance: Instance,
    },
    /// A router asks this for the sake of another cell (`route-3`, `route-4`).
    Cross(CrossOp),
    /// Leases up to this length may be granted from here on (`lease-5`).
    RaiseLeaseMax(Duration),
    /// Every replica notes the checksum of its state before this command.
    TakeChecksum,
    /// The master's note: a replica whose own note of that command differs has diverged (P-STOP).
    CompareChecksum {
        /// Index of the [`TakeChecksum`](Self::TakeChecksum).
        index: u64,
        /// The master's.
        checksum: u64,
    },
}

/// What a cell is, from its first entry on.
#[derive(Clone, Debug, PartialEq)]
pub struct Genesis {
    /// The cell's name.
    pub cell: CellName,
    /// Which names it owns.
    pub map: PartitionMap,
    /// Key of the check digits of its handles.
    pub handle_key: HandleKey,
}

/// The parameters of [`Command::CreateSession`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSession {
    /// Derived from the session's secret.
    pub session: SessionId,
    /// What its holder is.
    pub role: Role,
    /// As whom it is authenticated.
    pub principal: String,
    /// Where clients reach a proxy or router; empty for an application.
    pub advertise: String,
    /// The claim of its `Hello`: takes the client's locks over from the proxy it was behind, if it is
    /// newer (`proxy-4`).
    pub claim: Claim,
}

/// The parameters of [`Command::ClientWrite`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClientWrite {
    /// Whose write.
    pub session: SessionId,
    /// Session of the proxy or router that speaks for it; `None` if it speaks for itself.
    pub via: Option<SessionId>,
    /// Which of the client's connections speaks; the newest wins (`proxy-4`).
    pub claim: Claim,
    /// The client's own number of the request: done at most once (P-ONCE).
    pub number: RequestNumber,
    /// Answers below this have arrived and are forgotten.
    pub settled_below: RequestNumber,
    /// As whom the client is authenticated.
    pub principal: String,
    /// An acquisition that must stand, else it fails with `SequencerInvalid`.
    pub guard: Option<Guard>,
    /// What other cells say of it.
    pub evidence: Option<Box<Evidence>>,
    /// What to do.
    pub write: Write,
}

impl Command {
    /// The write of a client that it is, if it is one.
    pub const fn as_client_write(&mut self) -> Option<&mut ClientWrite> {
        match self {
            Self::ClientWrite(write) => Some(write),
            _ => None,
        }
    }
}

impl ClientWrite {
    /// Who writes.
    pub fn who(&self) -> Who<'_> {
        Who { principal: &self.principal, evidence: self.evidence.as_deref() }
    }
}

/// What a sequencer says of its acquisition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Of the node.
    pub name: Name,
    /// Of the node.
    pub instance: Instance,
    /// How it is held.
    pub mode: LockMode,
    /// Of the acquisition.
    pub lock_generation: Generation,
}

/// What a client can change.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Makes a node, or finds it there.
    Create(Create),
    /// Replaces a file's contents.
    SetContents {
        /// The handle.
        holder: Holder,
        /// All of it.
        contents: Bytes,
        /// Compare-and-swap.
        if_generation: Option<Generation>,
    },
    /// Deletes a node without children.
    Delete {
        /// The handle.
        holder: Holder,
    },
    /// Takes the node's lock.
    Acquire {
        /// The handle, which will hold it.
        holder: Holder,
        /// Alone, or together with others.
        mode: LockMode,
    },
    /// Gives the lock back.
    Release {
        /// The handle that holds it.
        holder: Holder,
    },
    /// Ends a handle; a lock it holds is free at once.
    CloseHandle {
        /// The handle.
        holder: Holder,
    },
    /// Replaces the ACL names.
    SetAcl {
        /// The handle.
        holder: Holder,
        /// All three.
        acls: AclNames,
        /// Compare-and-swap on the ACL generation.
        if_generation: Option<Generation>,
    },
    /// Puts another handle on an ephemeral node on record: it stays as long as somebody has it open.
    OpenEphemeral {
        /// The handle to be.
        holder: Holder,
        /// For what.
        r#use: Use,
    },
}

impl Write {
    /// Of the node that it is about.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Create(create) => &create.name,
            Self::SetContents { holder, .. }
            | Self::Delete { holder }
            | Self::Acquire { holder, .. }
            | Self::Release { holder }
            | Self::CloseHandle { holder }
            | Self::SetAcl { holder, .. }
            | Self::OpenEphemeral { holder, .. } => &holder.name,
        }
    }
}

/// A handle whose check digits the master has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Of the node.
    pub name: Name,
    /// The node it is bound to.
    pub instance: Instance,
    /// Tells apart the handles of one client.
    pub opened_by: RequestNumber,
    /// For how long a lock it loses by failure stays barred; at most `LOCK_DELAY_MAX` counts.
    pub lock_delay: Duration,
}

/// The parameters of [`Write::Create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Of the new node.
    pub name: Name,
    /// `true`: fails if the node exists. `false`: finds it then.
    pub must: bool,
    /// File or directory.
    pub kind: NodeKind,
    /// Of a file; empty for a directory.
    pub contents: Bytes,
    /// Goes when its last handle does; the one that comes of this is its first.
    pub ephemeral: bool,
    /// Instead of the parent's.
    pub acls: Option<AclNames>,
    /// For what the handle is that comes of it.
    pub r#use: Use,
    /// A directory above, which must still be there.
    pub relative_to: Option<(Name, Instance)>,
}
