//! What has to be logged when: ends of lock-delays and claim windows, and marks of settled answers.
//!
//! The durations are in the replicated state, the points in time only here (`time-4`): a new master
//! starts every one of them in full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_proto::id::{Instance, SessionId};
use hasp_proto::limits::{CLAIM_WINDOW, LINGERS};
use hasp_proto::name::Name;
use hasp_proto::time::Time;

use crate::state::State;

/// How long marks of settled answers may wait for company.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// How often the replicas compare their states: a comparison reads all of it.
const COMPARE_INTERVAL: Duration = Duration::from_secs(600);

/// Something that becomes due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The lock-delay that began at this command.
    LockDelay { name: Name, instance: Instance, began: u64 },
    /// The claim window of a client whose proxy is gone.
    ClaimWindow { session: SessionId, orphaned_at: u64 },
    /// Marks of settled answers wait.
    FlushSettled,
    /// The replicas are to compare their states.
    Checksum,
    /// What lingers since this command or longer may be forgotten.
    Forget { since: u64 },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Time, Timer)>,
    running: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Starts every lock-delay that is not timed yet.
    pub(super) fn start_all_delays(&mut self, now: Time, state: &State) {
        for (name, instance, began, duration) in state.delayed_locks() {
            self.start(now + duration, Timer::LockDelay { name, instance, began });
        }
    }

    /// Starts everything that the state says is running.
    pub(super) fn start_all(&mut self, now: Time, state: &State) {
        self.start_all_delays(now, state);
        self.start_claim_windows(now, state);
        self.compare_later(now);
        self.forget_later(now, state.index());
    }

    /// What lingers at this command will have lingered long enough then.
    pub(super) fn forget_later(&mut self, now: Time, since: u64) {
        self.start(now + LINGERS, Timer::Forget { since });
    }

    pub(super) fn compare_later(&mut self, now: Time) {
        self.start(now + COMPARE_INTERVAL, Timer::Checksum);
    }

    /// Starts the lock-delays of one node that are not running yet.
    pub(super) fn start_delays(&mut self, now: Time, state: &State, name: &Name) {
        let Some(node) = state.node(name) else { return };
        for (began, duration) in node.lock.delays() {
            let timer = Timer::LockDelay { name: name.clone(), instance: node.instance, began };
            self.start(now + duration, timer);
        }
    }

    /// Starts the claim windows that are not running yet.
    pub(super) fn start_claim_windows(&mut self, now: Time, state: &State) {
        for (session, orphaned_at) in state.orphans() {
            self.start(now + CLAIM_WINDOW, Timer::ClaimWindow { session, orphaned_at });
        }
    }

    pub(super) fn flush_settled_soon(&mut self, now: Time) {
        self.start(now + SETTLE_PAUSE, Timer::FlushSettled);
    }

    pub(super) fn settled_flushed(&mut self) {
        if let Some(at) = self.running.remove(&Timer::FlushSettled) {
            self.by_time.remove(&(at, Timer::FlushSettled));
        }
    }

    pub(super) fn next(&self) -> Option<(Time, &'static str)> {
        let (at, timer) = self.by_time.first()?;
        let why = match timer {
            Timer::LockDelay { .. } => "a lock-delay is over",
            Timer::ClaimWindow { .. } => "a claim window is over",
            Timer::FlushSettled => "settled answers have waited long enough",
            Timer::Checksum => "the replicas compare their states",
            Timer::Forget { .. } => "records of clients may have lingered long enough",
        };
        Some((*at, why))
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.running.remove(&timer);
        Some(timer)
    }

    /// A timer that runs is not started again.
    fn start(&mut self, at: Time, timer: Timer) {
        if !self.running.contains_key(&timer) {
            self.running.insert(timer.clone(), at);
            self.by_time.insert((at, timer));
        }
    }
}
