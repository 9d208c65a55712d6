//! `hasp partition show`: which cell owns which names, how the cells are, and what is under way.

use hasp_client::OpenOptions;
use hasp_proto::partition::{Change, PartitionMap};
use serde::Serialize;

use super::{journey, map_file, tree};
use crate::commands::status::{self, Report};
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
    let name = map_file()?;
    let contents = connect
        .with_client(ctx, async |client| {
            let opened = connect.call(client.open(&name, OpenOptions::read())).await?;
            connect.call(opened.handle.get_contents_and_stat()).await
        })
        .await?
        .contents;
    let map = PartitionMap::parse(&contents).map_err(|error| Failure::Refused(error.to_string()))?;
    let shown = Shown::new(&map, &status::report(ctx, connect).await);
    if connect.json { print_json(&shown) } else { print(shown.text(&map).as_bytes()) }
}

impl Shown {
    /// Rules by prefix, cells by name.
    fn new(map: &PartitionMap, report: &Report) -> Self {
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
        }
    }

    /// For people.
    fn text(&self, map: &PartitionMap) -> String {
        let head = ["CELL", "MASTER", "NODES", "SESSIONS"].map(str::to_owned).to_vec();
        let cells: Vec<_> = std::iter::once(head).chain(self.cells.iter().map(Cell::row)).collect();
        let Self { namespace, version, .. } = self;
        format!(
            "partition map of /ls/{namespace}, version {version}\n\n{}{}\n{}",
            tree::draw(map),
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

    use super::*;

    fn shown() -> (PartitionMap, Shown) {
        let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules = [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b")];
        let map = PartitionMap::new(4, "dev", rules, cells).expect("a good map");
        let report = Report::of_master("a", "h:1", 12, 3);
        let shown = Shown::new(&map, &report);
        (map, shown)
    }

    fn shown_changing(prefix: &str, cells: &[&str]) -> (PartitionMap, Shown) {
        let prefix = Prefix::parse(prefix).expect("good");
        let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
        let map = shown().0.changing(Change { prefix, cells }).expect("a good change");
        let shown = Shown::new(&map, &Report::of_master("a", "h:1", 12, 3));
        (map, shown)
    }

    #[test]
    fn the_map_is_shown_with_what_is_known_of_its_cells() {
        let (map, shown) = shown();

        let expected = "\
partition map of /ls/dev, version 4

PREFIX       CELLS
/ls/dev      a
├── jobs     b
└── users/*  a b

CELL  MASTER  NODES  SESSIONS
a     h:1     12     3
b     none    -      -
";
        assert_eq!(shown.text(&map), expected);
    }

    #[test]
    fn what_is_under_way_stands_below_the_map() {
        let check = |prefix: &str, cells: &[&str], expected: &str| {
            let (map, shown) = shown_changing(prefix, cells);
            let text = shown.text(&map);
            assert_eq!(text.split("\n\n").nth(2), Some(expected), "{text}");
        };
        check("/ls/dev/jobs", &[], "next  /ls/dev/jobs  b -> a  (moving)");
        check("/ls/dev/x/*", &["b", "a"], "next  /ls/dev/x/*  a -> b  (moving)");
        check("/ls/dev/users/*", &["b"], "next  /ls/dev/users/*  a -> b  (moving)");
        check("/ls/dev/x", &["a"], "next  /ls/dev/x  (nothing moves)");

        let (map, shown) = shown_changing("/ls/dev/jobs", &["a"]);
        let expected = "\
partition map of /ls/dev, version 5

PREFIX       CELLS
/ls/dev      a
├── jobs     b
└── users/*  a b

next  /ls/dev/jobs  b -> a  (moving)

CELL  MASTER  NODES  SESSIONS
a     h:1     12     3
b     none    -      -
";
        assert_eq!(shown.text(&map), expected);
    }

    #[test]
    fn programs_are_told_what_is_under_way() {
        let next = |prefix: &str, cells: &[&str]| {
            serde_json::to_value(shown_changing(prefix, cells).1).expect("plain")["next"].clone()
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
        });
        assert_eq!(serde_json::to_value(shown().1).expect("plain"), expected);
    }
}
