//! How long leases have to be so that a host can afford its KeepAlives: it stretches them before it
//! sheds anything (`ka-4`, paper §3).
//!
//! Two signs of load: more sessions than can be kept at the usual rate, and being woken late. The
//! first is known beforehand; the second covers all that is not. A third is one session's own: that its KeepAlives come
//! late. A fourth is that many come at once from other hosts: letting one in costs as much as many KeepAlives, and those who
//! wait for it compete with the KeepAlives of those who are in.

use std::time::Duration;

use crate::limits::{ARRIVALS_PER_SECOND, KEEP_ALIVES_PER_SECOND, LEASE_MAX};
use crate::time::Time;

/// Woken this late, a host is overloaded.
const LATE: Duration = Duration::from_secs(1);
/// Leases shrink again after so long without having been late.
const CALM: Duration = Duration::from_secs(60);
/// Most doublings: from 12 s to beyond the maximum.
const DOUBLINGS_MAX: u32 = 3;

#[derive(Clone, Debug, Default)]
pub(super) struct Stretch {
    /// How often leases were doubled for lateness.
    doublings: u32,
    /// When that was last changed.
    changed: Time,
    /// The longest lease that was asked for.
    asked: Duration,
    /// Until then nothing could be granted, however early the host woke.
    excused: Time,
}

impl Stretch {
    /// The host was to wake up at `due` and does so now.
    pub(super) fn woke(&mut self, now: Time, due: Time) {
        let calm_for = now.saturating_since(self.changed);
        if now.saturating_since(due.max(self.excused)) >= LATE {
            // One storm counts once: what is granted from here on has to take effect first.
            if self.doublings == 0 || calm_for >= LATE * 10 {
                self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
            }
            self.changed = now;
        } else if self.doublings > 0 && calm_for >= CALM {
            self.doublings -= 1;
            self.changed = now;
        }
    }

    /// Nothing could be granted until now: what was due waited for that, not for the host.
    pub(super) fn excused(&mut self, now: Time) {
        self.excused = now;
    }

    /// The lease to grant, when it is `usual` without load.
    pub(super) fn lease(&self, usual: Duration, sessions: usize) -> Duration {
        // A KeepAlive comes every two thirds of a lease.
        let millis = sessions * 1_500 / KEEP_ALIVES_PER_SECOND;
        let for_sessions = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        let for_lateness = usual * 2_u32.pow(self.doublings);
        usual.max(for_sessions).max(for_lateness).min(LEASE_MAX.max(usual))
    }

    /// Whether to ask for leases of this length: once, until more is needed.
    pub(super) fn should_ask(&mut self, wanted: Duration) -> bool {
        let is_more = wanted > self.asked;
        if is_more {
            self.asked = wanted;
        }
        is_more
    }
}

/// How late one session's KeepAlives come: its holder, or the way to it, is overloaded. Longer leases leave both more time,
/// and cost nobody else anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lag {
    /// How often its leases were doubled.
    doublings: u8,
    /// KeepAlives since then that came in time.
    prompt: u8,
}

/// A KeepAlive that comes so long after the lease before it is late.
const LAG: Duration = Duration::from_secs(1);
/// After so many that are not, leases are halved again.
const PROMPT: u8 = 8;

impl Lag {
    /// A KeepAlive came so long after the lease before it.
    pub(super) fn was(&mut self, lag: Duration) {
        if lag >= LAG {
            let most = u8::try_from(DOUBLINGS_MAX).unwrap_or(u8::MAX);
            *self = Self { doublings: (self.doublings + 1).min(most), prompt: 0 };
        } else if self.doublings > 0 {
            self.prompt += 1;
            if self.prompt == PROMPT {
                *self = Self { doublings: self.doublings - 1, prompt: 0 };
            }
        }
    }

    /// The lease that it needs at least, when others get `usual`.
    pub(super) fn lease(&self, usual: Duration) -> Duration {
        (usual * 2_u32.pow(self.doublings.into())).min(LEASE_MAX.max(usual))
    }
}

/// How many sessions come to a host from others, second by second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// The latest second in which one came.
    second: u64,
    /// In that second.
    count: u32,
    /// In the one before it.
    before: u32,
}

impl Arrivals {
    /// One more has come.
    pub(super) fn one(&mut self, now: Time) {
        let (before, count) = self.seen(now);
        *self = Self { second: second(now), count: count + 1, before };
    }

    /// The lease to grant while so many come, when it is `usual` otherwise.
    pub(super) fn lease(&self, now: Time, usual: Duration) -> Duration {
        let (before, count) = self.seen(now);
        let most = LEASE_MAX.max(usual);
        usual.max((usual * before.max(count) / ARRIVALS_PER_SECOND).min(most))
    }

    /// How many came in the second before that of `now`, and in that one so far.
    fn seen(&self, now: Time) -> (u32, u32) {
        match second(now).saturating_sub(self.second) {
            0 => (self.before, self.count),
            1 => (self.count, 0),
            _ => (0, 0),
        }
    }
}

