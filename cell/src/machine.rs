//! The replicated state as the Raft shell's machine: entries and snapshots as bytes, outcomes with
//! their positions in the cell's history.

use bytes::Bytes;

use crate::replica::{Machine, MachineError};
use crate::state::{AppliedOutcome, LogEntry, State};

impl Machine for State {
    type Outcome = AppliedOutcome;

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<AppliedOutcome>, MachineError> {
        let entry = LogEntry::decode(entry).map_err(|error| MachineError(error.to_string()))?;
        Ok(self.apply(&entry))
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        self.write_snapshot()
    }

    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        Self::from_snapshot(records).map_err(|error| MachineError(error.to_string()))
    }
}
