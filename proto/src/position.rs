//! Where in a cell's history something was seen.

use std::fmt;

use crate::id::{CellName, Epoch};

/// A point in one cell's history: what a reply, a piece of news or a cached value reflects.
///
/// `index` counts the commands that the cell has applied (a log entry may carry many), so no two
/// writes share a position. Positions of different cells say nothing about one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which cell.
    pub cell: CellName,
    /// Under which mastership.
    pub epoch: Epoch,
    /// After which command.
    pub index: u64,
}

impl Position {
    /// Whether this is earlier than `floor`, a position of the same cell (P-MONO).
    pub fn is_before(&self, floor: &Position) -> bool {
        debug_assert_eq!(self.cell, floor.cell, "positions of two cells have no order");
        (self.epoch, self.index) < (floor.epoch, floor.index)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cell, self.epoch, self.index)
    }
}
