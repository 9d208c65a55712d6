//! A change of one rule, while what it concerns moves from cell to cell (`move-1`). The rules before hold until it is
//! done: the map that comes after is kept beside them, so that everybody can tell which names are on the move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::draft::Draft;
use super::{MapError, PartitionMap, Prefix};
use crate::acl::ACL_DIRECTORY;
use crate::error::{Error, ErrorCode};
use crate::id::CellName;
use crate::name::Name;

/// What one rule is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which prefix.
    pub prefix: Prefix,
    /// Its cells. None: the rule goes, and those above it hold.
    pub cells: Vec<CellName>,
}

/// A change, and the map with it done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coming {
    change: Change,
    after: PartitionMap,
}

impl Coming {
    pub(super) fn with_cells(&self, cells: &BTreeMap<CellName, Vec<String>>) -> Self {
        Self { change: self.change.clone(), after: self.after.with_cells(cells) }
    }
}

impl PartitionMap {
    /// The change that is under way.
    pub fn change(&self) -> Option<&Change> {
        self.coming.as_ref().map(|coming| &coming.change)
    }

    /// The map when the change that is under way is done; its version is the next.
    pub fn after(&self) -> Option<&Self> {
        self.coming.as_ref().map(|coming| &coming.after)
    }

    /// The next version, in which that change is under way.
    ///
    /// # Errors
    /// What is wrong with it, or that another is under way.
    pub fn changing(&self, change: Change) -> Result<Self, MapError> {
        match self.change() {
            Some(other) => Err(MapError::IsChanging(other.prefix.clone())),
            None => Self { version: self.next_version()?, ..self.clone() }.with_coming(change),
        }
    }

    /// The next version, in which the change that was under way is given up.
    pub fn unchanged(&self) -> Self {
        Self { version: self.version + 1, coming: None, ..self.clone() }
    }

    /// This map, with that change under way.
    pub(super) fn with_coming(mut self, change: Change) -> Result<Self, MapError> {
        let Change { prefix, cells } = &change;
        let mut draft = Draft::of(&self);
        let was_there = draft.remove(prefix);
        if !cells.is_empty() {
            draft.add(prefix, cells.iter().map(CellName::as_str))?;
        } else if !was_there {
            return Err(MapError::NothingChanges(prefix.clone()));
        }
        let root = format!("/ls/{}", self.namespace);
        if matches!(prefix, Prefix::Below(name) if name.as_str() == root) {
            return Err(MapError::HomeStays(prefix.clone()));
        }
        let after = draft.finish(self.next_version()?)?;
        if (&after.rules, &after.rings) == (&self.rules, &self.rings) {
            return Err(MapError::NothingChanges(prefix.clone()));
        }
        if self.system_cells() != after.system_cells() {
            return Err(MapError::HomeStays(prefix.clone()));
        }
        self.coming = Some(Arc::new(Coming { change, after }));
        self.fits()
    }

    fn next_version(&self) -> Result<u64, MapError> {
        self.version.checked_add(1).ok_or(MapError::LastVersion)
    }

    /// The cells of the ACL files and of the map itself.
    fn system_cells(&self) -> [Option<&CellName>; 2] {
        [ACL_DIRECTORY, ".hasp"].map(|directory| {
            let name = Name::parse(&format!("/ls/{}/{directory}", self.namespace)).ok()?;
            self.children_owner(&name)
        })
    }

    /// Whether the node of that name goes to another cell by the change that is under way.
    pub fn moves(&self, name: &Name) -> bool {
        self.after().is_some_and(|after| after.owner(name) != self.owner(name))
    }

    /// The same of the children of the directory of that name.
    pub fn moves_children(&self, name: &Name) -> bool {
        self.after().is_some_and(|after| after.children_owner(name) != self.children_owner(name))
    }

    /// Whether by that other map the node of that name, or the children of the directory of that name, are another cell's.
    pub fn has_moved(&self, name: &Name, other: &Self) -> bool {
        self.owner(name) != other.owner(name) || self.children_owner(name) != other.children_owner(name)
    }

    /// From which cells to which the change that is under way may move something, each pair once.
    pub fn journeys(&self) -> BTreeSet<(CellName, CellName)> {
        let Some(Coming { change: Change { prefix, .. }, after }) = self.coming.as_deref() else {
            return BTreeSet::new();
        };
        self.journeys_below(prefix, after)
    }

    /// From which cells to which something may have moved between this map and that one, each pair once.
    pub fn journeys_to(&self, other: &Self) -> BTreeSet<(CellName, CellName)> {
        let plain = self.rules.keys().chain(other.rules.keys()).cloned().map(Prefix::Below);
        let rings = self.rings.keys().chain(other.rings.keys()).cloned().map(Prefix::Ring);
        plain.chain(rings).flat_map(|prefix| self.journeys_below(&prefix, other)).collect()
    }

    /// The same of what a rule of this prefix is for.
    fn journeys_below(&self, prefix: &Prefix, after: &Self) -> BTreeSet<(CellName, CellName)> {
        let (from, to) = (self.cells_below(prefix), after.cells_below(prefix));
        let is_ring = |map: &Self| matches!(prefix, Prefix::Ring(name) if map.rings.contains_key(name));
        // What stays on a ring stays where it is unless its cell has left or a new one takes it.
        let are_rings = is_ring(self) && is_ring(after);
        let goes =
            |from_cell: &CellName, to_cell: &CellName| !to.contains(from_cell) || !from.contains(to_cell);
        let pairs = from.iter().flat_map(|from_cell| to.iter().map(move |to_cell| (from_cell, to_cell)));
        pairs
            .filter(|(from_cell, to_cell)| from_cell != to_cell)
            .filter(|(from_cell, to_cell)| !are_rings || goes(from_cell, to_cell))
            .map(|(from_cell, to_cell)| (from_cell.clone(), to_cell.clone()))
            .collect()
    }

    /// The cells that have what a rule of this prefix is for, whether or not there is one.
    fn cells_below(&self, prefix: &Prefix) -> BTreeSet<CellName> {
        let ring = if let Prefix::Ring(name) = prefix { self.rings.get(name) } else { None };
        match ring {
            Some(ring) => ring.cells().iter().cloned().collect(),
            None => self.children_owner(prefix.name()).cloned().into_iter().collect(),
        }
    }

    /// Whether this map may be followed by that one, which somebody has written: one change begins, or the one that is
    /// under way is given up.
    ///
    /// # Errors
    /// `InvalidArgument`, with what else is different.
    pub fn check_written(&self, next: &Self) -> Result<(), Error> {
        let refused = |why: String| Err(ErrorCode::InvalidArgument.because(format!("partition map: {why}")));
        if next.version != self.version + 1 {
            let (version, wanted) = (next.version, self.version + 1);
            return refused(format!("version {version}: the one after that of now is {wanted}"));
        }
        if (&next.namespace, &next.cells) != (&self.namespace, &self.cells) {
            return refused("the cells are configured with each server, without addresses here".into());
        }
        if (&next.rules, &next.rings) != (&self.rules, &self.rings) {
            return refused("the rules change by a line \"next PREFIX CELL\", not at once".into());
        }
        match (self.change(), next.change()) {
            (None, Some(_)) | (Some(_), None) => Ok(()),
            (None, None) => refused("nothing is different".into()),
            (Some(Change { prefix, .. }), Some(_)) => {
                refused(format!("the rule for {prefix} is changing: one change at a time"))
            }
        }
    }
}
