//! The Raft shell of one replica: replicates opaque entries into a pure [`Machine`].
//!
//! It decides nothing about locks, sessions or leases. It promises the master this: entries are applied on every
//! replica in one order; an entry whose outcome was returned is on the disks of a quorum and survives the loss of any
//! minority; under one [`MasteryToken`] entries apply in the order in which they were proposed and none after another
//! replica's election; [`Mastery::Leader`] is shown only when all that was committed earlier has been applied here.
//!
//! ```text
//!   Replica ── openraft ─┬─ log          raft-log on disk, or memory_log in a simulation
//!                        ├─ applier      machine, snapshots
//!                        └─ network      links to the peers;  service answers theirs, behind the gate
//!   joining    founding a cell, or coming back with an empty disk
//!   mastery    what openraft's metrics mean for the master
//! ```
//!
//! Options of openraft that safety rests on, each with its reason, are in [`config`](ReplicaConfig).

mod acks;
mod applier;
mod config;
mod connect;
mod error;
mod gate;
mod identity;
mod joining;
mod log;
mod machine;
mod mastery;
pub mod memory_log;
mod network;
#[cfg(any(test, feature = "sim"))]
pub mod readers;
#[allow(clippy::module_inception)]
mod replica;
mod service;
mod snapshot;
mod status;
mod types;
mod wire;

pub use config::{ReplicaConfig, Timing};
pub use connect::profile;
pub use error::{HandOverError, ProposeError, StartError};
pub use gate::Standing;
pub use identity::{Identity, IdentityError};
pub use log::{LogDamage, OpenLogError};
pub use machine::{Machine, MachineError};
pub use mastery::{Mastery, MasteryToken};
pub use replica::{ENTRY_BYTES_MAX, Replica};
pub use service::Service;
pub use snapshot::SnapshotError;
pub use status::{Position, ReplicaStatus};
pub use types::Types;
pub use wire::pb::raft_server::RaftServer;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tokio's time is paused in them")]
pub(crate) mod tests;
