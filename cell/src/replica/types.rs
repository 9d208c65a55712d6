//! openraft's type configuration, and short names for its types.
//!
//! The configuration is not generic over the machine. openraft carries the result of `apply` back to the proposer in
//! its `R`; a generic `R` would put `M: Debug + Ord + Default + ..` bounds on the marker type and a parameter on
//! every alias below. Instead `R` is one box of any type ([`Reply`]), which [`super::propose`] opens again: one
//! allocation for each entry, not for each command.
//!
//! openraft's own types are used inside `cell::replica` only.

use std::any::Any;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use openraft::BasicNode;
use openraft::impls::leader_id_std;
use tokio::sync::oneshot;

/// What openraft replicates: an entry it does not look into.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The outcomes of one entry, for whoever proposed it.
///
/// The mutex is never contended: openraft asks for `Sync`, and outcomes are only `Send`.
pub struct Reply(Mutex<Option<Box<dyn Any + Send>>>);

impl Reply {
    /// The reply to an entry that is not a command: blank or membership.
    pub fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// The reply that carries an entry's outcomes.
    pub fn of<T: Send + 'static>(outcomes: Vec<T>) -> Self {
        Self(Mutex::new(Some(Box::new(outcomes))))
    }

    /// The outcomes, if they are of type `T`.
    pub fn take<T: 'static>(self) -> Option<Vec<T>> {
        let outcomes = self.0.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        outcomes.downcast().ok().map(|outcomes| *outcomes)
    }
}

/// How openraft hands a write's result back. Unlike openraft's own it does not mind when nobody waits any more.
pub struct Responder<T>(oneshot::Sender<T>);

impl<T> Responder<T> {
    /// A responder, and where its result arrives.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Responder<T> {
    fn on_complete(self, result: T) {
        let _nobody_waits = self.0.send(result);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The types of a cell's Raft group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Payload;
    type R = Reply;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    /// One leader in a term, as in standard Raft; openraft's default allows several.
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Responder<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub type LogId = openraft::LogId<CommittedLeaderId>;
pub type Vote = openraft::Vote<LeaderId>;
pub type Membership = openraft::Membership<u64, BasicNode>;
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, BasicNode>;
pub type EntryPayload = openraft::EntryPayload<Payload, u64, BasicNode>;
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, BasicNode>;
pub type Snapshot<D> = openraft::Snapshot<CommittedLeaderId, u64, BasicNode, D>;
pub type LogState = openraft::LogState<Types>;
pub type IoFlushed = openraft::storage::IOFlushed<Types>;
pub type Metrics = openraft::RaftMetrics<Types>;
pub type MetricsReceiver = openraft_rt_tokio::TokioWatchReceiver<Metrics>;
pub type ServerMetrics = openraft::metrics::RaftServerMetrics<Types>;
pub type ServerMetricsReceiver = openraft_rt_tokio::TokioWatchReceiver<ServerMetrics>;
/// Seeded, so that elections in a simulation repeat.
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

/// The id of the entry at `index` of leader `term`.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}
