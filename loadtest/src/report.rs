//! What was found, as arithmetic and as JSON.
//!
//! Pure. The shape of the JSON is a contract: fields may be added, none changed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::capacity::Capacity;
use crate::check::Violations;
use crate::churn::ChurnReport;
use crate::job::{Checks, Sessions};
use crate::measure::{OpStats, Summary};
use crate::moves::{self, MovesReport};
use crate::options::Mode;
use crate::points::{self, Point};
use crate::series::Series;
use crate::window::{ProcessReport, round};
use crate::workload::{OpKind, Rates};

/// With fewer KeepAlives than this counted at a master, one more or less changes the reduction by a
/// fifth.
const KEEP_ALIVES_COUNTED_MIN: f64 = 6.0;

/// All that one phase of the load test measured: some clients under load for a while.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// How many clients.
    pub clients: usize,
    /// Whether they were straight at the masters.
    pub is_baseline: bool,
    /// Length of the measurement.
    pub seconds: f64,
    /// Of the clients.
    pub sessions: Sessions,
    /// How long it took until all clients had their sessions.
    pub ramp_seconds: f64,
    /// How long each client's session took, from its intended start.
    pub ramp: Summary,
    /// By all clients.
    pub sent_per_s: f64,
    /// At all proxies of clients together; `None` without proxies.
    pub at_proxies_per_s: Option<f64>,
    /// At all upper proxies together; `None` without.
    pub at_upper_proxies_per_s: Option<f64>,
    /// At each cell's master.
    pub at_masters_per_s: BTreeMap<String, f64>,
    /// Of the load's operations.
    pub ops: OpStats,
    /// How much was checked.
    pub checks: Checks,
    /// What the checks found.
    pub violations: Violations,
    /// Of every process.
    pub processes: Vec<ProcessReport>,
    /// For people.
    pub remarks: Vec<String>,
    /// What happened when.
    pub series: Series,
    /// Of clients that came and went, if there were any.
    pub churn: Option<ChurnReport>,
    /// Why some of their visits failed.
    pub visit_failures: Vec<String>,
    /// What came of moves, if there were any.
    pub moves: Option<MovesReport>,
    /// What came of the search for the greatest number of clients, if it was one.
    pub capacity: Option<Capacity>,
}

impl Phase {
    /// KeepAlives per second and client at a master, as the mean over the masters; `None` if there
    /// was nobody to ask.
    pub fn at_master_per_s_per_client(&self) -> Option<f64> {
        let masters = self.at_masters_per_s.len();
        let total: f64 = self.at_masters_per_s.values().sum();
        (masters > 0 && self.clients > 0).then(|| total / masters as f64 / self.clients as f64)
    }

    /// That the busiest master received too few KeepAlives for an exact reduction, if so.
    fn few_counted(&self) -> Option<String> {
        let busiest = self.at_masters_per_s.values().copied().reduce(f64::max)?;
        let count = (busiest * self.seconds).round();
        (count < KEEP_ALIVES_COUNTED_MIN).then(|| {
            format!("the busiest master received only {count} KeepAlives: a longer --duration makes the reduction exact")
        })
    }

    /// What the busiest master had to do, at each number of clients that was measured.
    pub fn points(&self) -> Vec<Point> {
        let proxied = !self.is_baseline;
        let point = |clients, seconds, at_master_per_s: Option<f64>, master_cpu| {
            Some(Point {
                clients,
                proxied,
                seconds: round(seconds),
                at_master_per_s: round(at_master_per_s?),
                master_cpu,
            })
        };
        match &self.capacity {
            Some(capacity) => {
                let measured = capacity.steps.iter().filter(|step| step.opened >= step.clients as u64);
                let of = |step: &crate::capacity::Step| {
                    point(step.clients, step.seconds, step.at_master_per_s, step.master_cpu)
                };
                measured.filter_map(of).collect()
            }
            None => {
                let cpu = points::master_cpu(&self.processes, self.seconds);
                let busiest = points::busiest(&self.at_masters_per_s);
                point(self.clients, self.seconds, busiest, cpu).into_iter().collect()
            }
        }
    }

