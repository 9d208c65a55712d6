//! Events of nodes (paper §2.5): what handles subscribe to, and what is told of it (P-EVENT).

use std::fmt;

use crate::id::{Instance, RequestNumber, SessionId};
use crate::name::Name;
use crate::position::Position;

/// Something that happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The file's contents were replaced.
    ContentsModified,
    /// The directory has a new child.
    ChildAdded,
    /// A child of the directory is gone.
    ChildRemoved,
    /// A child's contents or ACL names were replaced.
    ChildModified,
    /// The node was deleted: the handle is good for nothing any more, and its lock is gone.
    HandleInvalid,
    /// Somebody took the node's lock, which was free.
    LockAcquired,
    /// Somebody else asked for the lock that this handle holds, in a mode that conflicts.
    LockConflict,
}

impl EventKind {
    /// All kinds, in the order of their numbers on the wire.
    pub const ALL: [Self; 7] = [
        Self::ContentsModified,
        Self::ChildAdded,
        Self::ChildRemoved,
        Self::ChildModified,
        Self::HandleInvalid,
        Self::LockAcquired,
        Self::LockConflict,
    ];

    /// The name scripts and people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ContentsModified => "contents-modified",
            Self::ChildAdded => "child-added",
            Self::ChildRemoved => "child-removed",
            Self::ChildModified => "child-modified",
            Self::HandleInvalid => "handle-invalid",
            Self::LockAcquired => "lock-acquired",
            Self::LockConflict => "lock-conflict",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of kinds of events.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventMask(u32);

impl EventMask {
    /// No events.
    pub const NONE: Self = Self(0);
    /// Every kind of event.
    pub const ALL: Self = Self((1 << EventKind::ALL.len()) - 1);

    /// The events of these kinds.
    pub fn of(kinds: impl IntoIterator<Item = EventKind>) -> Self {
        kinds.into_iter().fold(Self::NONE, |mask, kind| Self(mask.0 | kind.bit()))
    }

    /// Whether events of this kind are wanted.
    pub const fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether no events are wanted.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The events of either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of a directory's children.
    pub fn of_children(self) -> Self {
        Self(self.0 & Self::of([EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified]).0)
    }

    /// The kinds, in order.
    pub fn kinds(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// For the wire.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the wire; kinds that this version does not know are left out.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl fmt::Debug for EventMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

/// A handle, by whose it is and the `Open` that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId {
    /// The client.
    pub session: SessionId,
    /// The client's `Open`.
    pub opened_by: RequestNumber,
}

/// Something that happened to a node, as it is told to whoever subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// What.
    pub kind: EventKind,
    /// To which node.
    pub name: Name,
    /// Which of the nodes of that name.
    pub instance: Instance,
    /// Of events of children: which child, by its component.
    pub child: Option<String>,
    /// The one handle that it is meant for; `None`: every handle that subscribed.
    pub to: Option<HandleId>,
    /// After which it is told: a read from here on shows it.
    pub position: Position,
}