fn second(at: Time) -> u64 {
    at.as_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::t;

    const USUAL: Duration = Duration::from_secs(12);

    #[test]
    fn leases_grow_with_the_sessions_from_the_usual_to_the_longest() {
        let stretch = Stretch::default();
        let seconds = |sessions: usize| stretch.lease(USUAL, sessions).as_secs_f64();

        assert!((seconds(1) - 12.0).abs() < 1e-9);
        assert!((seconds(32_000) - 12.0).abs() < 1e-9);
        assert!((seconds(64_000) - 24.0).abs() < 1e-9);
        assert!((seconds(90_000) - 33.75).abs() < 1e-9);
        assert!((seconds(1_000_000) - 60.0).abs() < 1e-9);
    }

    #[test]
    fn a_host_that_wakes_late_doubles_its_leases_and_takes_it_back_when_it_is_calm() {
        let mut stretch = Stretch::default();
        stretch.woke(t(10_999), t(10_000));
        assert_eq!(stretch.lease(USUAL, 1), USUAL, "not late enough");

        stretch.woke(t(21_000), t(20_000));
        stretch.woke(t(22_500), t(21_000));
        assert_eq!(stretch.lease(USUAL, 1), USUAL * 2, "one storm counts once");
        for second in 4..8 {
            stretch.woke(t(second * 10_000 + 5_000), t(second * 10_000));
        }
        assert_eq!(stretch.lease(USUAL, 1), LEASE_MAX, "never longer than the maximum");

        for minute in 0..4 {
            stretch.woke(t(140_000 + minute * 60_000), t(140_000 + minute * 60_000));
        }
        assert_eq!(stretch.lease(USUAL, 1), USUAL);
    }

    #[test]
    fn waiting_for_leave_to_grant_is_not_lateness() {
        let mut stretch = Stretch::default();
        stretch.excused(t(60_000));

        stretch.woke(t(60_900), t(10_000));
        assert_eq!(stretch.lease(USUAL, 1), USUAL);

        stretch.woke(t(61_000), t(10_000));
        assert_eq!(stretch.lease(USUAL, 1), USUAL * 2);
    }

    #[test]
    fn a_session_that_lags_gets_longer_leases_until_it_has_been_prompt_for_a_while() {
        let mut lag = Lag::default();
        lag.was(Duration::from_millis(999));
        assert_eq!(lag.lease(USUAL), USUAL);

        lag.was(LAG);
        assert_eq!(lag.lease(USUAL), USUAL * 2);
        for _ in 0..9 {
            lag.was(LAG * 3);
        }
        assert_eq!(lag.lease(USUAL), LEASE_MAX, "never longer than the maximum");

        for _ in 0..u32::from(PROMPT) * DOUBLINGS_MAX - 1 {
            lag.was(Duration::ZERO);
        }
        assert_eq!(lag.lease(USUAL), USUAL * 2);
        lag.was(Duration::ZERO);
        assert_eq!(lag.lease(USUAL), USUAL);
    }

    #[test]
    fn a_late_keep_alive_makes_a_session_prove_itself_anew() {
        let mut lag = Lag::default();
        lag.was(LAG);
        for _ in 1..PROMPT {
            lag.was(Duration::ZERO);
        }
        lag.was(LAG);
        assert_eq!(lag.lease(USUAL), USUAL * 4);

        for _ in 1..PROMPT {
            lag.was(Duration::ZERO);
        }
        assert_eq!(lag.lease(USUAL), USUAL * 4);
        lag.was(Duration::ZERO);
        assert_eq!(lag.lease(USUAL), USUAL * 2);
    }

    #[test]
    fn leases_grow_with_the_sessions_that_come_in_a_second_and_for_the_second_after_it() {
        let mut arrivals = Arrivals::default();
        for _ in 0..ARRIVALS_PER_SECOND {
            arrivals.one(t(5_999));
        }
        assert_eq!(arrivals.lease(t(5_999), USUAL), USUAL);
        for _ in 0..ARRIVALS_PER_SECOND {
            arrivals.one(t(5_999));
        }
        assert_eq!(arrivals.lease(t(5_999), USUAL), USUAL * 2);
        assert_eq!(arrivals.lease(t(6_999), USUAL), USUAL * 2, "of the last full second, if more came then");
        arrivals.one(t(6_999));
        assert_eq!(arrivals.lease(t(6_999), USUAL), USUAL * 2);
        assert_eq!(arrivals.lease(t(7_000), USUAL), USUAL);

        for _ in 0..100 * ARRIVALS_PER_SECOND {
            arrivals.one(t(9_000));
        }
        assert_eq!(arrivals.lease(t(9_000), USUAL), LEASE_MAX, "never longer than the maximum");
        assert_eq!(arrivals.lease(t(11_000), USUAL), USUAL, "it is long ago");
    }

    #[test]
    fn more_is_asked_for_once() {
        let mut stretch = Stretch::default();

        assert!(stretch.should_ask(USUAL * 2));
        assert!(!stretch.should_ask(USUAL * 2));
        assert!(stretch.should_ask(USUAL * 3));
    }
}