    /// Why this phase is no success; empty if it is one.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = match &self.capacity {
            Some(capacity) => {
                // Something bends sooner or later: that is what was looked for.
                let none = capacity.held.is_none().then(|| format!("no size held: {}", capacity.why));
                none.into_iter().chain(self.violated()).collect()
            }
            None => self.failed(),
        };
        if let Some(churn) = &self.churn {
            if churn.failed > 0 {
                faults.push(format!("{} clients that came and went fared badly", churn.failed));
                faults.extend(self.visit_failures.iter().cloned());
            }
            if churn.left_behind > 0 {
                faults.push(format!("{} ephemeral files outlived their sessions", churn.left_behind));
            }
        }
        faults
    }

    fn violated(&self) -> Vec<String> {
        if self.violations.count == 0 {
            return Vec::new();
        }
        let count = format!("{} checks failed", self.violations.count);
        [count].into_iter().chain(self.violations.examples.iter().map(ToString::to_string)).collect()
    }

    fn failed(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let opened = self.sessions.opened;
        if opened != self.clients as u64 {
            faults.push(format!("{opened} of {} sessions were opened", self.clients));
        }
        if self.sessions.lost > 0 {
            faults.push(format!("{} sessions were lost", self.sessions.lost));
        }
        faults.extend(self.violated());
        faults.extend(self.moves.iter().flat_map(|report| moves::failures(&report.moves)));
        if self.ops.errors() + self.checks.errors > 0 {
            faults.push(format!("{} operations failed", self.ops.errors() + self.checks.errors));
            faults.extend(self.ops.failures().iter().cloned());
        }
        faults
    }
}

/// By how much proxies reduce the KeepAlives at the busiest master: what `clients` clients would
/// have sent it at the rate of the baseline, divided by what it received.
///
/// `None` without a baseline, or if the master received nothing.
pub fn reduction(
    baseline_per_s_per_client: Option<f64>,
    clients: usize,
    at_masters_per_s: &BTreeMap<String, f64>,
) -> Option<f64> {
    let busiest = at_masters_per_s.values().copied().fold(0.0, f64::max);
    (busiest > 0.0).then(|| baseline_per_s_per_client.map(|rate| rate * clients as f64 / busiest)).flatten()
}

/// What was asked for, as far as the report says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Proxies that clients connect to.
    pub proxies: usize,
    /// Proxies between those and the cells.
    pub upper_proxies: usize,
    /// Cells.
    pub cells: usize,
    /// Replicas of each.
    pub replicas: usize,
    /// For everything left to chance.
    pub seed: u64,
    /// Of every client.
    pub rates: Rates,
    /// Whether rare operations were raised above the paper's ratio.
    pub is_raised: bool,
}

/// The result of a load test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    clients: usize,
    proxies: usize,
    upper_proxies: usize,
    cells: usize,
    replicas: usize,
    seconds: f64,
    sessions: Sessions,
    keepalive: KeepAlives,
    ops: BTreeMap<&'static str, OpReport>,
    processes: Vec<ProcessReport>,
    violations: u64,
    violation_examples: Vec<String>,
    failures: Vec<String>,
    checks: Checks,
    ramp: Ramp,
    load: Load,
    churn: Option<ChurnReport>,
    moves: Option<MovesReport>,
    capacity: Option<Capacity>,
    points: Vec<Point>,
    baseline: Option<Baseline>,
    remarks: Vec<String>,
    faults: Vec<String>,
    seed: u64,
}

