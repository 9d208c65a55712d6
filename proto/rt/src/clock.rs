//! The one place where time is read.
//!
//! Machines are handed a [`Time`]; shells read it here and sleep here. The rules of the protocol
//! that this file keeps are `time-5` (monotonic, runs through a suspend) and, for tests, the
//! freedom to let two processes' clocks run at different rates. It does not know what any
//! deadline is for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hasp_proto::time::Time;

/// How long a sleep may last before the clock is looked at again: bounds how late a sleeper
/// notices that the machine was suspended, since timers of the kernel stand still meanwhile.
const RECHECK: Duration = Duration::from_secs(1);

/// A monotonic clock of one process.
pub trait Clock: Send + Sync {
    /// The present time; never before what an earlier call returned.
    fn now(&self) -> Time;

    /// Completes once [`now`](Clock::now) has reached `deadline`; at once if it has already.
    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()>;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }
}

/// The clock of production: the kernel's time since boot, suspends included.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    fn read() -> Time {
        let since_boot = nix::time::clock_gettime(BOOTTIME)
            .expect("the kernel has had this clock since before any Rust target needs it");
        Time::ZERO + Duration::from(since_boot)
    }
}

/// Counts through a suspend. On macOS the plain monotonic clock does so.
#[cfg(target_os = "linux")]
const BOOTTIME: nix::time::ClockId = nix::time::ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const BOOTTIME: nix::time::ClockId = nix::time::ClockId::CLOCK_MONOTONIC;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Self::read()
    }

    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let left = deadline.saturating_since(Self::read());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(RECHECK)).await;
            }
        })
    }
}

/// The clock of tests and simulations: tokio's own, which may be paused or simulated.
///
/// The origin is the moment of its making.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows zero now.
    #[allow(clippy::disallowed_methods, reason = "this module is where time is read")]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()> {
        let instant = self.origin + deadline.saturating_since(Time::ZERO);
        Box::pin(tokio::time::sleep_until(instant))
    }
}

/// A clock that runs at another rate than the one inside it, and can be made to jump ahead.
///
/// For tests of the clock-rate bound. A copy shows, and changes, the same clock.
#[derive(Clone)]
pub struct SkewedClock {
    inner: Arc<dyn Clock>,
    skew: Arc<Mutex<Skew>>,
}

/// What is shown is `shown + (inner - since) * parts_per_million / 1_000_000`.
#[derive(Clone, Copy)]
struct Skew {
    since: Time,
    shown: Time,
    parts_per_million: u64,
}

impl Skew {
    fn show(&self, inner: Time) -> Time {
        let passed = inner.saturating_since(self.since).as_micros();
        self.shown + micros(passed * u128::from(self.parts_per_million) / 1_000_000)
    }

    /// How long the inner clock takes until this one shows `deadline`; rounded up.
    fn until(&self, inner: Time, deadline: Time) -> Duration {
        let left = deadline.saturating_since(self.show(inner)).as_micros();
        micros((left * 1_000_000).div_ceil(u128::from(self.parts_per_million)))
    }
}

fn micros(micros: u128) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

impl SkewedClock {
    /// Shows `offset` more than `inner`, and runs at `parts_per_million` of its rate from now on.
    ///
    /// # Panics
    /// If the rate is zero: nobody would ever wake.
    pub fn new(inner: Arc<dyn Clock>, offset: Duration, parts_per_million: u64) -> Self {
        assert!(parts_per_million > 0, "a clock that stands still wakes nobody");
        let since = inner.now();
        let skew = Skew { since, shown: since + offset, parts_per_million };
        Self { inner, skew: Arc::new(Mutex::new(skew)) }
    }

    /// Runs at `parts_per_million` of the inner rate from now on.
    ///
    /// # Panics
    /// If the rate is zero.
    pub fn set_rate(&self, parts_per_million: u64) {
        assert!(parts_per_million > 0, "a clock that stands still wakes nobody");
        self.rebase(Duration::ZERO, Some(parts_per_million));
    }

    /// Jumps ahead, as after a suspend. Sleepers notice within a second of the inner clock.
    pub fn jump(&self, ahead: Duration) {
        self.rebase(ahead, None);
    }

    fn rebase(&self, ahead: Duration, rate: Option<u64>) {
        let inner = self.inner.now();
        let mut skew = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        skew.shown = skew.show(inner) + ahead;
        skew.since = inner;
        skew.parts_per_million = rate.unwrap_or(skew.parts_per_million);
    }

    fn skew(&self) -> Skew {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Time {
        self.skew().show(self.inner.now())
    }

    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            loop {
                let left = clock.skew().until(clock.inner.now(), deadline);
                if left.is_zero() {
                    return;
                }
                clock.inner.sleep(left.min(RECHECK)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back() {
        let mut last = SystemClock.now();

        for _ in 0..1_000 {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[tokio::test]
    async fn a_system_sleep_ends_only_after_its_deadline_by_the_same_clock() {
        let deadline = SystemClock.now() + Duration::from_millis(5);

        SystemClock.sleep_until(deadline).await;

        assert!(SystemClock.now() >= deadline);
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_does_not_wait() {
        SystemClock.sleep_until(Time::ZERO).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_starts_at_zero_and_follows_paused_time() {
        let clock = TokioClock::new();
        assert_eq!(clock.now(), Time::ZERO);

        clock.sleep_until(Time::from_millis(3_000)).await;

        assert_eq!(clock.now(), Time::from_millis(3_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_clock_makes_its_sleeper_wait_longer() {
        let fair = TokioClock::new();
        let slow = SkewedClock::new(Arc::new(fair), Duration::ZERO, 990_000);

        slow.sleep(Duration::from_millis(9_900)).await;

        assert_eq!(fair.now(), Time::from_millis(10_000));
        assert_eq!(slow.now(), Time::from_millis(9_900));
    }

    #[tokio::test(start_paused = true)]
    async fn changing_the_rate_does_not_move_what_is_shown() {
        let clock = SkewedClock::new(Arc::new(TokioClock::new()), Duration::from_secs(7), 1_010_000);
        clock.sleep(Duration::from_secs(100)).await;
        let before = clock.now();

        clock.set_rate(500_000);

        assert_eq!(clock.now(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_notices_a_jump_within_a_second() {
        let fair = TokioClock::new();
        let clock = SkewedClock::new(Arc::new(fair), Duration::ZERO, 1_000_000);
        let sleeper = clock.sleep(Duration::from_secs(3_600));

        clock.jump(Duration::from_secs(7_200));
        sleeper.await;

        assert!(fair.now() <= Time::from_millis(1_000));
    }
}
