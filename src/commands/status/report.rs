//! The answers of many servers, put together by cell and shown.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use comfy_table::{Table, presets};
use hasp_proto::wire::admin::v1::status_reply::Server;
use hasp_proto::wire::admin::v1::{HostStatus, Load, ReplicaStatus, StatusReply};
use serde::Serialize;

use super::gather::Found;

/// What is shown of a server that does not answer.
const UNREACHABLE: &str = "unreachable";

/// All cells and all proxies and routers.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    cells: Vec<Cell>,
    proxies: Vec<Host>,
    /// Servers that were named but did not answer, and why.
    unreachable: Vec<Unreachable>,
}

/// One cell, as its master and its replicas see it.
#[derive(Debug, Default, Serialize)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// Address of the master; nothing if no replica that answers serves as one.
    pub master: Option<String>,
    epoch: u64,
    replicas: Vec<Replica>,
    /// How many nodes it holds, as its master has it.
    pub nodes: u64,
    /// How many sessions with the master.
    pub sessions: u64,
    keepalives_per_s: f64,
    /// What load the master says that the cell bears, if it was asked.
    #[serde(skip)]
    pub load: Option<Load>,
}

#[derive(Debug, Serialize)]
struct Replica {
    id: Option<u64>,
    address: String,
    state: String,
    applied: Option<u64>,
}

/// A proxy or router; no numbers if it does not answer.
#[derive(Debug, Serialize)]
struct Host {
    address: String,
    role: String,
    /// How many hosts there are on the way to a cell, itself included.
    layer: Option<usize>,
    /// Hosts with one of which it has its session; none if it has one with each cell.
    upstream: Option<Vec<String>>,
    sessions: Option<u64>,
    upstream_sessions: Option<u64>,
    keepalives_per_s: Option<f64>,
}

/// A server that somebody names and that does not answer.
#[derive(Clone, Debug, Serialize)]
pub struct Unreachable {
    address: String,
    why: String,
}

impl Report {
    /// Puts the answers together. Cells by name; replicas and proxies by address.
    pub fn new(found: &Found) -> Self {
        let mut cells = BTreeMap::<String, Cell>::new();
        let mut hosts = BTreeMap::<String, Host>::new();
        let layers = found.layers();
        for (address, answer) in &found.answers {
            match answer {
                Ok(StatusReply { server: Some(Server::Replica(status)), .. }) => {
                    let cell = cells.entry(status.cell.clone()).or_default();
                    cell.take(or_asked(&status.address, address), status);
                }
                Ok(StatusReply { server: Some(Server::Host(status)), .. }) => {
                    let host = Host::new(
                        or_asked(&status.address, address),
                        status,
                        layers.get(address.as_str()).copied(),
                    );
                    hosts.insert(host.address.clone(), host);
                }
                Ok(StatusReply { server: None, .. }) | Err(_) => {}
            }
        }
        for (address, cell) in &found.replicas {
            cells.entry(cell.clone()).or_default().expect_replica(address);
        }
        let silent = |address: &&String| !matches!(found.answers.get(*address), Some(Ok(_)));
        for address in found.proxies.iter().filter(silent) {
            hosts.entry(address.clone()).or_insert_with(|| Host::unreachable(address));
        }
        for (name, cell) in &mut cells {
            cell.name.clone_from(name);
            cell.replicas.sort_by(|a, b| a.address.cmp(&b.address));
        }
        let unreachable = found.answers.iter().filter_map(|(address, answer)| {
            let why = answer.as_ref().err()?.clone();
            Some(Unreachable { address: address.clone(), why })
        });
        Self {
            cells: cells.into_values().collect(),
            proxies: hosts.into_values().collect(),
            unreachable: unreachable.collect(),
        }
    }

