//! What one cell has to know of another before it can decide a request (`route-3` to `route-6`). Cells do not speak with
//! one another: one that lacks something answers a router or proxy with the [`Need`], and is asked again with the
//! [`Evidence`]. What the evidence is worth is the cell's decision.
//!
//! ```text
//! router:  asks -- Needs(need) --> looks it up in the other cell, or seals it there --> asks again, with evidence
//! ```

use std::time::Duration;

use bytes::Bytes;

use crate::event::EventMask;
use crate::id::{CellName, Epoch, Generation, Instance, RequestNumber};
use crate::name::Name;
use crate::node::AclNames;
use crate::partition::PartitionMap;
use crate::position::Position;
use crate::time::Time;

/// Names a seal: a stamp of the cell that made it, so later seals have greater ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealTicket(pub u64);

/// What a cell lacks to decide a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Whether the client is in the ACL of that name, whose file the home cell holds (`route-5`).
    Acl(String),
    /// What the directory of that name is now, whose node another cell holds (`route-3`).
    Root(Name),
    /// The directory is being deleted, or was: either the seal is undone at both cells, or its root record has to go
    /// (`route-4`).
    Unseal {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The seal.
        ticket: SealTicket,
    },
    /// That the directory has no child in the cell that holds its children, and gets none (`route-4`).
    Seal {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
    },
    /// What it is about is on its way to another cell: it is asked again by a map that is newer than this version
    /// (`move-2`).
    Map(u64),
}

/// A moment of a master's clock, to be handed back to that master: what is said to hold for some time from here on holds
/// for no longer by its clock, since it said this before it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Of the mastership; no other knows this clock.
    pub epoch: Epoch,
    /// By the master's clock.
    pub at: Time,
}

/// For how long a router's word on ACLs holds: as long as its cache lease at the home cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouch {
    /// Counted from here.
    pub anchor: Anchor,
    /// The clock-rate bound is taken off already.
    pub lasts: Duration,
}

/// What a directory is, according to the cell that holds its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Of the directory.
    pub name: Name,
    /// Of the directory.
    pub instance: Instance,
    /// Of the directory.
    pub acls: AclNames,
    /// Of the directory.
    pub acl_generation: Generation,
    /// Which cell says so, and as of when.
    pub as_of: Position,
}

/// Whether a client is in an ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Name of the ACL.
    pub acl: String,
    /// The file exists and lists the client's principal.
    pub is_member: bool,
}

/// What a router adds to a request because the cell needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Of ACLs in the home cell.
    pub memberships: Vec<Membership>,
    /// For how long those hold.
    pub vouch: Option<Vouch>,
    /// Of the directory that the node is in.
    pub root: Option<Root>,
    /// Of the directory that is to be deleted.
    pub seal: Option<SealTicket>,
}

/// Something left behind between two cells, which any router can finish or undo (`route-4`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// An ephemeral directory that nobody has open: it goes, unless it has children in the other cell.
    End {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
    },
    /// A seal that nobody has taken back: as for [`Need::Unseal`].
    Unseal {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The seal.
        ticket: SealTicket,
    },
    /// The directory's ACL names have changed, and the cell of its children may not know.
    Propagate {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
    },
    /// The map of that version has a change that is not done (`move-1`).
    Move(u64),
    /// Not every cell may know the map of that version (`move-4`).
    Announce(u64),
}

