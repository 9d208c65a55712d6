//! How fast a counter grows, over the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Samples of a counter that only grows, within a sliding window.
#[derive(Clone, Debug)]
pub struct Rate {
    window: Duration,
    samples: VecDeque<(Time, u64)>,
}

impl Rate {
    /// No samples yet; those older than `window` are dropped, but for the youngest of them.
    pub fn over(window: Duration) -> Self {
        Self { window, samples: VecDeque::new() }
    }

    /// The counter stands here at this time.
    pub fn sample(&mut self, now: Time, count: u64) {
        self.samples.push_back((now, count));
        while self.samples.len() > 2 && now.saturating_since(self.samples[1].0) >= self.window {
            self.samples.pop_front();
        }
    }

    /// By how much the counter grew per second between the oldest and the newest sample.
    pub fn per_second(&self) -> f64 {
        let (Some((from, low)), Some((to, high))) = (self.samples.front(), self.samples.back()) else {
            return 0.0;
        };
        let seconds = to.saturating_since(*from).as_secs_f64();
        if seconds > 0.0 { (high.saturating_sub(*low)) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::t;

    #[test]
    fn the_rate_is_that_of_the_window() {
        let mut rate = Rate::over(Duration::from_secs(10));
        assert!(rate.per_second().abs() < 1e-9, "nothing known");
        for second in 0..=20 {
            let count = if second <= 10 { second * 1_000 } else { 10_000 + (second - 10) * 5 };
            rate.sample(t(second * 1_000), count);
        }

        assert!((rate.per_second() - 5.0).abs() < 1e-9, "{}", rate.per_second());
    }
}
