//! Between the master's machine and Raft: elections and acknowledged quorums in, entries out,
//! outcomes in.
//!
//! It also hands mastership over when the cell stops. The order is what safety rests on: the machine gives its lease
//! up *before* the transfer begins, since whoever takes over does not wait for it, and the machine hears of no further
//! election.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hasp_proto::id::Epoch;
use hasp_proto::time::Time;
use hasp_rt::clock::Clock;
use hasp_rt::telemetry::trace::{self, Stage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::metrics::Commits;
use super::sessions::{MasterDriver, Proposed};
use crate::master::{BatchId, Input, MasterCore};
use crate::replica::{Mastery, MasteryToken, ProposeError, Replica, Timing};
use crate::state::{AppliedOutcome, State};

/// How far the two clocks may drift apart before the difference is taken for a suspend.
const SUSPEND: Duration = Duration::from_millis(20);

/// How long what was proposed may take to come to its end before the mastership is handed over.
const PROPOSED_PATIENCE: Duration = Duration::from_millis(500);

/// How long the new master may take to begin its epoch before clients are sent to it all the same.
const EPOCH_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at whether it has.
const EPOCH_TICK: Duration = Duration::from_millis(5);

type Outcomes = Result<Vec<AppliedOutcome>, ProposeError>;
type Proposing = Pin<Box<dyn Future<Output = (BatchId, Outcomes)> + Send>>;

/// Moves what Raft and the machine have to say to one another.
pub(super) struct Pump {
    replica: Arc<Replica<State>>,
    driver: Arc<MasterDriver>,
    lease: LeaseView,
    /// The election that the machine was last told of.
    token: Option<MasteryToken>,
    /// Since when the machine serves nobody any more, so that another can take over.
    leaving: Option<Leaving>,
    tick: Duration,
    commits: Commits,
    dead: watch::Sender<Option<String>>,
}

/// A replica that is about to leave its cell for a while.
struct Leaving {
    /// Until then what was proposed may come to its end.
    until: Instant,
    /// Who could take over.
    willing: Vec<u64>,
    /// Told when another leads, or nobody was found in time.
    done: oneshot::Sender<()>,
}

/// Asks a pump to hand the mastership over, if its replica has it.
pub(super) struct Leave {
    /// Who could take over at once.
    pub(super) willing: Vec<u64>,
    /// Told when that is done.
    pub(super) done: oneshot::Sender<()>,
}

impl Pump {
    pub(super) fn new(
        replica: Arc<Replica<State>>,
        driver: Arc<MasterDriver>,
        timing: Timing,
        clock: Arc<dyn Clock>,
        commits: Commits,
        dead: watch::Sender<Option<String>>,
    ) -> Self {
        let lease = LeaseView::new(replica.clone(), timing, clock);
        Self { replica, driver, lease, token: None, leaving: None, tick: timing.heartbeat / 2, commits, dead }
    }

    pub(super) fn lease_view(&self) -> LeaseView {
        self.lease.clone()
    }

    /// Runs until the replica is dead, has handed its mastership over, or the cell stops.
    pub(super) async fn run(
        mut self,
        mut proposed: mpsc::UnboundedReceiver<Proposed>,
        mut leave: mpsc::Receiver<Leave>,
    ) {
        let mut mastery = self.replica.mastery();
        let mut under_way: FuturesUnordered<Proposing> = FuturesUnordered::new();
        mastery.mark_changed();
        loop {
            self.commits.under_way(under_way.len());
            tokio::select! {
                biased;
                changed = mastery.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let mastery = mastery.borrow_and_update().clone();
                    if self.mastery_changed(mastery).is_break() {
                        return;
                    }
                }
                Some((batch, outcomes)) = under_way.next(), if !under_way.is_empty() => {
                    self.proposed(batch, outcomes);
                }
                Some(proposed) = proposed.recv() => under_way.push(self.propose(&proposed)),
                Some(asked) = leave.recv(), if self.leaving.is_none() => self.step_down(asked),
                () = tokio::time::sleep(self.tick) => {}
            }
            if let Some(leaving) = self.leaving.take_if(|leaving| leaving.is_due(&self.driver)) {
                self.hand_over(&leaving.willing).await;
                // Whoever asked may have run out of patience.
                let _ = leaving.done.send(());
                return;
            }
            if let Some(sent) = self.lease.acknowledged() {
                self.driver.input(Input::QuorumAcknowledged(sent));
            }
        }
    }

    fn step_down(&mut self, asked: Leave) {
        self.driver.input(Input::StepDown);
        let Leave { willing, done } = asked;
        self.leaving = Some(Leaving { until: instant_now() + PROPOSED_PATIENCE, willing, done });
    }

    async fn hand_over(&self, willing: &[u64]) {
        // Once more, for an entry rejected meanwhile makes the machine begin another epoch.
        self.driver.input(Input::StepDown);
        let epoch = self.replica.read(|state, _| state.epoch());
        let leader = match self.replica.hand_over(willing).await {
            Ok(leader) => {
                self.until_after(epoch).await;
                tracing::info!(leader, "handed over");
                Some(leader)
            }
            Err(error) => {
                tracing::debug!(%error, "no hand-over");
                match *self.replica.mastery().borrow() {
                    Mastery::Follower { leader } => leader,
                    Mastery::Leader { .. } | Mastery::Dead { .. } => None,
                }
            }
        };
        self.driver.input(Input::Deposed(leader));
    }

    /// Waits a little until the new master has begun its epoch, as this replica's log shows: clients that come to it
    /// earlier are sent away again, and maybe back here.
    async fn until_after(&self, epoch: Epoch) {
        let begun = async {
            while self.replica.read(|state, _| state.epoch()) <= epoch {
                tokio::time::sleep(EPOCH_TICK).await;
            }
        };
        if tokio::time::timeout(EPOCH_PATIENCE, begun).await.is_err() {
            tracing::debug!("the new master has not begun its epoch yet");
        }
    }

    fn mastery_changed(&mut self, mastery: Mastery) -> std::ops::ControlFlow<()> {
        match mastery {
            Mastery::Leader { token } if self.token == Some(token) => {}
            // The machine must not serve again: this leadership is about to be handed over.
            Mastery::Leader { .. } if self.leaving.is_some() => {}
            Mastery::Leader { token } => {
                self.lease.told_of(None);
                tracing::info!(term = token.term(), "elected");
                self.token = Some(token);
                let state = self.replica.read(|state, _| state.clone());
                self.driver.input(Input::Elected(state));
                self.lease.told_of(Some(token));
            }
            Mastery::Follower { leader } => {
                self.lease.told_of(None);
                if self.token.take().is_some() {
                    tracing::info!(?leader, "deposed");
                }
                self.driver.input(Input::Deposed(leader));
            }
            Mastery::Dead { reason } => {
                self.lease.told_of(None);
                tracing::error!(reason, "replica is out of service");
                self.driver.input(Input::Deposed(None));
                self.dead.send_replace(Some(reason));
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn propose(&self, Proposed { batch, entry, traces }: &Proposed) -> Proposing {
        let batch = *batch;
        let Some(token) = self.token else {
            return Box::pin(std::future::ready((batch, Err(ProposeError::NotLeader { leader: None }))));
        };
        let outcomes = self.replica.propose(token, entry.encode());
        let (commits, began) = (self.commits.clone(), instant_now());
        let follow = |asked| Some(trace::follow(Stage::Commit, "commit", asked)?.0);
        let steps: Vec<_> = traces.iter().filter_map(follow).collect();
        Box::pin(async move {
            let outcomes = outcomes.await;
            drop(steps);
            if outcomes.is_ok() {
                commits.committed(instant_now() - began);
            }
            (batch, outcomes)
        })
    }

    fn proposed(&self, batch: BatchId, outcomes: Outcomes) {
        let input = match outcomes {
            Ok(outcomes) => {
                let state = self.replica.read(|state, _| state.clone());
                Input::Applied(batch, outcomes, state)
            }
            Err(ProposeError::LeaseExpired | ProposeError::Overloaded | ProposeError::NotLeader { .. }) => {
                Input::NotProposed(batch)
            }
            Err(
                error @ (ProposeError::Unknown | ProposeError::Dead { .. } | ProposeError::TooLarge { .. }),
            ) => {
                tracing::warn!(%error, batch = batch.0, "entry lost");
                Input::Unknown(batch)
            }
        };
        self.driver.input(input);
    }
}

impl Leaving {
    fn is_due(&self, driver: &MasterDriver) -> bool {
        instant_now() >= self.until || driver.inspect(MasterCore::has_nothing_proposed)
    }
}

/// When a quorum last acknowledged this leader, by the clock that the machine goes by.
///
/// Raft counts on tokio's clock, which stands still while the machine is suspended; leases count on
/// one that does not (`time-5`). Both are read together, and an acknowledgement from before their
/// difference changed counts for nothing. Nor does one of an election that the machine has not been
/// told of: it would extend the lease of a mastership that another has followed.
#[derive(Clone)]
pub(super) struct LeaseView {
    replica: Arc<Replica<State>>,
    mastery: watch::Receiver<Mastery>,
    /// Term of the election that the machine was told of; 0 for none.
    told: Arc<AtomicU64>,
    promise: Duration,
    clock: Arc<dyn Clock>,
    anchor: Arc<Mutex<Anchor>>,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    time: Time,
    instant: Instant,
}

impl LeaseView {
    fn new(replica: Arc<Replica<State>>, timing: Timing, clock: Arc<dyn Clock>) -> Self {
        let anchor = Arc::new(Mutex::new(Anchor { time: clock.now(), instant: instant_now() }));
        let (mastery, told) = (replica.mastery(), Arc::default());
        Self { replica, mastery, told, promise: timing.election_max, clock, anchor }
    }

    fn told_of(&self, token: Option<MasteryToken>) {
        self.told.store(token.map_or(0, |token| token.term()), Ordering::SeqCst);
    }

    fn is_told(&self) -> bool {
        match *self.mastery.borrow() {
            Mastery::Leader { token } => token.term() == self.told.load(Ordering::SeqCst),
            Mastery::Follower { .. } | Mastery::Dead { .. } => false,
        }
    }

    /// The send time of the newest message that a quorum acknowledged, if this replica leads.
    pub(super) fn acknowledged(&self) -> Option<Time> {
        // Looked at before and after: terms only grow, so what is read in between is of that election.
        if !self.is_told() {
            return None;
        }
        let sent = self.replica.lease_end()? - self.promise;
        if !self.is_told() {
            return None;
        }
        let now = Anchor { time: self.clock.now(), instant: instant_now() };
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.acknowledged(now, sent)
    }
}

impl Anchor {
    fn acknowledged(&mut self, now: Anchor, sent: Instant) -> Option<Time> {
        let by_time = now.time.saturating_since(self.time);
        let by_instant = now.instant.saturating_duration_since(self.instant);
        if by_time.abs_diff(by_instant) > SUSPEND {
            *self = now;
        }
        sent.checked_duration_since(self.instant).map(|since| self.time + since)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "Raft counts on tokio's clock, and its instants are to be converted"
)]
fn instant_now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_acknowledgement_from_before_a_suspend_counts_for_nothing() {
        let start = instant_now();
        let t = |millis| Time::from_millis(millis);
        let mut anchor = Anchor { time: t(0), instant: start };
        let at = |time, instant| Anchor { time: t(time), instant: start + ms(instant) };

        assert_eq!(anchor.acknowledged(at(1_000, 1_000), start + ms(900)), Some(t(900)));

        // A minute passes that tokio's clock does not see.
        assert_eq!(anchor.acknowledged(at(61_100, 1_100), start + ms(1_050)), None, "sent before");
        assert_eq!(anchor.acknowledged(at(61_300, 1_300), start + ms(1_200)), Some(t(61_200)), "sent after");
    }
}
