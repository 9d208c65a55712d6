//! Applications that acquire locks in the second cell and say nothing any more, while all that is there moves to the first.

use hasp_proto::node::LockMode;

use super::super::clock::Moment;
use super::super::script::{self, LOCKS, Step};
use super::super::world::World;

/// Who changes the map.
const MOVER: usize = 0;
/// Who holds locks and says nothing more.
const SILENT: std::ops::RangeInclusive<usize> = 1..=2;

/// When the map changes, if that application has a part in it.
pub(super) fn part(silence: Option<Moment>, index: usize) -> Option<Moment> {
    silence.filter(|_| index == MOVER || SILENT.contains(&index))
}

impl World {
    /// The next step towards silence.
    pub(super) fn think_until_silent(&mut self, index: usize, moves_at: Moment) {
        if index == MOVER && self.now < moves_at {
            return self.think_soon(index);
        }
        let is_done = if index == MOVER {
            let home = &self.history.truths[self.map.home()].state;
            home.genesis().is_some_and(|_| script::emptied(home.map()).is_none())
        } else {
            self.clients[index].hands.values().any(|hand| hand.lock.is_some())
        };
        if is_done {
            self.clients[index].has_looked = true;
            return;
        }
        let lock = script::of_cell(1).locks[index % LOCKS].clone();
        let is_mover = index == MOVER;
        self.take(index, if is_mover { Step::Repartition } else { Step::Acquire(lock, LockMode::Shared) });
    }
}
