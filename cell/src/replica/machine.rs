//! What the Raft shell asks of the state it replicates.
//!
//! The shell moves opaque entries and snapshot records and never looks inside them. The machine must be a pure
//! function of the entries it was given: no clock, no randomness, no configuration, or replicas diverge.

use std::fmt;

use bytes::Bytes;

/// An entry or snapshot that the machine cannot read: a bug or corruption, never a caller's mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// A replicated state machine.
///
/// `clone` must be O(1), because a snapshot is taken from a clone while entries go on being applied.
pub trait Machine: Clone + Default + Send + Sync + 'static {
    /// The result of one command in an entry.
    type Outcome: fmt::Debug + Send + 'static;

    /// Applies one committed entry, which may hold many commands, and returns their outcomes in order.
    ///
    /// # Errors
    /// When the entry cannot be decoded. The replica goes out of service.
    fn apply(&mut self, entry: &[u8]) -> Result<Vec<Self::Outcome>, MachineError>;

    /// The whole state as records, in an order that depends on the state only.
    fn write_snapshot(&self) -> Vec<Bytes>;

    /// The state that `write_snapshot` wrote.
    ///
    /// # Errors
    /// When a record cannot be decoded. The replica does not start, or refuses the leader's snapshot.
    fn from_snapshot(records: impl Iterator<Item = Bytes>) -> Result<Self, MachineError>;
}
