//! The report for people.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::{KeepAlives, OpReport, Report};
use crate::capacity::Capacity;
use crate::churn::ChurnReport;
use crate::measure::Summary;
use crate::moves::MovesReport;
use crate::options::Mode;
use crate::points::Point;
use crate::window::ProcessReport;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { clients, proxies, cells, replicas, seconds, .. } = self;
        let upper = match self.upper_proxies {
            0 => String::new(),
            upper => format!(" behind {upper} upper ones"),
        };
        writeln!(
            f,
            "{clients} clients, {proxies} proxies{upper}, {cells} cells of {replicas} replicas, {seconds:.0} s under load\n"
        )?;
        if let Some(capacity) = &self.capacity {
            writeln!(f, "{}\n", steps(capacity))?;
            match capacity.held {
                Some(held) => writeln!(f, "{held} clients held; {}\n", capacity.why)?,
                None => writeln!(f, "no size held: {}\n", capacity.why)?,
            }
        }
        writeln!(f, "{}\n", self.summary())?;
        if let Some(churn) = &self.churn {
            writeln!(f, "{}\n", visits(churn))?;
        }
        if let Some(report) = &self.moves {
            writeln!(f, "{}\n", moves(report))?;
        }
        if self.points.len() > 2 {
            writeln!(f, "{}\n", points(&self.points))?;
        }
        writeln!(f, "{}\n", operations(self))?;
        writeln!(f, "{}", processes(&self.processes))?;
        self.load_note(f)?;
        for remark in &self.remarks {
            writeln!(f, "note: {remark}")?;
        }
        match self.faults.as_slice() {
            [] if self.mode == Mode::Capacity.name() => writeln!(f, "\nok: no check failed"),
            [] => writeln!(f, "\nok: no session lost, no check failed, no operation failed"),
            faults => faults.iter().try_for_each(|fault| writeln!(f, "FAILED: {fault}")),
        }
    }
}

impl Report {
    fn summary(&self) -> Table {
        let mut table = plain_table();
        let sessions = self.sessions;
        let opened = format!("{:.0} per second", self.ramp.sessions_per_s);
        row(&mut table, "sessions opened", sessions.opened.to_string(), &opened);
        row(&mut table, "  lost", sessions.lost.to_string(), "over although nobody asked");
        row(
            &mut table,
            "  in jeopardy",
            sessions.jeopardy.to_string(),
            "times a lease ended before the next came",
        );
        keep_alive_rows(&mut table, &self.keepalive, self.clients);
        let checks = self.checks;
        let checked = format!(
            "of {} answers, {} writes read back by others, {} exclusive holds",
            checks.reads, checks.writes_read_back, checks.exclusive_entries
        );
        row(&mut table, "checks failed", self.violations.to_string(), &checked);
        table
    }

    fn load_note(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate: f64 = self.load.wanted_per_s.values().sum();
        if rate == 0.0 {
            return writeln!(f, "\nload: KeepAlives only; no operations, and so no checks");
        }
        write!(
            f,
            "\nload besides KeepAlives: {rate:.1} operations per second over all clients, open loop; "
        )?;
        writeln!(f, "latencies count from the intended start")?;
        writeln!(
            f,
            "CPU us/KeepAlive: all CPU time, operations included; --rate 0 shows what KeepAlives alone cost"
        )?;
        if self.load.rare_operations_raised {
            writeln!(
                f,
                "mix: Chubby's (OSDI 2006, 4.1: KeepAlives 93%, all else 4.5%), rare operations raised to {} per \
                 second so that there is something to measure",
                crate::workload::FLOOR_PER_S
            )?;
        }
        Ok(())
    }
}

fn keep_alive_rows(table: &mut Table, keepalive: &KeepAlives, clients: usize) {
    let per_s = |rate: f64| format!("{rate:.2}/s");
    row(table, "KeepAlives sent by clients", per_s(keepalive.sent_per_s), "");
    if let Some(rate) = keepalive.at_proxies_per_s {
        row(table, "  received by the proxies", per_s(rate), "");
    }
    if let Some(rate) = keepalive.at_upper_proxies_per_s {
        row(table, "  received by the upper proxies", per_s(rate), "");
    }
    for (cell, rate) in &keepalive.at_masters_per_s {
        row(table, &format!("  received by the master of cell {cell}"), per_s(*rate), "");
    }
    match keepalive.baseline_at_master_per_s_per_client {
        Some(rate) => row(
            table,
            "  a master without proxies",
            per_s(rate * clients as f64),
            &format!("{rate:.4}/s per client, measured in the baseline"),
        ),
        None => row(table, "  a master without proxies", "?".into(), "no baseline was measured"),
    }
    match keepalive.reduction {
        Some(reduction) => row(table, "reduction", format!("{reduction:.0} x"), "at the busiest master"),
        None => row(table, "reduction", "?".into(), "needs a baseline, and masters that can be asked"),
    }
}

