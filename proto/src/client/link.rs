//! The connection to a host: which address is next, how long to wait for it, when to try again.

use std::time::Duration;

use crate::time::Time;

/// How long a connection may take to stand: about what is left of the lease when a silent host is left, so that a second
/// machine that is gone costs no jeopardy by itself.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a host may take to welcome. A master that creates a session commits it first.
const GREETING_PATIENCE: Duration = Duration::from_secs(4);
/// Both double with each host that was too slow, up to this; the second also each time that all targets have failed: where
/// thousands come at once, hosts would else do nothing but begin what is given up half done.
pub const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// How long to wait for a host to close the stream of a session that was ended.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// First pause after a failure; half as long again, up to the longest, each time that all targets have failed, or three of
/// more: then it is not one host that is down. So a pause is at most about a fifth of the time for which there was no host,
/// and those who all lost theirs at once leave the hosts time to start.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);
const ROUND_MAX: usize = 3;
/// Redirects followed without a pause.
const REDIRECTS_MAX: u32 = 3;

/// Number of an attempt to connect; what comes from an older one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

#[derive(Clone, Debug)]
pub(super) struct Link {
    state: State,
    attempts: u64,
    /// Index of the target in use or next to be used.
    next: usize,
    /// An address that a replica named, instead of the next target.
    redirect: Option<String>,
    redirects: u32,
    failures: u32,
    /// Attempts that took too long since the last Welcome.
    slow: u32,
    jitter: u64,
}

#[derive(Clone, Debug)]
enum State {
    Waiting {
        until: Time,
    },
    Connecting {
        attempt: Attempt,
        patience: Time,
    },
    Greeting {
        attempt: Attempt,
        sent: Time,
        patience: Time,
    },
    Live {
        attempt: Attempt,
    },
    /// The session was ended; the host closes the stream.
    Ending {
        attempt: Attempt,
        patience: Time,
    },
    Stopped,
}

impl Link {
    pub(super) fn new(jitter: u64) -> Self {
        Self {
            state: State::Waiting { until: Time::ZERO },
            attempts: 0,
            next: 0,
            redirect: None,
            redirects: 0,
            failures: 0,
            slow: 0,
            jitter,
        }
    }

    pub(super) fn target<'a>(&'a self, targets: &'a [String]) -> &'a str {
        match &self.redirect {
            Some(address) => address,
            None => &targets[self.next % targets.len()],
        }
    }

    /// The list of targets is about to be another one than `old`: what is under way goes on, and the first of the new ones
    /// is next, at once.
    pub(super) fn retarget(&mut self, old: &[String]) {
        if self.any().is_some() {
            self.redirect = Some(self.target(old).to_owned());
        }
        if let State::Waiting { until } = &mut self.state {
            *until = Time::ZERO;
        }
        self.next = 0;
    }

    pub(super) fn connect(&mut self, now: Time) -> Attempt {
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        let patience = now + patience(CONNECT_PATIENCE, self.slow);
        self.state = State::Connecting { attempt, patience };
        attempt
    }

    /// The connection stands; `false` if it is not the one waited for.
    pub(super) fn greet(&mut self, now: Time, connected: Attempt, targets: usize) -> bool {
        match self.state {
            State::Connecting { attempt, .. } if attempt == connected => {
                let patience = now + patience(GREETING_PATIENCE, self.slow + self.rounds(targets));
                self.state = State::Greeting { attempt, sent: now, patience };
                true
            }
            _ => false,
        }
    }

    /// The host welcomed us; returns when the Hello was sent.
    pub(super) fn welcomed(&mut self, by: Attempt) -> Option<Time> {
        match self.state {
            State::Greeting { attempt, sent, .. } if attempt == by => {
                self.state = State::Live { attempt };
                self.failures = 0;
                self.slow = 0;
                self.redirects = 0;
                Some(sent)
            }
            _ => None,
        }
    }

    pub(super) fn wait_for_end(&mut self, now: Time) {
        if let State::Live { attempt } = self.state {
            self.state = State::Ending { attempt, patience: now + END_PATIENCE };
        }
    }

