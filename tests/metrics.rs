//! The tables of metrics in `docs/OPERATING.md` against what a proxy and a cell show to a scraper: each has all that
//! the other has.
#![allow(clippy::disallowed_methods, reason = "real files and ports are the point")]

use std::collections::BTreeSet;
use std::time::Duration;

use hasp_cell::service::{CellConfig, CellServer};
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proxy::{Proxy, ProxyConfig};
use hasp_rt::env::Env;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// To found a cell on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Name as it is shown, type, unit.
type Family = (String, String, String);

/// The rows of the table after a line of the document.
fn documented(heading: &str) -> BTreeSet<Family> {
    let text = include_str!("../docs/OPERATING.md");
    let (_, table) = text.split_once(heading).expect("the document has it");
    let rows = table.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
    let family = |row: &str| {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).skip(1);
        let mut next = || cells.next().expect("four columns");
        (next(), next(), next())
    };
    let families: Vec<_> = rows.map(family).collect();
    let set: BTreeSet<_> = families.iter().cloned().collect();
    assert_eq!(families.len(), set.len(), "none is listed twice");
    set
}

/// What an OpenMetrics page has.
fn shown(page: &str) -> BTreeSet<Family> {
    let of = |keyword: &str| -> Vec<(String, String)> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(keyword));
        lines.filter_map(|line| line.split_once(' ')).map(|(name, what)| (name.into(), what.into())).collect()
    };
    let units = of("# UNIT ");
    let family = |(name, kind): (String, String)| {
        let unit = units.iter().find(|(of, _)| *of == name).map_or("", |(_, unit)| unit).to_owned();
        let suffix = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{suffix}"), kind, unit)
    };
    of("# TYPE ").into_iter().map(family).collect()
}

async fn scrape(env: &Env, address: &str) -> String {
    let mut io = env.transport.connect(address).await.expect("it listens");
    io.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("it reads");
    let mut page = String::new();
    io.read_to_string(&mut page).await.expect("it answers");
    page
}

#[track_caller]
fn check(page: &str, heading: &str) {
    let (shown, documented) = (shown(page), documented(heading));
    let missing: Vec<_> = shown.difference(&documented).collect();
    assert!(missing.is_empty(), "shown and not in the table: {missing:#?}");
    let gone: Vec<_> = documented.difference(&shown).collect();
    assert!(gone.is_empty(), "in the table and not shown: {gone:#?}");
}

#[tokio::test]
async fn the_tables_of_metrics_are_what_is_shown() {
    let env = Env::system().expect("random numbers");
    let dir = tempfile::tempdir().expect("a directory");
    let listener = env.transport.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_address();
    let cells = [(CellName::new("a"), vec![address.clone()])];
    let map = PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells.into()).expect("a map");
    let mut config = CellConfig::new(CellName::new("a"), 1, &address, dir.path().into(), map.clone());
    config.admin = Some("127.0.0.1:0".into());
    let cell = CellServer::start_on(listener, config, &env).await.expect("it starts");
    let config = ProxyConfig {
        listen: "127.0.0.1:0".into(),
        advertise: None,
        map,
        upstream: Vec::new(),
        admin: Some("127.0.0.1:0".into()),
        terms: LeaseTerms::default(),
    };
    let proxy = Proxy::start(config, &env).await.expect("it starts");
    tokio::time::timeout(DEADLINE, proxy.ready()).await.expect("the cell is founded");

    let of_cell = scrape(&env, cell.admin().expect("asked for")).await;
    let of_proxy = scrape(&env, proxy.admin_address().expect("asked for")).await;

    check(&of_cell, "Cells, each replica for itself:");
    check(&of_proxy, "Proxies and routers:");
    let mut lines = of_cell.lines();
    assert!(lines.any(|line| line == "hasp_cell_serving 1"), "{of_cell}");
    let commits =
        of_cell.lines().find_map(|line| line.strip_prefix("hasp_cell_commits_total ")).expect("shown");
    assert!(commits.parse::<u64>().expect("a number") >= 2, "the epoch and the proxy's session: {commits}");
    let lease = of_proxy.lines().find_map(|line| {
        line.strip_prefix("hasp_upstream_session_lease_seconds{cell=\"a\"} ")?.parse::<f64>().ok()
    });
    assert!(lease.is_some_and(|left| (0.1..=60.0).contains(&left)), "{of_proxy}");
    proxy.shutdown().await.expect("it stops");
    cell.shutdown().await;
}