fn operations(report: &Report) -> Table {
    let headers = ["operation", "count", "errors", "p50 ms", "p99 ms", "max ms", "baseline p50", "p99"];
    let mut table = new_table(headers, 1);
    for (op, line) in &report.ops {
        let OpReport { count, errors, p50_us, p99_us, max_us } = line;
        let baseline = report.baseline.as_ref().and_then(|baseline| baseline.ops.get(op));
        let of_baseline =
            |pick: fn(&OpReport) -> u64| baseline.map_or_else(none, |line| ms(pick(line), line.count));
        table.add_row([
            (*op).to_owned(),
            count.to_string(),
            errors.to_string(),
            ms(*p50_us, *count),
            ms(*p99_us, *count),
            ms(*max_us, *count),
            of_baseline(|line| line.p50_us),
            of_baseline(|line| line.p99_us),
        ]);
    }
    table
}

fn processes(processes: &[ProcessReport]) -> Table {
    let headers =
        ["process", "role", "pid", "CPU s", "RSS MiB", "sessions", "CPU us/KeepAlive", "RSS KiB/session"];
    let mut table = new_table(headers, 2);
    for process in processes {
        table.add_row([
            process.name.clone(),
            process.role.clone(),
            process.pid.to_string(),
            known(process.cpu_s, 2),
            known(process.rss_mib, 1),
            process.sessions.to_string(),
            known(process.cpu_us_per_keepalive, 1),
            known(process.rss_kib_per_session, 1),
        ]);
    }
    table
}

/// Clients that came and went.
fn visits(churn: &ChurnReport) -> Table {
    let mut table =
        new_table(["clients that come and go", "asked /s", "done /s", "p50 ms", "p99 ms", "max ms"], 1);
    let mut line = |what: &str, per_s: f64, latency: Summary| {
        let Summary { count, p50_us, p99_us, max_us } = latency;
        let [p50, p99, max] = [p50_us, p99_us, max_us].map(|micros| ms(micros, count));
        let (asked, done) = (format!("{:.1}", churn.asked_per_s), format!("{per_s:.1}"));
        table.add_row([what.to_owned(), asked, done, p50, p99, max]);
    };
    line("sessions opened, with an ephemeral file", churn.opened_per_s, churn.open);
    line("sessions ended", churn.closed_per_s, churn.close);
    let verdict = if churn.kept_up { "the rate was kept up" } else { "the rate was NOT kept up" };
    let failed = format!("{} failed, {} files left behind", churn.failed, churn.left_behind);
    table.add_row([verdict.to_owned(), failed]);
    table
}

/// Prefixes that went from cell to cell.
fn moves(report: &MovesReport) -> Table {
    let mut table = plain_table();
    let MovesReport { asked, done, nodes, .. } = report;
    let failed = format!("{} failed; about {nodes} nodes each", asked - done);
    row(&mut table, "prefixes moved to another cell", format!("{done} of {asked}"), &failed);
    let of = |p50, max, unit: &str| format!("{} / {} {unit}", known(p50, 2), known(max, 2));
    let took = of(report.seconds_p50, report.seconds_max, "s");
    row(&mut table, "  change written until done, p50 / max", took, "");
    let paused = of(report.pause_ms_p50, report.pause_ms_max, "ms");
    row(
        &mut table,
        "  pause, p50 / max",
        paused,
        "longest time between two answered writes below the prefix",
    );
    table
}

/// What was seen at each number of clients on the way up.
fn steps(capacity: &Capacity) -> Table {
    let headers = [
        "clients",
        "opened /s",
        "asked /s",
        "open p99 ms",
        "p50 ms",
        "p99 ms",
        "jeopardy",
        "lost",
        "errors",
        "at master /s",
        "master CPU",
    ];
    let mut table = new_table(headers, 0);
    for step in &capacity.steps {
        table.add_row([
            step.clients.to_string(),
            format!("{:.0}", step.opened_per_s),
            format!("{:.0}", step.asked_per_s),
            ms(step.open.p99_us, step.open.count),
            ms(step.latency.p50_us, step.latency.count),
            ms(step.latency.p99_us, step.latency.count),
            step.jeopardies.to_string(),
            step.lost.to_string(),
            step.errors.to_string(),
            known(step.at_master_per_s, 2),
            known(step.master_cpu.map(|cores| cores * 100.0), 1),
        ]);
    }
    table
}

/// What the busiest master had to do at each number of clients.
fn points(points: &[Point]) -> Table {
    let headers = ["clients", "proxies", "KeepAlives/s at the busiest master", "its CPU, % of a core"];
    let mut table = new_table(headers, 0);
    for point in points {
        table.add_row([
            point.clients.to_string(),
            if point.proxied { "with" } else { "without" }.to_owned(),
            format!("{:.2}", point.at_master_per_s),
            known(point.master_cpu.map(|cores| cores * 100.0), 1),
        ]);
    }
    table
}

/// Columns from `numbers` on are numbers.
fn new_table<const N: usize>(headers: [&str; N], numbers: usize) -> Table {
    let mut table = plain_table();
    table.set_header(headers);
    for index in numbers..N {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

fn row(table: &mut Table, what: &str, value: String, remark: &str) {
    table.add_row([
        comfy_table::Cell::new(what),
        comfy_table::Cell::new(value).set_alignment(CellAlignment::Right),
        comfy_table::Cell::new(remark),
    ]);
}

/// A latency of `count` operations.
fn ms(micros: u64, count: u64) -> String {
    if count == 0 { none() } else { format!("{:.2}", micros as f64 / 1_000.0) }
}

fn known(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(none, |value| format!("{value:.digits$}"))
}

fn none() -> String {
    "-".to_owned()
}
