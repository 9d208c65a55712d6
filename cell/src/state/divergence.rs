//! Whether all replicas have the same state (P-STOP). Each notes its checksum where the log says so; the master
//! puts its own note into the log, and a replica whose note differs must stop.
//!
//! The note is each replica's own: no part of the state, of its checksum or of its snapshots. A replica that has
//! none, since it began from a later snapshot, compares nothing.

use super::State;
use super::outcome::Outcome;

/// A checksum, and the index of the command before which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    index: u64,
    checksum: u64,
}

impl State {
    /// Notes the checksum of the state before the command that is being applied. Walks everything.
    pub(super) fn take_checksum(&mut self) -> Outcome {
        let index = self.index;
        let before = Self { index: index - 1, ..self.clone() };
        let checksum = before.checksum();
        self.note = Some(Note { index, checksum });
        Outcome::ChecksumTaken { index, checksum }
    }

    /// Compares this replica's note of the command at `index` with the master's.
    pub(super) fn compare_checksum(&self, index: u64, theirs: u64) -> Outcome {
        match self.note.filter(|note| note.index == index) {
            Some(Note { checksum: ours, .. }) if ours != theirs => Outcome::Diverged { index, ours, theirs },
            _ => Outcome::Noted,
        }
    }
}
