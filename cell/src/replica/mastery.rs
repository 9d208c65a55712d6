//! Whether this replica leads, as its cell's master may rely on it.
//!
//! ```text
//!   Follower ──elected, blank entry committed and applied, a quorum confirms──> Leader(token)
//!   Leader ──another vote seen, or a transfer began──> Follower
//!   any ──openraft stopped──> Dead
//! ```
//!
//! `Leader` means that the state read here holds everything that was committed under earlier leaders. It does not mean
//! that the lease still runs: see [`lease_end`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Raft, ReadPolicy, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::acks::Acks;
use super::applier::Applier;
use super::machine::Machine;
use super::types::{ServerMetrics, ServerMetricsReceiver, Types};

/// Proof of having been elected once. Proposals carry it, and fail when another election has come between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MasteryToken {
    pub(super) term: u64,
}

impl MasteryToken {
    /// The Raft term, for logs. Never an epoch: see `fail-1`.
    pub fn term(&self) -> u64 {
        self.term
    }
}

/// What this replica is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mastery {
    /// It follows, or leads but does not know yet that all earlier entries are applied.
    Follower {
        /// Who leads, as far as is known here.
        leader: Option<u64>,
    },
    /// It leads, and has applied all that was committed before.
    Leader {
        /// For proposals.
        token: MasteryToken,
    },
    /// It is out of service until its process restarts, and maybe after.
    Dead {
        /// Why.
        reason: String,
    },
}

/// No term: terms of leaders begin at 1.
const NO_TERM: u64 = 0;

/// Follows what openraft says of votes and leaders.
pub struct MasteryWatch<M: Machine> {
    pub raft: Raft<Types, Applier<M>>,
    pub sender: Arc<watch::Sender<Mastery>>,
    /// The term in which this replica began to hand over, if it did. It does not lead again in that term.
    pub handing_over: Arc<HandingOver>,
    pub retry: Duration,
}

/// The last term in which a transfer began.
#[derive(Default)]
pub struct HandingOver(AtomicU64);

impl HandingOver {
    /// A transfer begins.
    pub fn begin(&self, term: u64) {
        self.0.store(term, Ordering::SeqCst);
    }

    /// Whether a transfer began in this term.
    pub fn has_begun(&self, term: u64) -> bool {
        term != NO_TERM && self.0.load(Ordering::SeqCst) == term
    }
}

/// What the metrics say.
#[derive(Debug, PartialEq, Eq)]
enum View {
    Leads { term: u64 },
    Follows { leader: Option<u64> },
    Stopped { reason: String },
}

fn view(metrics: &ServerMetrics) -> View {
    let vote = &metrics.vote;
    if metrics.state == ServerState::Leader && vote.committed && vote.leader_id.voted_for == metrics.id {
        return View::Leads { term: vote.leader_id.term };
    }
    View::Follows { leader: metrics.current_leader.filter(|leader| *leader != metrics.id) }
}

impl<M: Machine> MasteryWatch<M> {
    /// Publishes every change until openraft stops.
    pub async fn run(self) {
        // Of all that openraft publishes only this stands still while entries come and go.
        let mut metrics = self.raft.server_metrics();
        let mut confirmed = NO_TERM;
        // Kept over changes of the metrics: asking for a confirmation changes them.
        let mut confirming: Option<(u64, BoxFuture<'_, u64>)> = None;
        loop {
            let now = view(&metrics.borrow_and_update());
            self.publish(&now, confirmed);
            match now {
                View::Leads { term } if term != confirmed && !self.handing_over.has_begun(term) => {
                    if confirming.as_ref().is_none_or(|(asked, _)| *asked != term) {
                        confirming = Some((term, Box::pin(self.confirm())));
                    }
                }
                View::Leads { .. } | View::Follows { .. } | View::Stopped { .. } => confirming = None,
            }
            let answer = async {
                match &mut confirming {
                    Some((_, answer)) => answer.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                term = answer => {
                    confirmed = term;
                    confirming = None;
                }
                changed = metrics.changed() => {
                    if changed.is_err() {
                        self.publish(&self.stopped(), confirmed);
                        return;
                    }
                }
            }
        }
    }

    fn stopped(&self) -> View {
        let reason = match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "raft has stopped".to_owned(),
        };
        View::Stopped { reason }
    }

    /// The term of this leadership, once a quorum has confirmed it and all that was committed before is applied.
    async fn confirm(&self) -> u64 {
        loop {
            // Fails while the first heartbeats are out, and for good when another leads; then the metrics say so.
            match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(read) => return read.committed_leader_id().term,
                Err(_not_yet) => tokio::time::sleep(self.retry).await,
            }
        }
    }

    fn publish(&self, view: &View, confirmed: u64) {
        self.sender.send_if_modified(|current| {
            // Decided under the channel's lock, so that a transfer that begins meanwhile is not overwritten.
            let next = match view {
                View::Stopped { reason } => Mastery::Dead { reason: reason.clone() },
                View::Follows { leader } => Mastery::Follower { leader: *leader },
                View::Leads { term } if *term == confirmed && !self.handing_over.has_begun(*term) => {
                    Mastery::Leader { token: MasteryToken { term: *term } }
                }
                View::Leads { .. } => Mastery::Follower { leader: None },
            };
            let changed = *current != next;
            *current = next;
            changed
        });
    }
}

/// Until when no other leader can have been elected, by this replica's own clock and without a margin.
///
/// Counted from when the requests left that a quorum accepted last. None if this replica does not lead in that term.
#[allow(clippy::disallowed_methods, reason = "openraft counts leases in tokio's time")]
pub fn lease_end(
    metrics: &ServerMetricsReceiver,
    acks: &Acks,
    token: MasteryToken,
    lease: Duration,
) -> Option<Instant> {
    if view(&metrics.borrow_watched()) != (View::Leads { term: token.term }) {
        return None;
    }
    Some(acks.quorum_since(token.term, Instant::now())? + lease)
}
