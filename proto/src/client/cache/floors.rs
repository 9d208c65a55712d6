//! What must not be kept any more: by item, by cell, of everything (`cache-3`).
//!
//! Floors of items are bounded in number. The oldest are folded into one for their cell, which may
//! keep out more than it must and never less.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{CellName, Epoch};
use crate::item::{Item, ItemKind};
use crate::name::Name;
use crate::position::Position;

use super::Step;

/// Items with a floor of their own.
pub(super) const FLOORS_MAX: usize = 4_096;

#[derive(Clone, Debug, Default)]
pub(super) struct Floors {
    items: BTreeMap<Item, (CellName, Floor)>,
    /// Items by when they were voided last.
    oldest: BTreeSet<(Step, Item)>,
    cells: BTreeMap<CellName, Floor>,
    all: Step,
}

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    /// Tickets up to here are void.
    at: Step,
    /// Nothing read up to here may be kept.
    position: (Epoch, u64),
}

impl Floor {
    fn raised(self, at: Step, position: (Epoch, u64)) -> Self {
        Self { at: self.at.max(at), position: self.position.max(position) }
    }

    fn allows(&self, since: Step, position: (Epoch, u64)) -> bool {
        since > self.at && position > self.position
    }
}

impl Floors {
    /// Whether something read at that position, with a ticket from `since`, may be kept.
    pub(super) fn allow(&self, name: &Name, kind: ItemKind, since: Step, position: &Position) -> bool {
        let place = (position.epoch, position.index);
        let item = Item::new(name.clone(), kind);
        let of_item = self.items.get(&item).is_none_or(|(cell, floor)| {
            // Another cell's positions have no order with this one's.
            since > floor.at && (*cell != position.cell || floor.allows(since, place))
        });
        let of_cell = self.cells.get(&position.cell).is_none_or(|floor| floor.allows(since, place));
        since > self.all && of_item && of_cell
    }

    pub(super) fn raise(&mut self, item: &Item, at: Step, floor: &Position) {
        let mut raised = Floor { at, position: (floor.epoch, floor.index) };
        if let Some((cell, before)) = self.items.remove(item) {
            self.oldest.remove(&(before.at, item.clone()));
            if cell == floor.cell {
                raised = raised.raised(before.at, before.position);
            } else {
                self.raise_cell(&cell, before.at, Some(before.position));
            }
        }
        self.oldest.insert((raised.at, item.clone()));
        self.items.insert(item.clone(), (floor.cell.clone(), raised));
        if self.items.len() > FLOORS_MAX {
            self.fold_oldest();
        }
    }

    pub(super) fn raise_cell(&mut self, cell: &CellName, at: Step, position: Option<(Epoch, u64)>) {
        let floor = self.cells.entry(cell.clone()).or_default();
        *floor = floor.raised(at, position.unwrap_or_default());
    }

    pub(super) fn raise_all(&mut self, at: Step) {
        self.all = self.all.max(at);
    }

    fn fold_oldest(&mut self) {
        let Some((_, item)) = self.oldest.pop_first() else { return };
        let (cell, floor) = self.items.remove(&item).expect("what is in order is there");
        self.raise_cell(&cell, floor.at, Some(floor.position));
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.items.len() <= FLOORS_MAX, "floors are bounded");
        assert_eq!(self.items.len(), self.oldest.len(), "every floor has its place in order");
    }
}
