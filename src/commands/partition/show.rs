//! `hasp partition show`: which cell owns which names, how the cells are, and what is under way.

use hasp_proto::partition::{Change, PartitionMap};
use serde::Serialize;

use super::load::{Hot, Loads, RuleLoad, hottest_rows};
use super::{journey, map_now, tree};
use crate::commands::status::{self, Report, Unreachable};
use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure};
use crate::format::{columns, print, print_json};

/// Options of `hasp partition show`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The map and its cells.
#[derive(Debug, Serialize)]
struct Shown {
    namespace: String,
    version: u64,
    rules: Vec<Rule>,
    rings: Vec<Ring>,
    /// What one rule is about to be.
    next: Option<Next>,
    cells: Vec<Cell>,
    /// What each cell of each rule has of it, and what is asked of that.
    load: Vec<RuleLoad>,
    /// The directories of which most is asked.
    hottest: Vec<Hot>,
    /// Why something may be missing above.
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Serialize)]
struct Rule {
    prefix: String,
    cell: String,
}

#[derive(Debug, Serialize)]
struct Ring {
    /// Whose directories are spread.
    directory: String,
    cells: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Next {
    prefix: String,
    /// None: the rule goes.
    cells: Vec<String>,
}

/// One cell, as its master sees it; nothing if none can be found.
#[derive(Debug, Serialize)]
struct Cell {
    name: String,
    master: Option<String>,
    nodes: Option<u64>,
    sessions: Option<u64>,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    show(&args, ctx).await.into()
}

async fn show(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let connect = &args.connect;
    let map = map_now(connect, ctx).await?;
    let report = status::report_load(ctx, connect).await;
    let loads = Loads::of(&map, &report);
    let shown = Shown::new(&map, &report, &loads);
    if connect.json { print_json(&shown) } else { print(shown.text(&map, &loads).as_bytes()) }
}

impl Shown {
    /// Rules by prefix, cells by name.
    fn new(map: &PartitionMap, report: &Report, loads: &Loads) -> Self {
        let rule = |(prefix, cell): (&_, &_)| Rule { prefix: format!("{prefix}"), cell: format!("{cell}") };
        let ring = |(directory, ring): (&_, &hasp_proto::partition::CellRing)| Ring {
            directory: format!("{directory}"),
            cells: ring.cells().iter().map(ToString::to_string).collect(),
        };
        Self {
            namespace: map.namespace.clone(),
            version: map.version,
            rules: map.rules().map(rule).collect(),
            rings: map.rings().map(ring).collect(),
            next: map.change().map(Next::new),
            cells: map
                .cells
                .keys()
                .map(|cell| Cell::new(cell.as_str(), report.cell(cell.as_str())))
                .collect(),
            load: loads.rules(map),
            hottest: loads.hottest(),
            unreachable: report.unreachable().to_vec(),
        }
    }

    /// For people.
    fn text(&self, map: &PartitionMap, loads: &Loads) -> String {
        let head = ["CELL", "MASTER", "NODES", "SESSIONS"].map(str::to_owned).to_vec();
        let cells: Vec<_> = std::iter::once(head).chain(self.cells.iter().map(Cell::row)).collect();
        let Self { namespace, version, .. } = self;
        let hottest = match &self.hottest[..] {
            [] => String::new(),
            hottest => format!("\n{}", columns(&hottest_rows(hottest))),
        };
        let silent: String = self.unreachable.iter().map(|server| format!("\n{server}\n")).collect();
        format!(
            "partition map of /ls/{namespace}, version {version}\n\n{}{}\n{}{hottest}{silent}",
            tree::draw(map, |prefix, cell| loads.row(prefix, cell)),
            map.change().map(|change| next_line(map, change)).unwrap_or_default(),
            columns(&cells)
        )
    }
}

/// Below the map.
fn next_line(map: &PartitionMap, Change { prefix, .. }: &Change) -> String {
    match journey(map) {
        Some((from, to)) => format!("\nnext  {prefix}  {from} -> {to}  (moving)\n"),
        None => format!("\nnext  {prefix}  (nothing moves)\n"),
    }
}

impl Next {
    fn new(Change { prefix, cells }: &Change) -> Self {
        Self { prefix: prefix.to_string(), cells: cells.iter().map(ToString::to_string).collect() }
    }
}

impl Cell {
    fn new(name: &str, found: Option<&status::Cell>) -> Self {
        let known = found.filter(|cell| cell.master.is_some());
        Self {
            name: name.to_owned(),
            master: known.and_then(|cell| cell.master.clone()),
            nodes: known.map(|cell| cell.nodes),
            sessions: known.map(|cell| cell.sessions),
        }
    }

