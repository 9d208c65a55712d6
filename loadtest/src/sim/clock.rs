//! True time, which only the world knows, and the clocks that nodes go by.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use hasp_proto::time::{Time, micros};

/// Microseconds since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// So many seconds after the beginning.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// How long after an earlier one; nothing if it was not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + micros(duration))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

const MILLION: u64 = 1_000_000;

/// A clock that began somewhere and runs at its own rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: u64,
    /// Microseconds that it counts in a million true ones.
    rate: u64,
}

impl Clock {
    /// A clock that showed `offset` when the world began and gains `ppm` (loses, if negative).
    pub fn new(offset: Duration, ppm: i64) -> Self {
        let rate = MILLION.checked_add_signed(ppm).expect("a rate near one");
        Self { offset: micros(offset), rate }
    }

    /// What it shows.
    pub fn at(&self, moment: Moment) -> Time {
        let passed = u128::from(moment.0) * u128::from(self.rate) / u128::from(MILLION);
        Time::from_micros(self.offset + u64::try_from(passed).expect("worlds last minutes"))
    }

    /// The first moment at which it shows that time or a later one.
    pub fn when(&self, time: Time) -> Moment {
        let passed = u128::from(time.as_micros().saturating_sub(self.offset)) * u128::from(MILLION);
        let moment = passed.div_ceil(u128::from(self.rate));
        Moment(u64::try_from(moment).unwrap_or(u64::MAX / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_at_the_moment_that_the_clock_says_and_not_before() {
        for ppm in [-4_500, 0, 3_333] {
            let clock = Clock::new(Duration::from_secs(1_234), ppm);
            for deadline in [1_234_000_001, 1_235_700_123, 1_300_000_000].map(Time::from_micros) {
                let moment = clock.when(deadline);

                assert!(clock.at(moment) >= deadline, "{ppm}");
                assert!(clock.at(Moment(moment.0 - 1)) < deadline, "{ppm}");
            }
        }
    }
}