/// What routers and proxies ask of one cell for the sake of another.
#[derive(Clone, Debug, PartialEq)]
pub enum CrossOp {
    /// What the directory of that name is. Answered with [`Reply::Root`](crate::request::Reply::Root).
    DescribeRoot(Name),
    /// The contents of that ACL's file, whoever may read it.
    ReadAcl(String),
    /// Lets nobody create below the directory, if it has no child here.
    Seal {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
    },
    /// To the cell that holds the node: no seal below that number lets the directory be deleted any more.
    VoidSeals {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The first that may.
        below: SealTicket,
    },
    /// Takes a seal back that was voided before.
    Unseal {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The seal; another one stays.
        ticket: SealTicket,
    },
    /// The directory is gone.
    DropRoot {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// Which cell says so, and as of when.
        as_of: Position,
    },
    /// The directory's ACL names have changed.
    UpdateRoot(Root),
    /// The children of a directory whose node another cell holds, for a client that has it open.
    ListRoot {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
    },
    /// Tells a client that has the directory open of its children; without kinds, no longer. Its node is in another cell.
    WatchRoot {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The client's handle.
        opened_by: RequestNumber,
        /// Those of children count.
        events: EventMask,
    },
    /// To the cell that holds the node: an ephemeral directory that nobody has open goes, if that seal counts.
    ReapRoot {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// The seal.
        ticket: SealTicket,
    },
    /// To the cell that holds the node: the other knows these ACL names, or later ones.
    Propagated {
        /// The directory.
        name: Name,
        /// Of the directory.
        instance: Instance,
        /// Of its ACL names.
        acl_generation: Generation,
    },
    /// What was left behind between cells. Answered with [`Reply::Chores`](crate::request::Reply::Chores) once there is
    /// something.
    Chores,
    /// The partition map, whoever may read it.
    ReadMap,
    /// Goes by this map from here on, if it is newer than the cell's own (`move-1`, `move-4`).
    Adopt(PartitionMap),
    /// To a cell that something moves away from: it packs that up, and does nothing with it any more (`move-2`).
    Pack {
        /// Of the map in which the change is.
        version: u64,
    },
    /// A part of what was packed for that cell. Answered with [`Reply::Parcel`](crate::request::Reply::Parcel).
    Export {
        /// Of the map in which the change is.
        version: u64,
        /// For which cell.
        to: CellName,
        /// Counted from 0.
        part: u64,
    },
    /// A part of what another cell has packed for this one (`move-3`).
    Import {
        /// Of the map in which the change is.
        version: u64,
        /// By which cell.
        from: CellName,
        /// Counted from 0.
        part: u64,
        /// How many there are.
        parts: u64,
        /// As it was exported.
        data: Bytes,
    },
    /// To the home cell: every cell has what goes to it, so the change is done (`move-4`).
    Finish {
        /// Of the map in which the change is.
        version: u64,
    },
    /// To the home cell: the change cannot be done.
    GiveUp {
        /// Of the map in which the change is.
        version: u64,
        /// For people.
        why: String,
    },
    /// To the home cell: all others go by the map of that version.
    Announced {
        /// Of the map.
        version: u64,
    },
    /// What was said of ACLs holds for longer. Answered with [`Reply::Anchored`](crate::request::Reply::Anchored).
    Vouch(Option<Vouch>),
}

impl CrossOp {
    /// The call's name in reports and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DescribeRoot(_) => "describe_root",
            Self::ReadAcl(_) => "read_acl",
            Self::Seal { .. } => "seal",
            Self::VoidSeals { .. } => "void_seals",
            Self::Unseal { .. } => "unseal",
            Self::DropRoot { .. } => "drop_root",
            Self::UpdateRoot(_) => "update_root",
            Self::ListRoot { .. } => "list_root",
            Self::WatchRoot { .. } => "watch_root",
            Self::ReapRoot { .. } => "reap_root",
            Self::Propagated { .. } => "propagated",
            Self::Chores => "chores",
            Self::ReadMap => "read_map",
            Self::Adopt(_) => "adopt_map",
            Self::Pack { .. } => "pack",
            Self::Export { .. } => "export",
            Self::Import { .. } => "import",
            Self::Finish { .. } => "finish_move",
            Self::GiveUp { .. } => "give_up_move",
            Self::Announced { .. } => "announced",
            Self::Vouch(_) => "vouch",
        }
    }
}

impl Evidence {
    /// Whether the client is in that ACL; `None` if nothing is said of it.
    pub fn is_member(&self, acl: &str) -> Option<bool> {
        self.memberships.iter().find(|it| it.acl == acl).map(|it| it.is_member)
    }
}

impl Root {
    /// The cell whose word it is.
    pub const fn cell(&self) -> &CellName {
        &self.as_of.cell
    }
}