    /// Pauses, then tries the next target.
    pub(super) fn failed(&mut self, now: Time, targets: usize) {
        if self.redirect.take().is_none() {
            self.next = (self.next + 1) % targets;
        }
        self.failures += 1;
        self.state = State::Waiting { until: now + self.pause(targets) };
    }

    /// A replica named the master: goes there at once, unless that has been tried often.
    pub(super) fn redirected(&mut self, now: Time, master: String, targets: usize) {
        if self.redirects >= REDIRECTS_MAX {
            self.redirects = 0;
            return self.failed(now, targets);
        }
        self.redirects += 1;
        self.redirect = Some(master);
        self.state = State::Waiting { until: now };
    }

    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    pub(super) fn is_pause_over(&self, now: Time) -> bool {
        matches!(self.state, State::Waiting { until } if now >= until)
    }

    /// The attempt that has taken too long, if it has.
    pub(super) fn take_too_slow(&mut self, now: Time) -> Option<Attempt> {
        match self.state {
            State::Connecting { attempt, patience }
            | State::Greeting { attempt, patience, .. }
            | State::Ending { attempt, patience }
                if now >= patience =>
            {
                self.slow += 1;
                Some(attempt)
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Connecting { patience, .. }
            | State::Greeting { patience, .. }
            | State::Ending { patience, .. } => Some(patience),
            State::Live { .. } | State::Stopped => None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live().is_some()
    }

    pub(super) fn live(&self) -> Option<Attempt> {
        match self.state {
            State::Live { attempt } => Some(attempt),
            _ => None,
        }
    }

    pub(super) fn any(&self) -> Option<Attempt> {
        match self.state {
            State::Connecting { attempt, .. }
            | State::Greeting { attempt, .. }
            | State::Live { attempt }
            | State::Ending { attempt, .. } => Some(attempt),
            State::Waiting { .. } | State::Stopped => None,
        }
    }

    pub(super) fn is(&self, attempt: Attempt) -> bool {
        self.any() == Some(attempt)
    }

    /// Grows with each round, times a factor between 1/2 and 1 that differs from client to client and
    /// time to time. Who comes to a host that is down first must not wait long for one that is up, nor sleep
    /// long when another replica has taken over after a second or two.
    fn pause(&mut self, targets: usize) -> Duration {
        let rounds = self.rounds(targets).min(12);
        let full = (PAUSE * 3_u32.pow(rounds) / 2_u32.pow(rounds)).min(PAUSE_MAX) / 2;
        self.jitter = splitmix(self.jitter);
        let fraction = u32::try_from(self.jitter >> 48).expect("16 bits");
        full + full * fraction / 65_536
    }

    /// How often all targets have failed, or three of more, since the last Welcome.
    fn rounds(&self, targets: usize) -> u32 {
        self.failures / u32::try_from(targets.clamp(1, ROUND_MAX)).expect("clamped")
    }
}

fn patience(least: Duration, doublings: u32) -> Duration {
    (least * 2_u32.pow(doublings.min(8))).min(PATIENCE_MAX)
}

/// One step of the SplitMix64 sequence: spreads pauses, decides nothing.
const fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::t;

    #[test]
    fn hosts_that_are_too_slow_are_given_more_time_until_one_welcomes() {
        let mut link = Link::new(7);
        let mut now = t(0);
        let mut waited = Vec::new();
        for _ in 0..4 {
            let attempt = link.connect(now);
            let patience = link.deadline().expect("it connects");
            waited.push(patience.saturating_since(now));
            assert_eq!(link.take_too_slow(patience - Duration::from_micros(1)), None);
            now = patience;
            assert_eq!(link.take_too_slow(now), Some(attempt));
            link.failed(now, 3);
            now = link.deadline().expect("it pauses");
        }
        assert_eq!(waited, [2, 4, 8, 10].map(Duration::from_secs));

        let attempt = link.connect(now);
        assert!(link.greet(now, attempt, 3));
        assert_eq!(link.deadline(), Some(now + PATIENCE_MAX), "greeting is given more time as well");
        link.welcomed(attempt).expect("it was greeting");
        link.failed(now, 3);
        link.connect(now);
        assert_eq!(link.deadline(), Some(now + CONNECT_PATIENCE), "as if nothing had been");
    }

    #[test]
    fn greetings_are_given_more_time_when_all_hosts_or_three_of_them_have_failed_though_none_was_slow() {
        let waits = |targets: usize, failures: u32| {
            let mut link = Link::new(7);
            for _ in 0..failures {
                link.connect(t(0));
                link.failed(t(0), targets);
            }
            let attempt = link.connect(t(0));
            let connecting = link.deadline().expect("it connects");
            assert_eq!(connecting, t(0) + CONNECT_PATIENCE, "another machine may be up");
            assert!(link.greet(t(0), attempt, targets));
            link.deadline().expect("it greets").saturating_since(t(0))
        };

        let seconds = |targets| [0, 1, 2, 3, 6].map(|failures| waits(targets, failures).as_secs());
        assert_eq!(seconds(9), [4, 4, 4, 8, 10]);
        assert_eq!(seconds(1), [4, 8, 10, 10, 10]);
    }

    /// The shortest and the longest that the pauses after that many failures can be, in milliseconds.
    fn pauses(targets: usize, failures: u32) -> (u128, u128) {
        let pauses = (0..200).map(|jitter| {
            let mut link = Link::new(jitter);
            for _ in 0..failures {
                link.failed(t(0), targets);
            }
            link.deadline().expect("it pauses").saturating_since(t(0)).as_millis()
        });
        let (shortest, longest) = (pauses.clone().min(), pauses.max());
        (shortest.expect("some"), longest.expect("some"))
    }

    #[test]
    fn pauses_grow_when_all_hosts_or_three_of_them_have_failed_and_differ_from_client_to_client() {
        assert_eq!(pauses(9, 2), (25, 49));
        assert_eq!(pauses(9, 3), (37, 74));
        assert_eq!(pauses(3, 5), pauses(9, 5), "three are enough to know");
        assert_eq!(pauses(1, 1), pauses(9, 3), "or all there are");
        assert_eq!(pauses(9, 1_000), (1_508, 2_995), "never longer than three seconds");
    }

    fn list<const N: usize>(targets: [&str; N]) -> Vec<String> {
        targets.map(str::to_owned).to_vec()
    }

    #[test]
    fn a_connection_keeps_its_host_when_the_list_changes_and_the_first_of_the_new_one_is_next() {
        let (old, new) = (list(["a", "b", "c"]), list(["d", "e"]));
        let mut link = Link::new(7);
        link.connect(t(0));
        link.failed(t(100), 3);
        let attempt = link.connect(t(200));
        assert_eq!(link.target(&old), "b");
        assert!(link.greet(t(300), attempt, 3));
        link.welcomed(attempt).expect("it was greeting");

        link.retarget(&old);
        assert_eq!(link.target(&new), "b", "it speaks with that one still");
        link.retarget(&new);
        assert_eq!(link.target(&old), "b", "whatever the list says meanwhile");
        link.failed(t(400), 2);

        assert_eq!(link.target(&new), "d");
    }

    #[test]
    fn who_is_not_connected_begins_with_the_first_of_a_new_list() {
        let (old, new) = (list(["a", "b", "c"]), list(["d", "e"]));
        let mut link = Link::new(7);
        link.connect(t(0));
        link.failed(t(100), 3);
        assert_eq!(link.target(&old), "b");

        assert!(!link.is_pause_over(t(100)));
        link.retarget(&old);

        assert_eq!(link.target(&new), "d");
        assert!(link.is_pause_over(t(100)), "these have not failed");
    }

    #[test]
    fn who_was_sent_to_the_master_goes_there_before_it_takes_up_a_new_list() {
        let (old, new) = (list(["a", "b"]), list(["d", "e"]));
        let mut link = Link::new(7);
        link.connect(t(0));
        link.redirected(t(100), "m".into(), 2);

        link.retarget(&old);
        assert_eq!(link.target(&new), "m");
        link.connect(t(100));
        link.failed(t(200), 2);

        assert_eq!(link.target(&new), "d");
    }
}
