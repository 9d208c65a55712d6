//! The replicated state as the Raft shell's machine: entries and snapshots as bytes, outcomes with
//! their places in the cell's history.

use bytes::Bytes;

use crate::replica::{Machine, MachineError};
use crate::state::{LogEntry, Outcome, State};

impl Machine for State {
    /// The command's index, and what came of it.
    type Outcome = (u64, Outcome);

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<(u64, Outcome)>, MachineError> {
        let entry = LogEntry::decode(entry).map_err(|error| MachineError(error.to_string()))?;
        let first = self.index() + 1;
        Ok((first..).zip(self.apply(&entry)).collect())
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        self.write_snapshot()
    }

    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        Self::from_snapshot(records).map_err(|error| MachineError(error.to_string()))
    }
}
