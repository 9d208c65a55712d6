//! Counting and timing of operations: one histogram per operation and process, not per client.
//!
//! Pure. Latencies are in microseconds from the *intended* start of an operation, so waiting that
//! the service causes before it is even asked counts too.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::workload::OpKind;

/// Longest latency told apart from longer ones; more than any deadline here.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Significant digits kept.
const DIGITS: u8 = 3;
/// Examples kept of failed operations.
const FAILURES_MAX: usize = 8;

/// Latencies of one kind of event.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("constant bounds are good"))
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What reports show of them.
    pub fn summary(&self) -> Summary {
        let at = |quantile| if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) };
        Summary { count: self.0.len(), p50_us: at(0.5), p99_us: at(0.99), max_us: self.0.max() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all of them out.
    pub fn take(&mut self) -> Self {
        let taken = self.clone();
        self.0.reset();
        taken
    }

    /// As pairs of latency and count, for another process.
    pub fn to_pairs(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Reads what [`Latencies::to_pairs`] gave.
    pub fn from_pairs(pairs: &[(u64, u64)]) -> Self {
        let mut latencies = Self::new();
        for (micros, count) in pairs {
            latencies.0.saturating_record_n((*micros).max(1), *count);
        }
        latencies
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// A few numbers of many latencies, in microseconds; all zero if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Half are not longer.
    pub p50_us: u64,
    /// 99 of 100 are not longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Latencies and failures of every operation.
#[derive(Clone, Debug, Default)]
pub struct OpStats {
    ops: BTreeMap<OpKind, OpStat>,
    /// Of all operations since somebody asked for it last.
    recent: Latencies,
    failures: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct OpStat {
    latencies: Latencies,
    errors: u64,
}

impl OpStats {
    /// An operation succeeded.
    pub fn succeeded(&mut self, kind: OpKind, latency: Duration) {
        self.ops.entry(kind).or_default().latencies.record(latency);
        self.recent.record(latency);
    }

    /// Latencies of all operations since this was asked last.
    pub fn take_recent(&mut self) -> Latencies {
        self.recent.take()
    }

    /// An operation failed.
    pub fn failed(&mut self, kind: OpKind, why: &str) {
        self.ops.entry(kind).or_default().errors += 1;
        self.note_failure(format!("{kind}: {why}"));
    }

    /// Something else failed; kept for people, if it is among the first.
    pub fn note_failure(&mut self, what: String) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(what);
        }
    }

    /// Adds what another process counted.
    ///
    /// # Errors
    /// An operation this program does not know.
    pub fn merge(&mut self, other: &OpRecord) -> anyhow::Result<()> {
        for line in &other.ops {
            let kind = OpKind::ALL.into_iter().find(|kind| kind.name() == line.op);
            let stat =
                self.ops.entry(kind.with_context(|| format!("read operation {:?}", line.op))?).or_default();
            stat.latencies.merge(&Latencies::from_pairs(&line.latencies));
            stat.errors += line.errors;
        }
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.iter().take(room).cloned());
        Ok(())
    }

    /// For another process.
    pub fn to_record(&self) -> OpRecord {
        let ops = self.ops.iter().map(|(kind, stat)| OpLine {
            op: kind.name().to_owned(),
            errors: stat.errors,
            latencies: stat.latencies.to_pairs(),
        });
        OpRecord { ops: ops.collect(), failures: self.failures.clone() }
    }

    /// Latencies of all operations together.
    pub fn all(&self) -> Latencies {
        let mut all = Latencies::new();
        self.ops.values().for_each(|stat| all.merge(&stat.latencies));
        all
    }

    /// Operations that succeeded.
    pub fn count(&self) -> u64 {
        self.ops.values().map(|stat| stat.latencies.count()).sum()
    }

    /// Operations that failed.
    pub fn errors(&self) -> u64 {
        self.ops.values().map(|stat| stat.errors).sum()
    }

    /// The first few failures, for people.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// What reports show of one operation, and its errors.
    pub fn summary(&self, kind: OpKind) -> (Summary, u64) {
        self.ops.get(&kind).map_or_else(Default::default, |stat| (stat.latencies.summary(), stat.errors))
    }
}

/// [`OpStats`] as they travel between processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpRecord {
    ops: Vec<OpLine>,
    failures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OpLine {
    op: String,
    errors: u64,
    latencies: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }

        let summary = latencies.summary();

        assert_eq!((summary.count, summary.p50_us, summary.p99_us, summary.max_us), (1_000, 500, 990, 1_000));
        assert_eq!(Latencies::new().summary(), Summary::default());
    }

    #[test]
    fn statistics_survive_the_way_to_another_process_and_add_up() {
        let mut one = OpStats::default();
        one.succeeded(OpKind::Open, Duration::from_micros(100));
        one.failed(OpKind::Open, "Unavailable: the host is gone");
        let mut other = OpStats::default();
        other.succeeded(OpKind::Open, Duration::from_micros(300));
        other.succeeded(OpKind::GetStat, Duration::from_secs(3_600));

        assert_eq!((one.take_recent().count(), one.take_recent().count()), (1, 0));
        let text = serde_json::to_string(&one.to_record()).expect("plain data");
        other.merge(&serde_json::from_str(&text).expect("the same")).expect("known operations");

        let (open, errors) = other.summary(OpKind::Open);
        assert_eq!((open.count, open.p50_us, open.max_us, errors), (2, 100, 300, 1));
        assert_eq!((other.count(), other.errors()), (3, 1));
        assert_eq!(other.all().summary().count, 3);
        assert_eq!(other.failures(), ["open: Unavailable: the host is gone"]);
    }

    #[test]
    fn an_operation_unknown_here_is_refused() {
        let foreign: OpRecord =
            serde_json::from_str(r#"{"ops":[{"op":"fly","errors":0,"latencies":[]}],"failures":[]}"#)
                .expect("shape");

        let error = OpStats::default().merge(&foreign).expect_err("refused");

        assert!(error.to_string().contains("fly"), "{error}");
    }
}
