//! From when on a rate is what it was before something was done.
//!
//! Pure.

use std::time::Duration;

/// Counts of something that goes on, looked at again and again.
#[derive(Clone, Debug)]
pub struct Rate {
    /// What one look is averaged over: the period of what is counted, since it may come in waves.
    period: Duration,
    /// When, since something was done, and how many by then; in order.
    counts: Vec<(Duration, u64)>,
}

impl Rate {
    /// Not looked at yet.
    pub const fn over(period: Duration) -> Self {
        Self { period, counts: Vec::new() }
    }

    /// So many by then.
    ///
    /// # Panics
    /// If either is less than at the look before.
    pub fn look(&mut self, at: Duration, count: u64) {
        if let Some((last_at, last)) = self.counts.last() {
            assert!(at >= *last_at && count >= *last, "counts only grow");
        }
        self.counts.push((at, count));
    }

    /// When, and per second over the period before; from the first look on that has a whole period before it.
    pub fn rates(&self) -> Vec<(Duration, f64)> {
        let rate = |(at, count): &(Duration, u64)| {
            let since = at.checked_sub(self.period)?;
            let (began, before) = self.counts.iter().rev().find(|(other, _)| *other <= since)?;
            Some((*at, (count - before) as f64 / (*at - *began).as_secs_f64()))
        };
        self.counts.iter().filter_map(rate).collect()
    }

    /// The most in any step from one look to the next, per second.
    pub fn greatest_per_s(&self) -> f64 {
        let steps = self.counts.windows(2).filter(|pair| pair[1].0 > pair[0].0);
        let rate =
            |pair: &[(Duration, u64)]| (pair[1].1 - pair[0].1) as f64 / (pair[1].0 - pair[0].0).as_secs_f64();
        steps.map(rate).fold(0.0, f64::max)
    }

    /// From when on the rate has stayed within this share of `wanted`, until the end; `None` if the last one is not.
    pub fn steady_from(&self, wanted: f64, share: f64) -> Option<Duration> {
        self.holds_from(|rate| (rate - wanted).abs() <= wanted * share)
    }

    /// From when on it has been no more than `wanted` and this share of it, until the end; `None` if the last one is.
    pub fn calm_from(&self, wanted: f64, share: f64) -> Option<Duration> {
        self.holds_from(|rate| rate <= wanted * (1.0 + share))
    }

    fn holds_from(&self, is_so: impl Fn(f64) -> bool) -> Option<Duration> {
        let rates = self.rates();
        rates.iter().rev().take_while(|(_, rate)| is_so(*rate)).last().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rate(period_s: u64, counts: &[(u64, u64)]) -> Rate {
        let mut rate = Rate::over(seconds(period_s));
        counts.iter().for_each(|(at, count)| rate.look(seconds(*at), *count));
        rate
    }

    #[test]
    fn a_rate_is_over_the_period_before_each_look() {
        let rate = rate(2, &[(0, 0), (1, 100), (2, 100), (3, 200), (4, 200)]);

        assert_eq!(rate.rates(), [(seconds(2), 50.0), (seconds(3), 50.0), (seconds(4), 50.0)]);
        assert_eq!(rate.greatest_per_s(), 100.0);
    }

    #[test]
    fn it_is_steady_from_the_first_look_after_which_none_strays() {
        let rate = rate(1, &[(0, 0), (1, 100), (2, 100), (3, 195), (4, 300)]);

        assert_eq!(rate.steady_from(100.0, 0.1), Some(seconds(3)), "nothing came in the second second");
        assert_eq!(rate.steady_from(100.0, 0.01), None, "105 in the last are too many");
        assert_eq!(rate.steady_from(100.0, 0.05), Some(seconds(3)));
    }

    #[test]
    fn it_is_calm_from_the_first_look_after_which_none_exceeds() {
        let rate = rate(1, &[(0, 0), (1, 200), (2, 200), (3, 300), (4, 310)]);

        assert_eq!(rate.calm_from(100.0, 0.1), Some(seconds(2)), "less is no trouble");
        assert_eq!(rate.steady_from(100.0, 0.1), None);
        assert_eq!(rate.calm_from(5.0, 0.1), None);
    }

    #[test]
    fn what_was_not_looked_at_for_a_period_has_no_rate() {
        assert_eq!(rate(8, &[(0, 0), (4, 400)]).rates(), []);
        assert_eq!(rate(8, &[(0, 0), (4, 400)]).steady_from(100.0, 0.5), None);
        assert_eq!(rate(8, &[]).greatest_per_s(), 0.0);
    }
}
