//! What happened when: the same figures as at the end of a phase, looked at again and again, and what was done to the
//! servers meanwhile.
//!
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crew::CrewProgress;
use crate::measure::{Latencies, Summary};
use crate::window::Window;

/// Looks at most, in one phase.
const LOOKS: u32 = 120;
/// Between two looks, at least: CPU time is counted in steps of 10 ms.
const STEP_MIN: Duration = Duration::from_secs(1);

/// How long to wait from one look to the next when there are to be looks for this long.
pub fn step(duration: Duration) -> Duration {
    (duration / LOOKS).max(STEP_MIN)
}

/// One phase of a load test, from look to look.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// In order.
    pub samples: Vec<Sample>,
    /// In order.
    pub marks: Vec<Mark>,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Of the second look, since the load began.
    pub at_s: f64,
    /// Of all clients.
    pub ops_per_s: f64,
    /// Of the operations that ended in between; `None` if none did.
    pub latency: Option<Summary>,
    /// Sessions that went into jeopardy.
    pub jeopardy: u64,
    /// Received by all proxies of clients.
    pub at_proxies_per_s: Option<f64>,
    /// Received by all upper proxies; `None` if there are none.
    pub at_upper_proxies_per_s: Option<f64>,
    /// Received by each cell's masters.
    pub at_masters_per_s: BTreeMap<String, f64>,
    /// What each process used.
    pub processes: Vec<ProcessSample>,
}

/// What one process used between two looks.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSample {
    /// For people.
    pub name: String,
    /// `master`, `follower`, `upper-proxy`, `proxy` or `worker`.
    pub role: String,
    /// Of one core; `None` if it was not there both times.
    pub cpu_share: Option<f64>,
    /// At the second look.
    pub rss_mib: Option<f64>,
}

/// Something that was done to the system on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Since the load began.
    pub at_s: f64,
    /// For people.
    pub what: String,
}

impl Series {
    /// Adds what happened from one look, and one word of the clients, to the next.
    pub fn add(&mut self, at: Duration, window: &Window, progress: [CrewProgress; 2], recent: &Latencies) {
        let seconds = window.seconds();
        let [before, after] = progress.map(|progress| progress.all);
        let process = |process: crate::window::ProcessReport| ProcessSample {
            name: process.name,
            role: process.role,
            cpu_share: process.cpu_s.filter(|_| seconds > 0.0).map(|cpu_s| cpu_s / seconds),
            rss_mib: process.rss_mib,
        };
        self.samples.push(Sample {
            at_s: at.as_secs_f64(),
            ops_per_s: after.ops.saturating_sub(before.ops) as f64 / seconds.max(f64::EPSILON),
            latency: (!recent.is_empty()).then(|| recent.summary()),
            jeopardy: after.sessions.jeopardy.saturating_sub(before.sessions.jeopardy),
            at_proxies_per_s: window.at_proxies_per_s(),
            at_upper_proxies_per_s: window.at_upper_proxies_per_s(),
            at_masters_per_s: window.at_masters_per_s(),
            processes: window.processes(&BTreeMap::new()).into_iter().map(process).collect(),
        });
    }

    /// Something was done at that time.
    pub fn mark(&mut self, at: Duration, what: impl Into<String>) {
        self.marks.push(Mark { at_s: at.as_secs_f64(), what: what.into() });
    }

    /// What was done, for people.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.marks.iter().map(|mark| format!("at {:.1} s: {}", mark.at_s, mark.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Progress, Sessions};
    use crate::window::Snapshot;

    #[test]
    fn looks_are_no_closer_than_a_second_and_not_too_many() {
        assert_eq!(step(Duration::from_secs(10)), Duration::from_secs(1));
        assert_eq!(step(Duration::from_secs(1_200)), Duration::from_secs(10));
    }

    #[test]
    fn a_sample_is_what_came_between_two_looks() {
        let word = |ops: u64, jeopardy: u64| {
            let sessions = Sessions { jeopardy, ..Sessions::default() };
            CrewProgress { all: Progress { ops, sessions, ..Progress::default() }, ..CrewProgress::default() }
        };
        let looks = [0, 2_000].map(|millis| Snapshot::of_nobody(hasp_proto::time::Time::from_millis(millis)));
        let [before, after] = looks;
        let window = Window::new(Vec::new(), before, after);
        let mut recent = Latencies::new();
        recent.record(Duration::from_micros(70));
        let mut series = Series::default();

        series.mark(Duration::from_millis(1_500), "proxy-1 is killed");
        series.add(Duration::from_secs(2), &window, [word(100, 1), word(300, 4)], &recent);
        series.add(Duration::from_secs(4), &window, [word(300, 4), word(300, 4)], &Latencies::new());

        let [first, second] = &series.samples[..] else { panic!("two") };
        assert_eq!((first.ops_per_s, first.jeopardy, first.at_s), (100.0, 3, 2.0));
        assert_eq!(first.latency.map(|latency| (latency.count, latency.p50_us)), Some((1, 70)));
        assert_eq!((second.ops_per_s, second.latency), (0.0, None));
        assert_eq!(series.remarks().collect::<Vec<_>>(), ["at 1.5 s: proxy-1 is killed"]);
    }
}
