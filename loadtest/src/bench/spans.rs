//! What went on at the same time as something else.
//!
//! Pure.

use std::time::Duration;

use hasp_proto::time::Time;

use crate::measure::Latencies;

/// From then until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub began: Time,
    /// Its end.
    pub ended: Time,
}

impl Span {
    /// How long it was.
    pub fn lasted(self) -> Duration {
        self.ended.saturating_since(self.began)
    }

    /// So much longer.
    #[must_use]
    pub fn and(self, more: Duration) -> Self {
        Self { ended: self.ended + more, ..self }
    }

    /// Whether some moment is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.began <= other.ended && other.began <= self.ended
    }
}

/// For each of these, the longest operation that overlaps it; zero if none does.
pub fn longest_overlapping(of: &[Span], operations: &[Span]) -> Vec<Duration> {
    let longest = |one: &Span| {
        let overlapping = operations.iter().filter(|operation| operation.overlaps(*one));
        overlapping.map(|operation| operation.lasted()).max().unwrap_or_default()
    };
    of.iter().map(longest).collect()
}

/// Latencies of the operations that overlap any of these, and of those that do not.
pub fn during_and_between(of: &[Span], operations: &[Span]) -> [Latencies; 2] {
    let [mut during, mut between] = [Latencies::new(), Latencies::new()];
    for operation in operations {
        let is_during = of.iter().any(|one| one.overlaps(*operation));
        if is_during { &mut during } else { &mut between }.record(operation.lasted());
    }
    [during, between]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(began: u64, ended: u64) -> Span {
        Span { began: Time::from_millis(began), ended: Time::from_millis(ended) }
    }

    #[test]
    fn a_pause_is_the_longest_operation_that_was_under_way_meanwhile() {
        let operations = [span(0, 90), span(95, 160), span(150, 155), span(400, 800)];

        let longest = longest_overlapping(&[span(100, 200), span(200, 300), span(350, 400)], &operations);

        assert_eq!(longest, [65, 0, 400].map(Duration::from_millis));
    }

    #[test]
    fn each_operation_is_counted_once() {
        let operations = [span(0, 90), span(95, 160), span(150, 155), span(400, 800)];

        let [during, between] = during_and_between(&[span(100, 200), span(100, 200)], &operations);

        assert_eq!((during.count(), between.count()), (2, 2));
        assert_eq!(span(1, 2).and(Duration::from_millis(3)), span(1, 5));
    }
}
