//! What is told of a change of the partition map: lines for people, one object for programs.

use std::time::Duration;

use hasp_proto::partition::{Change, PartitionMap};
use serde::Serialize;

use super::count::Counted;
use super::journey;

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody was told to make it.
    DryRun,
    /// It is under way.
    Moving,
    /// It is done.
    Done,
    /// It was given up.
    GivenUp,
}

/// A change, and what came of it; fields that say nothing of it are left out.
#[derive(Debug, Serialize)]
pub struct Report {
    state: State,
    version: u64,
    prefix: String,
    /// None: the rule goes.
    cells: Vec<String>,
    journeys: Vec<Journey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Counted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<String>,
}

/// Cells between which something moves.
#[derive(Debug, Serialize)]
struct Journey {
    from: String,
    to: String,
}

impl Report {
    /// Of the change that is under way in a map; nothing if none is.
    pub fn new(state: State, map: &PartitionMap) -> Option<Self> {
        let Change { prefix, cells } = map.change()?;
        let journey = |(from, to)| Journey { from: format!("{from}"), to: format!("{to}") };
        Some(Self {
            state,
            version: map.version,
            prefix: prefix.to_string(),
            cells: cells.iter().map(ToString::to_string).collect(),
            journeys: map.journeys().iter().map(|(from, to)| journey((from, to))).collect(),
            seconds: None,
            nodes: None,
            map: None,
        })
    }

    /// Since this version of the map; how long it took, if that was seen.
    pub fn since(self, version: u64, took: Option<Duration>) -> Self {
        let seconds = took.map(|took| (took.as_secs_f64() * 1_000.0).round() / 1_000.0);
        Self { version, seconds, ..self }
    }

    /// With what would be done.
    pub fn with_plan(self, nodes: Counted, map: &PartitionMap) -> Self {
        Self { nodes: Some(nodes), map: Some(map.without_addresses().to_text()), ..self }
    }
}

/// When a change has begun.
pub fn started(map: &PartitionMap) -> String {
    let version = map.version;
    match (map.change(), journey(map)) {
        (Some(Change { prefix, .. }), Some((from, to))) => {
            format!("version {version}: {prefix} moves from {from} to {to}\n")
        }
        _ => format!("version {version}: nothing moves\n"),
    }
}

/// When it is done.
pub fn done(version: u64, took: Duration) -> String {
    format!("version {version}: done after {:.1} s\n", took.as_secs_f64())
}

/// When it was given up by this command.
pub fn given_up(map: &PartitionMap, version: u64) -> String {
    let prefix = map.change().map(|change| change.prefix.to_string()).unwrap_or_default();
    format!("version {version}: the change of {prefix} is given up\n")
}

/// Instead of a change: what would move, and the map as it would be written.
pub fn planned(map: &PartitionMap, nodes: &Counted) -> String {
    let moves = match (map.change(), journey(map)) {
        (Some(Change { prefix, .. }), Some((from, to))) => {
            format!("{prefix} would move from {from} to {to}: {}\n", nodes.text())
        }
        _ => "nothing would move\n".to_owned(),
    };
    format!("{moves}\n{}", map.without_addresses().to_text())
}

/// For who leaves before the end.
pub const GOES_ON: &str =
    "the move goes on without this command: hasp partition show has it, hasp partition undo gives it up";

#[cfg(test)]
mod tests;
