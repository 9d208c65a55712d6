//! What is kept of one name: its items, each with the position where it was read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::id::{CellName, Generation, Instance};
use crate::item::ItemKind;
use crate::name::Name;
use crate::node::Stat;
use crate::position::Position;

use super::{Listing, Step};

/// Bytes of an entry besides what varies.
const ENTRY_BYTES: usize = 512;
/// Bytes of a child besides its component.
const CHILD_BYTES: usize = 192;
/// Bytes of a decision besides the principal.
const DECISION_BYTES: usize = 48;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) data: Option<Data>,
    pub(super) lock: Option<Lock>,
    pub(super) listing: Option<KeptListing>,
    /// Where it was seen that there is no such node.
    pub(super) absence: Option<Position>,
    /// Of an ACL file.
    pub(super) decisions: Decisions,
    pub(super) used: Step,
    /// Bytes, as counted last.
    pub(super) weight: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Data {
    /// Its lock generation means nothing.
    pub(super) stat: Stat,
    /// If they were read.
    pub(super) contents: Option<Bytes>,
    pub(super) position: Position,
}

#[derive(Clone, Debug)]
pub(super) struct Lock {
    pub(super) generation: Generation,
    pub(super) position: Position,
}

#[derive(Clone, Debug)]
pub(super) struct KeptListing {
    pub(super) listing: Listing,
    /// Of the directory, if it was read by a handle.
    pub(super) instance: Option<Instance>,
    pub(super) position: Position,
    bytes: usize,
}

/// Who is known to be in an ACL, by whose word.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    by_cell: BTreeMap<CellName, BTreeSet<Box<str>>>,
    bytes: usize,
}

impl Entry {
    pub(super) fn new(used: Step) -> Self {
        Self {
            data: None,
            lock: None,
            listing: None,
            absence: None,
            decisions: Decisions::default(),
            used,
            weight: 0,
        }
    }

    pub(super) fn set_data(&mut self, stat: &Stat, contents: Option<&Bytes>, position: &Position) {
        self.absence = None;
        let stat = Stat { lock_generation: Generation(0), ..stat.clone() };
        let contents = match self.data.take().filter(|data| data.stat == stat) {
            Some(before) => contents.cloned().or(before.contents),
            None => contents.cloned(),
        };
        self.data = Some(Data { stat, contents, position: position.clone() });
    }

    pub(super) fn set_lock(&mut self, generation: Generation, position: &Position) {
        self.lock = Some(Lock { generation, position: position.clone() });
    }

    pub(super) fn set_listing(&mut self, listing: Listing, instance: Option<Instance>, position: &Position) {
        let bytes = listing.children.iter().map(|child| child.component.len() + CHILD_BYTES).sum();
        self.listing = Some(KeptListing { listing, instance, position: position.clone(), bytes });
    }

    pub(super) fn set_absence(&mut self, position: &Position) {
        *self = Self {
            absence: Some(position.clone()),
            decisions: std::mem::take(&mut self.decisions),
            weight: self.weight,
            ..Self::new(self.used)
        };
    }

    pub(super) fn void(&mut self, kind: ItemKind) {
        match kind {
            ItemKind::Data => self.data = None,
            ItemKind::Lock => self.lock = None,
            ItemKind::Listing => self.listing = None,
            ItemKind::Absence => self.absence = None,
            ItemKind::Acl => self.decisions = Decisions::default(),
        }
    }

    pub(super) fn void_cell(&mut self, cell: &CellName) {
        self.data.take_if(|data| data.position.cell == *cell);
        self.lock.take_if(|lock| lock.position.cell == *cell);
        self.listing.take_if(|listing| listing.position.cell == *cell);
        self.absence.take_if(|position| position.cell == *cell);
        self.decisions.void_cell(cell);
    }

    pub(super) fn is_of(&self, cell: &CellName) -> bool {
        let positions = [
            self.data.as_ref().map(|data| &data.position),
            self.lock.as_ref().map(|lock| &lock.position),
            self.listing.as_ref().map(|listing| &listing.position),
            self.absence.as_ref(),
        ];
        positions.into_iter().flatten().any(|position| position.cell == *cell)
            || self.decisions.by_cell.contains_key(cell)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_none()
            && self.lock.is_none()
            && self.listing.is_none()
            && self.absence.is_none()
            && self.decisions.by_cell.is_empty()
    }

    pub(super) fn weigh(&self, name: &Name) -> usize {
        let data = self.data.as_ref().map_or(0, |data| {
            let acls = &data.stat.acls;
            let contents = data.contents.as_ref().map_or(0, Bytes::len);
            contents + acls.read.len() + acls.write.len() + acls.change.len()
        });
        let listing = self.listing.as_ref().map_or(0, |listing| listing.bytes);
        ENTRY_BYTES + name.as_str().len() + data + listing + self.decisions.bytes
    }
}

impl Decisions {
    pub(super) fn add(&mut self, cell: &CellName, principal: &str) {
        if self.by_cell.entry(cell.clone()).or_default().insert(principal.into()) {
            self.bytes += principal.len() + DECISION_BYTES;
        }
    }

    pub(super) fn holds(&self, cell: &CellName, principal: &str) -> bool {
        self.by_cell.get(cell).is_some_and(|principals| principals.contains(principal))
    }

    fn void_cell(&mut self, cell: &CellName) {
        let gone = self.by_cell.remove(cell).unwrap_or_default();
        self.bytes -= gone.iter().map(|principal| principal.len() + DECISION_BYTES).sum::<usize>();
    }
}
