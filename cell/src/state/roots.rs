//! Directories that have a part in this cell and a part in another (`route-3`, `route-4`).
//!
//! In the cell of the children:
//!
//! ```text
//!            evidence with a Create              Seal, if it has no child
//!   unknown ------------------------> root record -----------------------> sealed
//!      ^  ^----------------------------------------- Unseal, once voided -----'  |
//!      '--------- DropRoot: no evidence from before the end counts any more -----'
//! ```
//!
//! A seal names the directory by its instance, so evidence of a later one replaces it. In the cell of the node only those
//! seals count that were not voided.

use std::sync::Arc;

use hasp_proto::convert::malformed;
use hasp_proto::crossing::{Root, SealTicket};
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::position::Position;
use hasp_proto::wire::log::v1 as log;
use rpds::RedBlackTreeMapSync;

use super::codec::DecodeError;

/// Of how many directories it is known by name that evidence has become void. Of older ones it follows from the cell.
const VOID_NAMES_MAX: usize = 1_024;

/// A directory whose node another cell holds, while this cell holds its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootRecord {
    /// Of the node; 0 for a directory that was made for a rule of the map and stays.
    pub instance: Instance,
    /// What its children inherit.
    pub acls: Arc<AclNames>,
    /// Of these.
    pub acl_generation: Generation,
}

impl RootRecord {
    /// Of a directory that stays as long as the map has a rule for it.
    pub fn of_a_rule(acls: Arc<AclNames>) -> Self {
        Self { instance: Instance(0), acls, acl_generation: Generation(0) }
    }

    /// Whether it is of that directory.
    pub fn is_of(&self, instance: Instance) -> bool {
        self.instance == Instance(0) || self.instance == instance
    }
}

impl From<&Root> for RootRecord {
    fn from(root: &Root) -> Self {
        let acls = Arc::new(root.acls.clone());
        Self { instance: root.instance, acls, acl_generation: root.acl_generation }
    }
}

/// A directory in which nobody can create, since it is about to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Of the directory.
    pub instance: Instance,
    /// Its number.
    pub ticket: SealTicket,
}

/// As of when evidence of a directory counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoidBefore {
    /// What was said before this is void.
    pub as_of: Position,
    /// Tells which came first.
    order: u64,
}

/// All directories with a part elsewhere.
#[derive(Clone, Default, PartialEq)]
pub struct Roots {
    records: RedBlackTreeMapSync<Name, RootRecord>,
    seals: RedBlackTreeMapSync<Name, Seal>,
    /// Of directories whose node is here: seals below these numbers do not count.
    voided: RedBlackTreeMapSync<Name, SealTicket>,
    /// Of directories whose node is here: their ACL names, as of this generation, may be news to the other cell.
    unpropagated: RedBlackTreeMapSync<Name, Generation>,
    void_before: RedBlackTreeMapSync<Name, VoidBefore>,
    by_order: RedBlackTreeMapSync<u64, Name>,
    last_order: u64,
    /// Of any directory: what that cell said before this command is void.
    floors: RedBlackTreeMapSync<CellName, u64>,
}

impl Roots {
    /// The root record of that name.
    pub fn get(&self, name: &Name) -> Option<&RootRecord> {
        self.records.get(name)
    }

    /// The seal of the directory of that name.
    pub fn seal(&self, name: &Name) -> Option<Seal> {
        self.seals.get(name).copied()
    }

    /// Puts a root record in, in place of whatever is there.
    pub fn insert(&mut self, name: &Name, record: RootRecord) {
        self.seals.remove_mut(name);
        self.records.insert_mut(name.clone(), record);
    }

    /// Seals a directory without children: its root record goes.
    pub fn insert_seal(&mut self, name: &Name, seal: Seal) {
        self.records.remove_mut(name);
        self.seals.insert_mut(name.clone(), seal);
    }

    /// Takes that seal back.
    pub fn unseal(&mut self, name: &Name, ticket: SealTicket) {
        if self.seal(name).is_some_and(|seal| seal.ticket == ticket) {
            self.seals.remove_mut(name);
        }
    }