    /// The cell of that name, if a map names it.
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.name == name)
    }

    /// Who does not answer, by address.
    pub fn unreachable(&self) -> &[Unreachable] {
        &self.unreachable
    }

    /// For people.
    pub fn tables(&self) -> String {
        let mut text = self.cell_table().to_string() + "\n\n" + &self.replica_table().to_string() + "\n";
        if !self.proxies.is_empty() {
            let _ = write!(text, "\n{}\n", self.proxy_table());
        }
        for server in &self.unreachable {
            let _ = write!(text, "\n{server}");
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn cell_table(&self) -> Table {
        let mut table = table(["CELL", "MASTER", "EPOCH", "NODES", "SESSIONS", "KEEPALIVES/S"]);
        for cell in &self.cells {
            table.add_row([
                cell.name.clone(),
                cell.master.clone().unwrap_or_else(|| "none".into()),
                cell.epoch.to_string(),
                cell.nodes.to_string(),
                cell.sessions.to_string(),
                format!("{:.1}", cell.keepalives_per_s),
            ]);
        }
        table
    }

    fn replica_table(&self) -> Table {
        let mut table = table(["REPLICA", "ID", "ADDRESS", "STATE", "APPLIED"]);
        for cell in &self.cells {
            for replica in &cell.replicas {
                table.add_row([
                    cell.name.clone(),
                    or_dash(replica.id),
                    replica.address.clone(),
                    replica.state.clone(),
                    or_dash(replica.applied),
                ]);
            }
        }
        table
    }

    fn proxy_table(&self) -> Table {
        let mut table = table(["PROXY", "ROLE", "LAYER", "BEHIND", "SESSIONS", "UPSTREAM", "KEEPALIVES/S"]);
        for host in &self.proxies {
            table.add_row([
                host.address.clone(),
                host.role.clone(),
                or_dash(host.layer),
                or_dash(host.upstream.as_ref().map(|hosts| match &hosts[..] {
                    [] => "cells".to_owned(),
                    hosts => hosts.join(","),
                })),
                or_dash(host.sessions),
                or_dash(host.upstream_sessions),
                or_dash(host.keepalives_per_s.map(|rate| format!("{rate:.1}"))),
            ]);
        }
        table
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not answer: {}", self.address, self.why)
    }
}

impl Cell {
    /// A replica that was asked under two addresses is taken once.
    fn take(&mut self, address: &str, status: &ReplicaStatus) {
        if self.replicas.iter().any(|replica| replica.address == address) {
            return;
        }
        self.replicas.push(Replica {
            id: Some(status.id),
            address: address.to_owned(),
            state: status.state.clone(),
            applied: Some(status.applied),
        });
        // Two may say so for a moment: the newer mastership is the true one.
        let is_master = status.state == "master" && (self.master.is_none() || status.epoch > self.epoch);
        if is_master {
            self.master = Some(address.to_owned());
            self.nodes = status.nodes;
            self.sessions = status.sessions;
            self.keepalives_per_s = status.keepalives_per_s;
            self.load.clone_from(&status.load);
        }
        self.epoch = self.epoch.max(status.epoch);
    }

    fn expect_replica(&mut self, address: &str) {
        if self.replicas.iter().all(|replica| replica.address != address) {
            let address = address.to_owned();
            self.replicas.push(Replica { id: None, address, state: UNREACHABLE.into(), applied: None });
        }
    }
}

impl Host {
    fn new(address: &str, status: &HostStatus, layer: Option<usize>) -> Self {
        Self {
            address: address.to_owned(),
            role: status.role.clone(),
            layer,
            upstream: Some(status.upstream.clone()),
            sessions: Some(status.sessions),
            upstream_sessions: Some(status.upstream_sessions),
            keepalives_per_s: Some(status.keepalives_per_s),
        }
    }

    fn unreachable(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            role: UNREACHABLE.into(),
            layer: None,
            upstream: None,
            sessions: None,
            upstream_sessions: None,
            keepalives_per_s: None,
        }
    }
}

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table
}

/// What the server calls itself, or how it was reached.
fn or_asked<'a>(own: &'a str, asked: &'a str) -> &'a str {
    if own.is_empty() { asked } else { own }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

#[cfg(test)]
impl Report {
    /// And of one server that does not answer.
    #[must_use]
    pub fn without(mut self, address: &str, why: &str) -> Self {
        self.unreachable.push(Unreachable { address: address.to_owned(), why: why.to_owned() });
        self
    }

    /// Of one cell, whose master says this.
    pub fn of_master(name: &str, address: &str, nodes: u64, sessions: u64, load: Load) -> Self {
        let (name, master) = (name.to_owned(), Some(address.to_owned()));
        let cell = Cell { name, master, nodes, sessions, load: Some(load), ..Cell::default() };
        Self { cells: vec![cell], ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
