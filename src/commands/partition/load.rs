//! What load each cell says that it bears: by rule and by directory, as its master measured it over the last seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use hasp_client::{CellName, Name};
use hasp_proto::partition::{PartitionMap, Prefix};
use hasp_proto::wire::admin::v1;
use serde::Serialize;

use crate::commands::status::Report;

/// As many directories are shown to people.
const SHOWN_MAX: usize = 10;

/// What some part of the tree weighs, and what is asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Nodes; below a directory as far as the rule of its children goes.
    pub nodes: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Of a directory, directly in it.
    pub reads_per_s: f64,
    /// The same.
    pub writes_per_s: f64,
}

/// What one cell says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellLoad {
    /// By the text of the rule's prefix.
    pub rules: BTreeMap<String, Part>,
    /// The hottest directories, and those above them that the same rule is for.
    pub directories: BTreeMap<Name, Part>,
    /// In directories that are not counted one by one.
    pub others: Part,
    /// Of the map by which the cell goes.
    pub map_version: u64,
    /// For how long it has been counted.
    pub over: Duration,
}

/// All cells that say what load they bear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loads(pub BTreeMap<CellName, CellLoad>);

/// A rule's part in one cell, for programs; no numbers if the cell does not tell.
#[derive(Debug, Serialize)]
pub struct RuleLoad {
    prefix: String,
    cell: String,
    nodes: Option<u64>,
    bytes: Option<u64>,
    reads_per_s: Option<f64>,
    writes_per_s: Option<f64>,
}

/// A directory of which much is asked.
#[derive(Debug, Serialize)]
pub struct Hot {
    directory: String,
    cell: String,
    #[serde(flatten)]
    part: Part,
}

impl Part {
    fn asked(self) -> f64 {
        self.reads_per_s + self.writes_per_s
    }

    /// For people.
    fn row(part: Option<&Self>) -> Vec<String> {
        part.map_or_else(
            || vec!["no answer".to_owned()],
            |part| {
                let rate = |rate: f64| format!("{rate:.1}");
                let weight = [part.nodes.to_string(), part.bytes.to_string()];
                [&weight[..], &[rate(part.reads_per_s), rate(part.writes_per_s)]].concat()
            },
        )
    }
}

impl CellLoad {
    /// What a cell has sent. What is asked of a name that is none here counts like what is not counted one by one.
    pub fn read(load: &v1::Load) -> Self {
        let rules = load.rules.iter().map(|rule| {
            let part = part(rule.nodes, rule.bytes, rule.reads_per_s, rule.writes_per_s);
            (rule.prefix.clone(), part)
        });
        let mut others = part(0, 0, load.other_reads_per_s, load.other_writes_per_s);
        let mut directories = BTreeMap::new();
        for it in &load.directories {
            let told = part(it.nodes, it.bytes, it.reads_per_s, it.writes_per_s);
            match Name::parse(&it.name) {
                Ok(name) => drop(directories.insert(name, told)),
                Err(_) => {
                    others.reads_per_s += told.reads_per_s;
                    others.writes_per_s += told.writes_per_s;
                }
            }
        }
        Self {
            rules: rules.collect(),
            directories,
            others,
            map_version: load.map_version,
            over: Duration::try_from_secs_f64(load.measured_s).unwrap_or_default(),
        }
    }
}

fn part(nodes: u64, bytes: u64, reads_per_s: f64, writes_per_s: f64) -> Part {
    let rate = |rate: f64| if rate.is_finite() && rate > 0.0 { rate } else { 0.0 };
    Part { nodes, bytes, reads_per_s: rate(reads_per_s), writes_per_s: rate(writes_per_s) }
}

impl Loads {
    /// Of the cells of a map.
    pub fn of(map: &PartitionMap, report: &Report) -> Self {
        let load = |cell: &CellName| {
            let load = report.cell(cell.as_str())?.load.as_ref()?;
            Some((cell.clone(), CellLoad::read(load)))
        };
        Self(map.cells.keys().filter_map(load).collect())
    }

    /// What a cell has of a rule; nothing if it does not tell.
    fn part(&self, prefix: &Prefix, cell: &CellName) -> Option<Part> {
        let load = self.0.get(cell)?;
        Some(load.rules.get(&prefix.to_string()).copied().unwrap_or_default())
    }

    /// The same as columns of a table.
    pub fn row(&self, prefix: &Prefix, cell: &CellName) -> Vec<String> {
        Part::row(self.part(prefix, cell).as_ref())
    }

    /// Of each rule what each of its cells has: plain rules first, by prefix, then rings.
    pub fn rules(&self, map: &PartitionMap) -> Vec<RuleLoad> {
        let plain = map.rules().map(|(name, cell)| (Prefix::Below(name.clone()), cell));
        let rings = map
            .rings()
            .flat_map(|(name, ring)| ring.cells().iter().map(move |cell| (Prefix::Ring(name.clone()), cell)));
        let load = |(prefix, cell): (Prefix, &CellName)| {
            let part = self.part(&prefix, cell);
            RuleLoad {
                prefix: prefix.to_string(),
                cell: cell.to_string(),
                nodes: part.map(|part| part.nodes),
                bytes: part.map(|part| part.bytes),
                reads_per_s: part.map(|part| part.reads_per_s),
                writes_per_s: part.map(|part| part.writes_per_s),
            }
        };
        plain.chain(rings).map(load).collect()
    }

    /// The directories of which anything is asked, the hottest first.
    pub fn hottest(&self) -> Vec<Hot> {
        let all = self
            .0
            .iter()
            .flat_map(|(cell, load)| load.directories.iter().map(move |(name, part)| (cell, name, *part)));
        let mut asked: Vec<_> = all.filter(|(_, _, part)| part.asked() > 0.0).collect();
        asked.sort_by(|(_, _, a), (_, _, b)| b.asked().total_cmp(&a.asked()));
        let hot = |(cell, name, part): (&CellName, &Name, Part)| Hot {
            directory: name.to_string(),
            cell: cell.to_string(),
            part,
        };
        asked.into_iter().map(hot).collect()
    }
}

/// A table of the hottest directories, not of all.
pub fn hottest_rows(hottest: &[Hot]) -> Vec<Vec<String>> {
    let row = |hot: &Hot| {
        let own = vec![hot.directory.clone(), hot.cell.clone()];
        [own, Part::row(Some(&hot.part))].concat()
    };
    let head = ["HOTTEST", "CELL", "NODES", "BYTES", "READS/S", "WRITES/S"].map(str::to_owned).to_vec();
    std::iter::once(head).chain(hottest.iter().take(SHOWN_MAX).map(row)).collect()
}