    /// Takes out what is known of a directory that is gone. The caller has looked that it has no children here.
    pub fn remove(&mut self, name: &Name, instance: Instance) {
        if self.seal(name).is_some_and(|seal| seal.instance <= instance) {
            self.seals.remove_mut(name);
        }
        if self.get(name).is_some_and(|record| record.instance <= instance && record.instance != Instance(0))
        {
            self.records.remove_mut(name);
        }
    }

    /// Takes out what is known of a directory, sealed or not.
    pub fn take(&mut self, name: &Name) {
        self.seals.remove_mut(name);
        self.records.remove_mut(name);
    }

    /// Keeps what is of directories that are split, given whether a directory's node is here and whether its children are.
    pub fn keep_split(&mut self, role: impl Fn(&Name) -> (bool, bool)) {
        let others = |names: &mut dyn Iterator<Item = &Name>, wanted: (bool, bool)| {
            names.filter(|name| role(name) != wanted).cloned().collect::<Vec<_>>()
        };
        for name in others(&mut self.records.keys().chain(self.seals.keys()), (false, true)) {
            self.take(&name);
        }
        for name in others(&mut self.voided.keys().chain(self.unpropagated.keys()), (true, false)) {
            self.forget_node(&name);
        }
    }

    /// Learns what another cell knew.
    ///
    /// # Errors
    /// It says nothing.
    pub fn learn(&mut self, crossing: log::SnapshotCrossing) -> Result<(), DecodeError> {
        for log::SnapshotVoid { name, as_of, .. } in crossing.voids {
            let as_of = as_of.ok_or(malformed("void evidence without position"))?;
            self.void_before(&Name::parse(&name)?, as_of.into());
        }
        self.restore(log::SnapshotCrossing { voids: Vec::new(), ..crossing })
    }

    /// Takes in what a snapshot has kept.
    ///
    /// # Errors
    /// It says nothing, or something twice.
    pub fn restore(&mut self, crossing: log::SnapshotCrossing) -> Result<(), DecodeError> {
        for log::SnapshotVoid { name, as_of, order } in crossing.voids {
            let as_of = as_of.ok_or(malformed("void evidence without position"))?;
            if !self.restore_void(&Name::parse(&name)?, as_of.into(), order) {
                return Err(malformed("void evidence twice, or too much of it").into());
            }
        }
        for floor in crossing.floors {
            self.raise_floor(&floor.into());
        }
        for seal in crossing.seals {
            let (instance, ticket) = (Instance(seal.instance), SealTicket(seal.ticket));
            self.insert_seal(&Name::parse(&seal.name)?, Seal { instance, ticket });
        }
        for news in crossing.unpropagated {
            self.has_news(&Name::parse(&news.name)?, Generation(news.acl_generation));
        }
        for voided in crossing.voided {
            self.void_seals(&Name::parse(&voided.name)?, SealTicket(voided.ticket));
        }
        Ok(())
    }

    /// Of a directory whose node is here: the first seal that counts, if any was voided.
    pub fn first_that_counts(&self, name: &Name) -> Option<SealTicket> {
        self.voided.get(name).copied()
    }

    /// Of a directory whose node is here: the ACL names that may be news to the other cell.
    pub fn news_of(&self, name: &Name) -> Option<Generation> {
        self.unpropagated.get(name).copied()
    }

    /// Whether nothing has been heard that makes this void.
    pub fn is_current(&self, root: &Root) -> bool {
        let Position { cell, index, .. } = &root.as_of;
        let floor = self.floors.get(cell).copied().unwrap_or_default();
        let is_void = |void: &VoidBefore| void.as_of.cell == *cell && *index < void.as_of.index;
        *index >= floor && !self.void_before.get(&root.name).is_some_and(is_void)
    }

    /// What was said of the directory before this does not count any more.
    pub fn void_before(&mut self, name: &Name, as_of: Position) {
        if let Some(known) = self.void_before.get(name) {
            if known.as_of.cell == as_of.cell && known.as_of.index >= as_of.index {
                return;
            }
            let (order, known) = (known.order, known.as_of.clone());
            self.by_order.remove_mut(&order);
            if known.cell != as_of.cell {
                self.raise_floor(&known);
            }
        }
        self.last_order += 1;
        self.by_order.insert_mut(self.last_order, name.clone());
        self.void_before.insert_mut(name.clone(), VoidBefore { as_of, order: self.last_order });
        if self.by_order.size() > VOID_NAMES_MAX
            && let Some((order, oldest)) = self.by_order.first().map(|(order, name)| (*order, name.clone()))
        {
            self.by_order.remove_mut(&order);
            if let Some(void) = self.void_before.get(&oldest).cloned() {
                self.raise_floor(&void.as_of);
            }
            self.void_before.remove_mut(&oldest);
        }
    }

