//! Positions of nodes that move from cell to cell: those of one cell have an order, and come back to it later.

use std::collections::BTreeMap;

use hasp_proto::id::CellName;
use hasp_proto::position::Position;

/// Whether the first is of the same cell and earlier. Of different cells positions tell nothing.
pub fn is_earlier(one: &Position, other: &Position) -> bool {
    one.cell == other.cell && one.is_before(other)
}

/// Whether the second can be what came next: it is later, or in another cell.
pub fn may_follow(one: &Position, next: &Position) -> bool {
    one.cell != next.cell || one.is_before(next)
}

/// The highest position of each cell, with the number of what was there.
#[derive(Default)]
pub struct Floors<'a>(BTreeMap<&'a CellName, (u64, &'a Position)>);

impl<'a> Floors<'a> {
    /// The next thing, of that number, is there.
    ///
    /// # Errors
    /// That is not later than what was before it in the cell: its number and position.
    pub fn rise(&mut self, number: u64, position: &'a Position) -> Result<(), (u64, &'a Position)> {
        match self.0.insert(&position.cell, (number, position)) {
            Some((before, floor)) if !floor.is_before(position) => Err((before, floor)),
            Some(_) | None => Ok(()),
        }
    }
}