#[derive(Clone, Debug, Serialize)]
struct KeepAlives {
    sent_per_s: f64,
    at_proxies_per_s: Option<f64>,
    at_upper_proxies_per_s: Option<f64>,
    at_masters_per_s: BTreeMap<String, f64>,
    baseline_at_master_per_s_per_client: Option<f64>,
    reduction: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct OpReport {
    count: u64,
    errors: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Ramp {
    seconds: f64,
    sessions_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Load {
    ops_per_s_per_client: f64,
    wanted_per_s: BTreeMap<&'static str, f64>,
    rare_operations_raised: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Baseline {
    clients: usize,
    seconds: f64,
    sessions: Sessions,
    sent_per_s: f64,
    at_masters_per_s: BTreeMap<String, f64>,
    ops: BTreeMap<&'static str, OpReport>,
    processes: Vec<ProcessReport>,
    ramp: Ramp,
    violations: u64,
}

impl Report {
    /// Puts together what was measured: `main` through proxies, `baseline` straight at the masters.
    pub fn new(setting: &Setting, main: &Phase, baseline: Option<&Phase>) -> Self {
        let per_client = baseline.and_then(Phase::at_master_per_s_per_client);
        let reduction = reduction(per_client, main.clients, &main.at_masters_per_s);
        let of_baseline = |text: &String| format!("baseline: {text}");
        let faults = baseline.map(Phase::faults).unwrap_or_default();
        let faults = faults.iter().map(of_baseline).chain(main.faults()).collect();
        let remarks = baseline.map_or_else(Vec::new, |phase| phase.remarks.iter().map(of_baseline).collect());
        let mode = match (&main.capacity, &main.churn) {
            (Some(_), _) => Mode::Capacity,
            (None, Some(_)) => Mode::Churn,
            (None, None) => Mode::Hold,
        };
        Self {
            mode: mode.name(),
            clients: main.clients,
            proxies: setting.proxies,
            upper_proxies: setting.upper_proxies,
            cells: setting.cells,
            replicas: setting.replicas,
            seconds: round(main.seconds),
            sessions: main.sessions,
            keepalive: KeepAlives {
                sent_per_s: round(main.sent_per_s),
                at_proxies_per_s: main.at_proxies_per_s.map(round),
                at_upper_proxies_per_s: main.at_upper_proxies_per_s.map(round),
                at_masters_per_s: rounded(&main.at_masters_per_s),
                baseline_at_master_per_s_per_client: per_client.map(|rate| (rate * 1e6).round() / 1e6),
                reduction: reduction.map(round),
            },
            ops: op_reports(&main.ops, &setting.rates),
            processes: main.processes.clone(),
            violations: main.violations.count + baseline.map_or(0, |phase| phase.violations.count),
            violation_examples: main.violations.examples.iter().map(ToString::to_string).collect(),
            failures: main.ops.failures().to_vec(),
            checks: main.checks,
            ramp: ramp(main),
            load: Load::new(setting, main.clients),
            churn: main.churn.clone(),
            moves: main.moves.clone(),
            capacity: main.capacity.clone(),
            points: baseline.into_iter().chain([main]).flat_map(Phase::points).collect(),
            baseline: baseline.map(|phase| Baseline::new(phase, setting)),
            remarks: remarks
                .into_iter()
                .chain(main.remarks.iter().cloned())
                .chain(main.few_counted())
                .collect(),
            faults,
            seed: setting.seed,
        }
    }

    /// With what was measured besides, at other numbers of clients.
    #[must_use]
    pub fn with_others(mut self, others: &[Phase]) -> Self {
        let mut points: Vec<_> = others.iter().flat_map(Phase::points).collect();
        points.append(&mut self.points);
        self.points = points;
        for phase in others {
            let kind = if phase.is_baseline { "clients without proxies" } else { "clients" };
            let of_phase = |text: String| format!("{} {kind}: {text}", phase.clients);
            self.faults.extend(phase.faults().into_iter().map(of_phase));
            self.remarks.extend(phase.remarks.iter().cloned().map(of_phase));
            self.violations += phase.violations.count;
        }
        self
    }

    /// What the busiest master had to do, at each number of clients that was measured.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Why the load test is no success; empty if it is one.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// By how much the proxies reduce the KeepAlives at the busiest master.
    pub const fn reduction(&self) -> Option<f64> {
        self.keepalive.reduction
    }

    /// As JSON, for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data with text keys")
    }
}

impl Load {
    fn new(setting: &Setting, clients: usize) -> Self {
        let per_s = |kind: OpKind| (kind.name(), round(setting.rates.of(kind) * clients as f64));
        Self {
            ops_per_s_per_client: (setting.rates.total() * 1e6).round() / 1e6,
            wanted_per_s: OpKind::ALL.into_iter().map(per_s).collect(),
            rare_operations_raised: setting.is_raised,
        }
    }
}

impl Baseline {
    fn new(phase: &Phase, setting: &Setting) -> Self {
        Self {
            clients: phase.clients,
            seconds: round(phase.seconds),
            sessions: phase.sessions,
            sent_per_s: round(phase.sent_per_s),
            at_masters_per_s: rounded(&phase.at_masters_per_s),
            ops: op_reports(&phase.ops, &setting.rates),
            processes: phase.processes.clone(),
            ramp: ramp(phase),
            violations: phase.violations.count,
        }
    }
}

fn rounded(rates: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    rates.iter().map(|(cell, rate)| (cell.clone(), round(*rate))).collect()
}

fn ramp(phase: &Phase) -> Ramp {
    let Summary { p50_us, p99_us, max_us, count } = phase.ramp;
    let rate = if phase.ramp_seconds > 0.0 { count as f64 / phase.ramp_seconds } else { 0.0 };
    Ramp { seconds: round(phase.ramp_seconds), sessions_per_s: round(rate), p50_us, p99_us, max_us }
}

/// Of every operation that was wanted.
fn op_reports(ops: &OpStats, rates: &Rates) -> BTreeMap<&'static str, OpReport> {
    let wanted = OpKind::ALL.into_iter().filter(|kind| rates.of(*kind) > 0.0);
    wanted
        .map(|kind| {
            let (Summary { count, p50_us, p99_us, max_us }, errors) = ops.summary(kind);
            (kind.name(), OpReport { count, errors, p50_us, p99_us, max_us })
        })
        .collect()
}

mod table;

#[cfg(test)]
mod tests;