    fn row(&self) -> Vec<String> {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let master = self.master.clone().unwrap_or_else(|| "none".into());
        vec![self.name.clone(), master, number(self.nodes), number(self.sessions)]
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::CellName;
    use hasp_proto::partition::Prefix;
    use hasp_proto::wire::admin::v1::{DirectoryLoad, Load, RuleLoad};

    use super::{Change, Loads, PartitionMap, Report, Shown};

    fn report() -> Report {
        let rule = |prefix: &str, nodes: u64, reads_per_s: f64| RuleLoad {
            prefix: prefix.to_owned(),
            nodes,
            bytes: 10 * nodes,
            reads_per_s,
            writes_per_s: 0.5,
        };
        let directory = |name: &str, reads_per_s: f64| DirectoryLoad {
            name: name.to_owned(),
            nodes: 3,
            bytes: 30,
            reads_per_s,
            writes_per_s: 0.0,
        };
        let load = Load {
            rules: vec![rule("/ls/dev", 9, 2.25), rule("/ls/dev/users/*", 3, 0.0)],
            directories: vec![directory("/ls/dev/d", 2.0), directory("/ls/dev/e", 0.0)],
            ..Load::default()
        };
        Report::of_master("a", "h:1", 12, 3, load).without("h:2", "refused")
    }

    fn shown_of(map: &PartitionMap) -> (Shown, String) {
        let (report, loads) = (report(), Loads::of(map, &report()));
        let shown = Shown::new(map, &report, &loads);
        let text = shown.text(map, &loads);
        (shown, text)
    }

    fn map() -> PartitionMap {
        let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules = [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b")];
        PartitionMap::new(4, "dev", rules, cells).expect("a good map")
    }

    fn shown_changing(prefix: &str, cells: &[&str]) -> (Shown, String) {
        let prefix = Prefix::parse(prefix).expect("good");
        let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
        shown_of(&map().changing(Change { prefix, cells }).expect("a good change"))
    }

    #[test]
    fn the_map_is_shown_with_what_is_known_of_its_cells() {
        let expected = "\
partition map of /ls/dev, version 4

PREFIX       CELL  NODES      BYTES  READS/S  WRITES/S
/ls/dev      a     9          90     2.2      0.5
├── jobs     b     no answer
└── users/*  a     3          30     0.0      0.5
             b     no answer

CELL  MASTER  NODES  SESSIONS
a     h:1     12     3
b     none    -      -

HOTTEST    CELL  NODES  BYTES  READS/S  WRITES/S
/ls/dev/d  a     3      30     2.0      0.0

h:2 does not answer: refused
";
        assert_eq!(shown_of(&map()).1, expected);
    }

    #[test]
    fn what_is_under_way_stands_below_the_map() {
        let check = |prefix: &str, cells: &[&str], expected: &str| {
            let (_, text) = shown_changing(prefix, cells);
            assert_eq!(text.split("\n\n").nth(2), Some(expected), "{text}");
        };
        check("/ls/dev/jobs", &[], "next  /ls/dev/jobs  b -> a  (moving)");
        check("/ls/dev/x/*", &["b", "a"], "next  /ls/dev/x/*  a -> b  (moving)");
        check("/ls/dev/users/*", &["b"], "next  /ls/dev/users/*  a -> b  (moving)");
        check("/ls/dev/x", &["a"], "next  /ls/dev/x  (nothing moves)");

        let expected = "\
partition map of /ls/dev, version 5

PREFIX       CELL  NODES      BYTES  READS/S  WRITES/S
/ls/dev      a     9          90     2.2      0.5
├── jobs     b     no answer
└── users/*  a     3          30     0.0      0.5
             b     no answer

next  /ls/dev/jobs  b -> a  (moving)

CELL  MASTER  NODES  SESSIONS
a     h:1     12     3
b     none    -      -

HOTTEST    CELL  NODES  BYTES  READS/S  WRITES/S
/ls/dev/d  a     3      30     2.0      0.0

h:2 does not answer: refused
";
        assert_eq!(shown_changing("/ls/dev/jobs", &["a"]).1, expected);
    }

    #[test]
    fn programs_are_told_what_is_under_way() {
        let next = |prefix: &str, cells: &[&str]| {
            serde_json::to_value(shown_changing(prefix, cells).0).expect("plain")["next"].clone()
        };
        let expected = serde_json::json!({"prefix": "/ls/dev/x/*", "cells": ["b", "a"]});
        assert_eq!(next("/ls/dev/x/*", &["b", "a"]), expected);
        assert_eq!(next("/ls/dev/jobs", &[]), serde_json::json!({"prefix": "/ls/dev/jobs", "cells": []}));
    }

    #[test]
    fn programs_are_told_the_same() {
        let expected = serde_json::json!({
            "namespace": "dev",
            "version": 4,
            "rules": [
                {"prefix": "/ls/dev", "cell": "a"},
                {"prefix": "/ls/dev/jobs", "cell": "b"},
            ],
            "rings": [{"directory": "/ls/dev/users", "cells": ["a", "b"]}],
            "next": null,
            "cells": [
                {"name": "a", "master": "h:1", "nodes": 12, "sessions": 3},
                {"name": "b", "master": null, "nodes": null, "sessions": null},
            ],
            "load": [
                {"prefix": "/ls/dev", "cell": "a", "nodes": 9, "bytes": 90, "reads_per_s": 2.25, "writes_per_s": 0.5},
                {"prefix": "/ls/dev/jobs", "cell": "b", "nodes": null, "bytes": null, "reads_per_s": null,
                 "writes_per_s": null},
                {"prefix": "/ls/dev/users/*", "cell": "a", "nodes": 3, "bytes": 30, "reads_per_s": 0.0,
                 "writes_per_s": 0.5},
                {"prefix": "/ls/dev/users/*", "cell": "b", "nodes": null, "bytes": null, "reads_per_s": null,
                 "writes_per_s": null},
            ],
            "hottest": [
                {"directory": "/ls/dev/d", "cell": "a", "nodes": 3, "bytes": 30, "reads_per_s": 2.0,
                 "writes_per_s": 0.0},
            ],
            "unreachable": [{"address": "h:2", "why": "refused"}],
        });
        assert_eq!(serde_json::to_value(shown_of(&map()).0).expect("plain"), expected);
    }
}
