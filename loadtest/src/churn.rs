//! Clients that come and go: when each comes, how long it stays, and what is counted of it.
//!
//! Pure. Visits are an open loop, evenly spaced: each has an intended moment that does not wait for those before. A
//! rate is kept up if nineteen of twenty come and go as intended, the bound that the session experiments of
//! oxia-db/benchmark use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::{Latencies, Summary};
use crate::window::round;

/// Of the rate asked for: with less it is not kept up.
const KEPT_UP: f64 = 0.95;
/// Reasons kept of visits that failed.
const FAILURES_MAX: usize = 8;

/// How clients come and go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// So many come each second; after a while as many go.
    pub per_s: f64,
    /// How long each stays.
    pub stay: Duration,
    /// When the first comes, since the load began.
    pub after: Duration,
}

impl Churn {
    /// Clients that are there at a time, once as many go as come.
    pub fn at_once(self) -> usize {
        (self.per_s * self.stay.as_secs_f64()).ceil() as usize
    }

    /// The part of one of several workers: together they are what one would be alone.
    #[must_use]
    pub fn share(self, worker: usize, workers: usize) -> Self {
        let after = self.after + Duration::from_secs_f64(worker as f64 / self.per_s);
        Self { per_s: self.per_s / workers as f64, after, ..self }
    }

    /// When each is to come, since the load began, without end.
    pub fn arrivals(self) -> impl Iterator<Item = Duration> {
        (0_u64..).map(move |number| self.after + Duration::from_secs_f64(number as f64 / self.per_s))
    }
}

/// What came of the visits while the load was measured.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// From the intended start of each until it had its session and its ephemeral file.
    pub opened: Latencies,
    /// How long it took to end each session.
    pub closed: Latencies,
    /// Visits that did not come to their good end.
    pub failed: u64,
    failures: Vec<String>,
}

impl Visits {
    /// A visit failed.
    pub fn failed(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(why);
        }
    }

    /// Why, of the first few.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Adds what another process counted.
    pub fn merge(&mut self, other: &VisitsRecord) {
        self.opened.merge(&Latencies::from_pairs(&other.opened));
        self.closed.merge(&Latencies::from_pairs(&other.closed));
        self.failed += other.failed;
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.iter().take(room).cloned());
    }

    /// For another process.
    pub fn to_record(&self) -> VisitsRecord {
        VisitsRecord {
            opened: self.opened.to_pairs(),
            closed: self.closed.to_pairs(),
            failed: self.failed,
            failures: self.failures.clone(),
        }
    }
}

/// [`Visits`] as they travel between processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VisitsRecord {
    opened: Vec<(u64, u64)>,
    closed: Vec<(u64, u64)>,
    failed: u64,
    failures: Vec<String>,
}

/// What a report says of clients that came and went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChurnReport {
    /// Sessions to be opened each second, and as many ended.
    pub asked_per_s: f64,
    /// How long each stays.
    pub stay_s: f64,
    /// Opened each second.
    pub opened_per_s: f64,
    /// Ended each second, from when the first were due to go.
    pub closed_per_s: f64,
    /// Whether both rates were kept up.
    pub kept_up: bool,
    /// From the intended start of each until it had its session and its ephemeral file.
    pub open: Summary,
    /// How long it took to end each session.
    pub close: Summary,
    /// Visits that did not come to their good end.
    pub failed: u64,
    /// Ephemeral files of sessions that had ended, found afterwards.
    pub left_behind: u64,
}

impl ChurnReport {
    /// Of the visits in a load of that length.
    pub fn new(churn: Churn, seconds: f64, visits: &Visits, left_behind: u64) -> Self {
        let (open, close) = (visits.opened.summary(), visits.closed.summary());
        let per_s = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let opened_per_s = per_s(open.count, seconds);
        let closed_per_s = per_s(close.count, seconds - churn.stay.as_secs_f64());
        Self {
            asked_per_s: churn.per_s,
            stay_s: churn.stay.as_secs_f64(),
            opened_per_s: round(opened_per_s),
            closed_per_s: round(closed_per_s),
            kept_up: opened_per_s.min(closed_per_s) >= KEPT_UP * churn.per_s,
            open,
            close,
            failed: visits.failed,
            left_behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churn(per_s: f64) -> Churn {
        Churn { per_s, stay: Duration::from_secs(5), after: Duration::ZERO }
    }

    fn millis(millis: &[u64]) -> Vec<Duration> {
        millis.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn visits_are_evenly_spaced_and_workers_take_turns() {
        let of = |churn: Churn, count| churn.arrivals().take(count).collect::<Vec<_>>();

        assert_eq!(of(churn(4.0), 5), millis(&[0, 250, 500, 750, 1_000]));
        assert_eq!(of(churn(4.0).share(0, 2), 3), millis(&[0, 500, 1_000]));
        assert_eq!(of(churn(4.0).share(1, 2), 2), millis(&[250, 750]));
        assert_eq!((churn(4.0).at_once(), churn(0.5).at_once()), (20, 3));
    }

    fn report(opened: u64, closed: u64) -> ChurnReport {
        let mut visits = Visits::default();
        (0..opened).for_each(|_| visits.opened.record(Duration::from_millis(3)));
        (0..closed).for_each(|_| visits.closed.record(Duration::from_millis(1)));
        ChurnReport::new(churn(10.0), 25.0, &visits, 0)
    }

    #[test]
    fn a_rate_is_kept_up_if_nineteen_of_twenty_come_and_as_many_go_once_they_are_due() {
        let full = report(250, 200);

        assert_eq!((full.opened_per_s, full.closed_per_s, full.kept_up), (10.0, 10.0, true));
        assert!(report(238, 190).kept_up, "9.52 and 9.5 of 10 a second");
        assert!(!report(237, 200).kept_up, "9.48 came");
        assert!(!report(250, 189).kept_up, "9.45 went");
    }

    #[test]
    fn visits_survive_the_way_to_another_process_and_add_up() {
        let mut one = Visits::default();
        one.opened.record(Duration::from_micros(70));
        one.failed("connect: nobody".into());
        let text = serde_json::to_string(&one.to_record()).expect("plain data");

        let mut all = Visits::default();
        all.closed.record(Duration::from_micros(9));
        all.merge(&serde_json::from_str(&text).expect("the same"));
        all.merge(&one.to_record());

        assert_eq!((all.opened.count(), all.closed.count(), all.failed), (2, 1, 2));
        assert_eq!(all.failures(), ["connect: nobody", "connect: nobody"]);
    }
}