    fn raise_floor(&mut self, as_of: &Position) {
        let floor = self.floors.get(&as_of.cell).copied().unwrap_or_default();
        self.floors.insert_mut(as_of.cell.clone(), floor.max(as_of.index));
    }

    /// Of a directory whose node is here: from here on only later seals count.
    pub fn void_seals(&mut self, name: &Name, below: SealTicket) {
        let known = self.voided.get(name).copied().unwrap_or_default();
        self.voided.insert_mut(name.clone(), known.max(below));
    }

    /// Whether the directory, whose node is here, may be deleted by that seal.
    pub fn counts(&self, name: &Name, ticket: SealTicket) -> bool {
        self.voided.get(name).is_none_or(|below| ticket >= *below)
    }

    /// A node is gone: no seal of a later one of its name was ever voided.
    pub fn forget_node(&mut self, name: &Name) {
        if !self.voided.is_empty() {
            self.voided.remove_mut(name);
        }
        if !self.unpropagated.is_empty() {
            self.unpropagated.remove_mut(name);
        }
    }

    /// A directory whose node is here has new ACL names.
    pub fn has_news(&mut self, name: &Name, acl_generation: Generation) {
        self.unpropagated.insert_mut(name.clone(), acl_generation);
    }

    /// The other cell knows the ACL names of that generation.
    pub fn propagated(&mut self, name: &Name, acl_generation: Generation) {
        if self.unpropagated.get(name).is_some_and(|latest| *latest <= acl_generation) {
            self.unpropagated.remove_mut(name);
        }
    }

    /// Directories whose node is here, with the ACL names that may be news to the other cell, by name.
    pub fn unpropagated(&self) -> impl Iterator<Item = (&Name, Generation)> {
        self.unpropagated.iter().map(|(name, generation)| (name, *generation))
    }

    /// All root records, by name.
    pub fn records(&self) -> impl Iterator<Item = (&Name, &RootRecord)> {
        self.records.iter()
    }

    /// All seals, by name.
    pub fn seals(&self) -> impl Iterator<Item = (&Name, Seal)> {
        self.seals.iter().map(|(name, seal)| (name, *seal))
    }

    /// Directories whose node is here, with the first seal that counts, by name.
    pub fn voided(&self) -> impl Iterator<Item = (&Name, SealTicket)> {
        self.voided.iter().map(|(name, below)| (name, *below))
    }

    /// Directories of which evidence is void that is older than this, each with its place, the oldest such word first.
    pub fn voids(&self) -> impl Iterator<Item = (u64, &Name, &Position)> {
        let listed = self.by_order.iter();
        listed.filter_map(|(order, name)| Some((*order, name, &self.void_before.get(name)?.as_of)))
    }

    /// Puts one of them in again that a snapshot has kept; `false` if its name or its place is taken.
    fn restore_void(&mut self, name: &Name, as_of: Position, order: u64) -> bool {
        if self.by_order.contains_key(&order) || self.void_before.contains_key(name) {
            return false;
        }
        self.last_order = self.last_order.max(order);
        self.by_order.insert_mut(order, name.clone());
        self.void_before.insert_mut(name.clone(), VoidBefore { as_of, order });
        self.by_order.size() <= VOID_NAMES_MAX
    }

    /// What cells said before these commands is void, of whichever directory.
    pub fn floors(&self) -> impl Iterator<Item = (&CellName, u64)> {
        self.floors.iter().map(|(cell, index)| (cell, *index))
    }

    /// Sets a floor that a snapshot has kept.
    pub fn restore_floor(&mut self, as_of: &Position) {
        self.raise_floor(as_of);
    }

    /// What must always hold.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        for name in self.seals.keys() {
            assert!(self.get(name).is_none(), "route-4: {name} is sealed, so nothing is created below");
        }
        assert!(self.by_order.size() <= VOID_NAMES_MAX, "few names are kept of what is gone");
        assert_eq!(self.by_order.size(), self.void_before.size(), "each has its place in the order");
    }
}
