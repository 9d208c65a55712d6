//! The replicated state as the Raft shell's machine: entries and snapshots as bytes, outcomes with
//! their positions in the cell's history. A state that is not the master's is an entry that cannot be applied: the
//! replica goes out of service (P-STOP).

use bytes::Bytes;

use crate::replica::{Machine, MachineError};
use crate::state::{AppliedOutcome, LogEntry, Outcome, State};

impl Machine for State {
    type Outcome = AppliedOutcome;

    fn apply(&mut self, entry: &[u8]) -> Result<Vec<AppliedOutcome>, MachineError> {
        let entry = LogEntry::decode(entry).map_err(|error| MachineError(error.to_string()))?;
        let applied = self.apply(&entry);
        match applied.iter().find_map(|applied| divergence(&applied.outcome)) {
            Some(divergence) => Err(divergence),
            None => Ok(applied),
        }
    }

    fn write_snapshot(&self) -> Vec<Bytes> {
        self.write_snapshot()
    }

    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError> {
        Self::from_snapshot(records).map_err(|error| MachineError(error.to_string()))
    }
}

fn divergence(outcome: &Outcome) -> Option<MachineError> {
    let Outcome::Diverged { index, ours, theirs } = outcome else { return None };
    let message = format!(
        "this replica's state before command {index} is not the master's: checksum {ours:016x}, the master's is \
         {theirs:016x}; its data cannot be trusted, let it be rebuilt from the others"
    );
    Some(MachineError(message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hasp_proto::handle::HandleKey;
    use hasp_proto::id::{CellName, Epoch};
    use hasp_proto::partition::PartitionMap;

    use super::*;
    use crate::state::{Command, Genesis};

    fn apply(state: &mut State, command: Command) -> Result<Outcome, String> {
        let entry = LogEntry { epoch: state.epoch(), commands: vec![command] };
        let applied = Machine::apply(state, &entry.encode()).map_err(|error| error.to_string())?;
        Ok(applied[0].outcome.clone())
    }

    #[test]
    fn a_replica_whose_state_is_not_the_masters_cannot_go_on() {
        let cell = CellName::new("a");
        let cells = BTreeMap::from([(cell.clone(), vec![])]);
        let map = PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells).expect("a good map");
        let genesis = Genesis { cell, map, handle_key: HandleKey::new(Bytes::from_static(&[9; 32])) };
        let mut state = State::default();
        apply(&mut state, Command::MasterEpoch { replica: 1, genesis: Some(genesis) }).expect("begins");
        let taken = apply(&mut state, Command::TakeChecksum).expect("takes a note");
        let Outcome::ChecksumTaken { index, checksum } = taken else { panic!("{taken:?}") };

        let same = apply(&mut state, Command::CompareChecksum { index, checksum });
        let other = apply(&mut state, Command::CompareChecksum { index, checksum: !checksum });

        assert_eq!(state.epoch(), Epoch(1));
        assert_eq!(same, Ok(Outcome::Noted));
        let error = other.expect_err("out of service");
        assert!(error.contains("state before command 2 is not the master's"), "{error}");
        assert!(error.contains(&format!("{checksum:016x}")), "{error}");
    }
}
