//! The cells of a ring rule, and which of them has the children of a directory (`route-2`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::id::CellName;
use crate::ring::Ring;

/// Points on the ring for each cell, fixed for ever: the fullest of three is 3% over the mean.
const POINTS_PER_CELL: usize = 400;

/// Cells over which directories are spread. A clone shares the ring, which is made when it is first needed: a map
/// that is only passed on needs none.
#[derive(Clone)]
pub struct CellRing(Arc<Spread>);

struct Spread {
    /// Sorted, each once, at least one.
    cells: Vec<CellName>,
    ring: OnceLock<Ring<CellName>>,
}

impl CellRing {
    /// Over these cells, whatever their order.
    ///
    /// # Panics
    /// If there are none.
    pub(super) fn new(mut cells: Vec<CellName>) -> Self {
        assert!(!cells.is_empty(), "a ring has a cell");
        cells.sort_unstable();
        cells.dedup();
        Self(Arc::new(Spread { cells, ring: OnceLock::new() }))
    }

    /// By name.
    pub fn cells(&self) -> &[CellName] {
        &self.0.cells
    }

    /// The cell that has what is strictly below the directory of this full name.
    pub(super) fn cell_of(&self, directory: &str) -> &CellName {
        let Spread { cells, ring } = &*self.0;
        let ring = ring.get_or_init(|| Ring::new(cells.iter().cloned(), POINTS_PER_CELL));
        ring.first(directory.as_bytes()).expect("a ring has a cell")
    }
}

impl PartialEq for CellRing {
    fn eq(&self, other: &Self) -> bool {
        self.cells() == other.cells()
    }
}

impl Eq for CellRing {}

impl fmt::Debug for CellRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cells().fmt(f)
    }
}

impl fmt::Display for CellRing {
    /// The cells, with a blank between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, cell) in self.cells().iter().enumerate() {
            let blank = if place == 0 { "" } else { " " };
            write!(f, "{blank}{cell}")?;
        }
        Ok(())
    }
}
