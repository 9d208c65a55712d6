//! What can be cached of a node, item by item (`cache-2`).

use std::fmt;

use crate::name::Name;

/// Which part of what is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Contents and metadata, but for the lock generation.
    Data,
    /// The lock generation.
    Lock,
    /// Children's names and metadata, but for their lock generations.
    Listing,
    /// That there is no such node.
    Absence,
    /// Decisions made by this ACL file: who may do what that it guards.
    Acl,
}

impl ItemKind {
    /// All kinds, in the order of their numbers on the wire.
    pub const ALL: [Self; 5] = [Self::Data, Self::Lock, Self::Listing, Self::Absence, Self::Acl];

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One thing that can be cached, and is registered and invalidated by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Of the node; for [`ItemKind::Acl`] of the ACL file.
    pub name: Name,
    /// Which part.
    pub kind: ItemKind,
}

impl Item {
    /// This part of what is known of that name.
    pub const fn new(name: Name, kind: ItemKind) -> Self {
        Self { name, kind }
    }
}

/// A set of kinds of items.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemKinds(u32);

impl ItemKinds {
    /// None.
    pub const NONE: Self = Self(0);

    /// These kinds.
    pub fn of(kinds: impl IntoIterator<Item = ItemKind>) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, kind: ItemKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// Whether this kind is among them.
    pub const fn contains(self, kind: ItemKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds, in order.
    pub fn kinds(self) -> impl Iterator<Item = ItemKind> {
        ItemKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// For the wire.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the wire; kinds that this version does not know are left out: they are not cached.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << ItemKind::ALL.len()) - 1))
    }
}

impl fmt::Debug for ItemKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}
