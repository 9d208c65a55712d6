//! Whether the JSON report of a load test says what it must.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Checks the shape of a report, and that it reports no fault.
///
/// # Errors
/// The first thing that is missing or wrong.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let report: Value = serde_json::from_str(&text).context("parse the report")?;
    for place in [
        "/clients",
        "/proxies",
        "/cells",
        "/replicas",
        "/seconds",
        "/sessions/opened",
        "/sessions/lost",
        "/sessions/jeopardy",
        "/keepalive/sent_per_s",
        "/keepalive/at_proxies_per_s",
        "/keepalive/at_masters_per_s/a",
        "/keepalive/baseline_at_master_per_s_per_client",
        "/keepalive/reduction",
        "/ops/set_contents/p50_us",
        "/ops/get_stat/p99_us",
        "/processes/0/cpu_s",
        "/processes/0/rss_mib",
        "/violations",
    ] {
        number(&report, place)?;
    }
    let clients = number(&report, "/clients")?;
    ensure!(number(&report, "/sessions/opened")? >= clients, "not all sessions were opened");
    for fault in ["/sessions/lost", "/sessions/jeopardy", "/violations"] {
        ensure!(number(&report, fault)?.abs() < 0.5, "{fault} is not zero");
    }
    let proxies = number(&report, "/proxies")?;
    let reduction = number(&report, "/keepalive/reduction")?;
    let expected = clients / proxies / 2.0;
    ensure!(
        reduction > expected,
        "a reduction of {reduction:.0}, and {expected:.0} would be half of what it should be"
    );
    println!("{reduction:.0} times fewer KeepAlives at the busiest master; no session lost, no check failed");
    Ok(())
}

fn number(report: &Value, place: &str) -> anyhow::Result<f64> {
    let value = report.pointer(place).with_context(|| format!("the report has no {place}"))?;
    value.as_f64().with_context(|| format!("{place} is {value}, not a number"))
}
