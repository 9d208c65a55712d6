//! How many clients a system holds: what is seen at each size, and what ends the search.
//!
//! Pure. Sessions are added step by step, and all of them go on with their load; each size is measured for a while. The
//! first size at which something bends ends it, and the one before is the largest that held.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::measure::Summary;

/// Sessions are to be opened at this share of the rate asked for, at least.
const OPEN_SHARE_MIN: f64 = 0.8;

/// What was seen at one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// Clients of this step and those before it.
    pub clients: usize,
    /// Of these, how many have ever had a session.
    pub opened: u64,
    /// Sessions that the step was to open each second.
    pub asked_per_s: f64,
    /// And did, from its first to its last.
    pub opened_per_s: f64,
    /// Until a client of the step had its session, from its intended start.
    pub open: Summary,
    /// Of the operations of all clients at this size.
    pub latency: Summary,
    /// Sessions that went into jeopardy since the step began.
    pub jeopardies: u64,
    /// Sessions lost since the step began.
    pub lost: u64,
    /// Operations and checks that failed since the step began.
    pub errors: u64,
    /// KeepAlives received by the busiest master.
    pub at_master_per_s: Option<f64>,
    /// CPU of the busiest master, in cores.
    pub master_cpu: Option<f64>,
    /// Length of the measurement at this size.
    pub seconds: f64,
}

/// Why a size does not hold. The first that applies is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bend {
    /// Not all sessions were opened in time.
    NotAllOpened(u64),
    /// Sessions were lost.
    Lost(u64),
    /// Sessions were in jeopardy.
    Jeopardy(u64),
    /// Operations failed.
    Errors(u64),
    /// Sessions were opened too slowly: so many a second, of so many.
    OpenRate(f64, f64),
    /// Of a hundred operations the slowest one took so long.
    Latency(Duration),
}

impl Bend {
    /// As programs know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAllOpened(_) => "not_all_opened",
            Self::Lost(_) => "sessions_lost",
            Self::Jeopardy(_) => "jeopardy",
            Self::Errors(_) => "errors",
            Self::OpenRate(..) => "open_rate",
            Self::Latency(_) => "latency",
        }
    }
}

impl fmt::Display for Bend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllOpened(opened) => write!(f, "only {opened} sessions were opened in time"),
            Self::Lost(count) => write!(f, "{count} sessions were lost"),
            Self::Jeopardy(count) => write!(f, "sessions were in jeopardy {count} times"),
            Self::Errors(count) => write!(f, "{count} operations failed"),
            Self::OpenRate(rate, asked) => {
                write!(f, "sessions were opened at {rate:.0} a second instead of {asked:.0}")
            }
            Self::Latency(p99) => {
                write!(f, "one operation in a hundred took {:.0} ms", p99.as_secs_f64() * 1e3)
            }
        }
    }
}

impl Step {
    /// What bends at this size; `None` if it holds.
    pub fn bend(&self, latency_max: Duration) -> Option<Bend> {
        let p99 = Duration::from_micros(self.latency.p99_us);
        let is_slow = self.opened_per_s < OPEN_SHARE_MIN * self.asked_per_s;
        let bends = [
            (self.opened < self.clients as u64).then_some(Bend::NotAllOpened(self.opened)),
            (self.lost > 0).then_some(Bend::Lost(self.lost)),
            (self.jeopardies > 0).then_some(Bend::Jeopardy(self.jeopardies)),
            (self.errors > 0).then_some(Bend::Errors(self.errors)),
            is_slow.then_some(Bend::OpenRate(self.opened_per_s, self.asked_per_s)),
            (p99 > latency_max).then_some(Bend::Latency(p99)),
        ];
        bends.into_iter().flatten().next()
    }
}

/// What came of the search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// The largest size at which nothing bent; `None` if the first did.
    pub held: Option<usize>,
    /// What ended it, as programs know it: a bend, or `maximum`.
    pub stopped_by: &'static str,
    /// The same for people.
    pub why: String,
    /// Every size that was measured, in order; the last one may be the one that did not hold.
    pub steps: Vec<Step>,
}

impl Capacity {
    /// Of these steps, in their order; those before the last have held.
    pub fn new(steps: Vec<Step>, latency_max: Duration) -> Self {
        let bend = steps.last().and_then(|last| Some((last.clients, last.bend(latency_max)?)));
        let (held, stopped_by, why) = match bend {
            Some((clients, bend)) => {
                let before = steps.len().checked_sub(2).map(|index| steps[index].clients);
                (before, bend.name(), format!("at {clients} clients {bend}"))
            }
            None => (
                steps.last().map(|last| last.clients),
                "maximum",
                "nothing bent up to the greatest number asked for".to_owned(),
            ),
        };
        Self { held, stopped_by, why, steps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY_MAX: Duration = Duration::from_millis(500);

    fn step(clients: usize) -> Step {
        Step {
            clients,
            opened: clients as u64,
            asked_per_s: 100.0,
            opened_per_s: 80.0,
            latency: Summary { count: 9, p50_us: 700, p99_us: 500_000, max_us: 9_000_000 },
            ..Step::default()
        }
    }

    fn bend(change: impl FnOnce(&mut Step)) -> Option<Bend> {
        let mut step = step(1_000);
        change(&mut step);
        step.bend(LATENCY_MAX)
    }

    #[test]
    fn a_size_holds_up_to_each_bound_and_bends_beyond_it() {
        assert_eq!(bend(|_| {}), None);

        assert_eq!(bend(|step| step.opened = 999), Some(Bend::NotAllOpened(999)));
        assert_eq!(bend(|step| step.lost = 1), Some(Bend::Lost(1)));
        assert_eq!(bend(|step| step.jeopardies = 2), Some(Bend::Jeopardy(2)));
        assert_eq!(bend(|step| step.errors = 3), Some(Bend::Errors(3)));
        assert_eq!(bend(|step| step.opened_per_s = 79.9), Some(Bend::OpenRate(79.9, 100.0)));
        let slow = Duration::from_micros(500_001);
        assert_eq!(bend(|step| step.latency.p99_us = 500_001), Some(Bend::Latency(slow)));
    }

    #[test]
    fn what_is_worse_is_told_first() {
        let told = bend(|step| (step.lost, step.jeopardies, step.latency.p99_us) = (1, 5, 9_000_000));

        assert_eq!(told.map(Bend::name), Some("sessions_lost"));
    }

    #[test]
    fn the_largest_size_that_held_is_the_one_before_the_bend() {
        let slow = Step { opened_per_s: 10.0, ..step(300) };

        let found = Capacity::new(vec![step(100), step(200), slow.clone()], LATENCY_MAX);
        assert_eq!((found.held, found.stopped_by), (Some(200), "open_rate"));
        assert_eq!(found.why, "at 300 clients sessions were opened at 10 a second instead of 100");

        let none = Capacity::new(vec![slow], LATENCY_MAX);
        assert_eq!((none.held, none.stopped_by), (None, "open_rate"));
    }

    #[test]
    fn without_a_bend_the_maximum_asked_for_held() {
        let found = Capacity::new(vec![step(100), step(200)], LATENCY_MAX);

        assert_eq!((found.held, found.stopped_by), (Some(200), "maximum"));
    }
}
