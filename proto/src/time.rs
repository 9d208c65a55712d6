//! Points in time as the pure machines see them: handed in by whoever drives them, never read.
//!
//! A [`Time`] is a duration since an origin that only its own process knows (rule `time-1`:
//! the wire carries durations, never points in time).

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on one process's monotonic clock, in microseconds since an origin of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);

    /// The point `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The point `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The last multiple of `step` that is not after this.
    pub fn rounded_down(self, step: Duration) -> Time {
        Time(self.0 - self.0 % micros(step).max(1))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(micros(duration)))
    }
}

/// Whole microseconds of a duration, as the wire carries them; the largest `u64` if it is longer.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Short for literal times in tests: `t(3_000)` is three seconds after the origin.
#[cfg(test)]
pub(crate) const fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}
