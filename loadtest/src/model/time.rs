//! True time, which only the world knows, what the nodes' clocks show of it, and how a node does what is due.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use hasp_proto::machine::Core;
use hasp_proto::time::{Time, micros};

const MILLION: u64 = 1_000_000;
/// How often a machine may say that something is due at one moment.
const ROUNDS_MAX: usize = 1_000;

/// Microseconds since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + micros(duration))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:06}", self.0 / MILLION, self.0 % MILLION)
    }
}

/// A clock that runs at a rate of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Microseconds that it counts in a million true ones.
    rate: u64,
}

impl Clock {
    /// A clock that gains so many millionths (loses, if negative).
    pub fn new(ppm: i64) -> Self {
        Self { rate: MILLION.checked_add_signed(ppm).expect("a rate near one") }
    }

    /// What it shows.
    pub const fn at(self, moment: Moment) -> Time {
        Time::from_micros(moment.0 * self.rate / MILLION)
    }

    /// The first moment at which it shows that time or a later one.
    pub fn when(self, time: Time) -> Moment {
        let passed = u128::from(time.as_micros()) * u128::from(MILLION);
        Moment(u64::try_from(passed.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX / 4))
    }
}

/// Lets a machine do what is due, takes the inputs in, and does what is due then, as the driver of the services does.
pub fn drive<C: Core>(
    core: &mut C,
    now: Time,
    inputs: impl IntoIterator<Item = C::Input>,
    outputs: &mut Vec<C::Output>,
) {
    do_what_is_due(core, now, outputs);
    for input in inputs {
        core.handle(now, input);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    do_what_is_due(core, now, outputs);
}

fn do_what_is_due<C: Core>(core: &mut C, now: Time, outputs: &mut Vec<C::Output>) {
    let is_due = |core: &C| core.poll_timeout().is_some_and(|(at, _)| at <= now);
    for _ in 0..ROUNDS_MAX {
        if !is_due(core) {
            return;
        }
        core.handle_timeout(now);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    panic!("a machine says for ever that something is due: {:?}", core.poll_timeout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_at_the_moment_that_the_clock_says_and_not_before() {
        for ppm in [-250_000, -9_900, 0, 3_333] {
            let clock = Clock::new(ppm);
            for deadline in [1, 999_999, 12_345_678].map(Time::from_micros) {
                let moment = clock.when(deadline);

                assert!(clock.at(moment) >= deadline, "{ppm}");
                assert!(clock.at(Moment(moment.0 - 1)) < deadline, "{ppm}");
            }
        }
    }
}
