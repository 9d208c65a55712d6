//! What is told of a plan.

use hasp_proto::partition::{Change, Prefix};
use hasp_proto::wire::admin::v1;

use super::*;
use crate::commands::partition::load::CellLoad;

fn parsed(line: &str) -> Args {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let words = ["rebalance", "--connect", "h:1"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).expect("good").args
}

fn cell(name: &str) -> CellName {
    CellName::new(name)
}

fn planned(proposals: Vec<Proposal>) -> Plan {
    let (before, after) = ([("a", 300.0), ("b", 20.0)], [("a", 100.0), ("b", 220.0)]);
    let loads = |of: [(&str, f64); 2]| of.map(|(name, load)| (cell(name), load)).into();
    let after = if proposals.is_empty() { before } else { after };
    Plan { before: loads(before), after: loads(after), proposals }
}

fn split(prefix: &str) -> Proposal {
    let change = Change { prefix: Prefix::parse(prefix).expect("good"), cells: vec![cell("b")] };
    Proposal { wish: Wish::Split(change), from: cell("a"), to: cell("b"), nodes: 12, bytes: 340, load: 200.0 }
}

#[test]
fn proposals_are_commands_with_what_they_move() {
    let expected = "\
hasp partition split /ls/dev/jobs --to b  # a -> b: 12 nodes, 340 bytes, load 200.0

CELL  LOAD   EXPECTED
a     300.0  100.0
b     20.0   220.0

load: reads/s + 4 x writes/s; mean 160.0
";
    assert_eq!(text(&planned(vec![split("/ls/dev/jobs")]), &parsed("")), expected);
}

#[test]
fn nothing_is_said_with_figures() {
    let check = |line: &str, expected: &str| {
        let text = text(&planned(Vec::new()), &parsed(line));
        assert_eq!(text.lines().next(), Some(expected));
    };
    let nothing = "nothing worth moving: the most loaded cell is a with 300.0";
    check("", &format!("{nothing}, and no change takes 10% off"));
    check("--min-load 301", &format!("{nothing}, less than 301"));
}

#[test]
fn a_name_that_a_shell_would_read_otherwise_is_quoted() {
    let check = |prefix: &str, expected: &str| assert_eq!(command(&split(prefix).wish), expected);
    check("/ls/dev/a-b_c.d", "hasp partition split /ls/dev/a-b_c.d --to b");
    check("/ls/dev/a b", "hasp partition split '/ls/dev/a b' --to b");
    check("/ls/dev/it's", "hasp partition split '/ls/dev/it'\\''s' --to b");
    let merge = Wish::Merge(Prefix::parse("/ls/dev/x").expect("good"));
    assert_eq!(command(&merge), "hasp partition merge /ls/dev/x");
}

#[test]
fn programs_are_told_of_each_change() {
    let told = |line: &str, versions: &[u64]| {
        let plan = planned(vec![split("/ls/dev/jobs")]);
        serde_json::to_value(Rebalanced::new(&plan, &parsed(line), versions)).expect("plain")
    };
    let command = "hasp partition split /ls/dev/jobs --to b";
    let expected = serde_json::json!({
        "state": "proposed",
        "write_weight": 4.0,
        "mean": 160.0,
        "cells": [
            {"name": "a", "load": 300.0, "expected": 100.0},
            {"name": "b", "load": 20.0, "expected": 220.0},
        ],
        "proposals": [
            {"command": command, "from": "a", "to": "b", "nodes": 12, "bytes": 340, "load": 200.0},
        ],
    });
    assert_eq!(told("", &[]), expected);
    let done = told("--apply", &[3]);
    assert_eq!((&done["state"], &done["proposals"][0]["version"]), (&"done".into(), &3.into()));
}

#[test]
fn nothing_is_planned_while_something_moves_or_a_cell_is_silent() {
    let cells = ["a", "b"].map(|name| (cell(name), vec![])).into();
    let map = PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells).expect("a good map");
    let one = Loads([(cell("a"), CellLoad::default())].into());
    let both = Loads(["a", "b"].map(|name| (cell(name), CellLoad::default())).into());
    let check = |map: &PartitionMap, loads| check(map, loads, Duration::ZERO);
    let why = |map: &PartitionMap, loads| check(map, loads).map_err(|failure| failure.to_string());

    assert_eq!(why(&map, &both), Ok(Fit::No("cell a goes by version 0 of the map, the file says 1".into())));
    assert_eq!(why(&map, &one), Err("Unreachable: no master says what load it bears of cell b".into()));
    let Wish::Split(change) = split("/ls/dev/jobs").wish else { panic!("a split") };
    let changing = map.changing(change).expect("a good change");
    let expected = "InvalidArgument: partition rule /ls/dev/jobs is changing: one change at a time";
    assert_eq!(why(&changing, &both), Err(expected.into()));
}

#[test]
fn nothing_is_planned_before_all_cells_have_counted_for_long_enough_by_the_map_of_now() {
    let cells = ["a", "b"].map(|name| (cell(name), vec![])).into();
    let map = PartitionMap::new(7, "dev", [("/ls/dev", "a")], cells).expect("a good map");
    let load = |map_version, millis| CellLoad {
        map_version,
        over: Duration::from_millis(millis),
        ..CellLoad::default()
    };
    let check = |b: CellLoad| {
        let loads = Loads([(cell("a"), load(7, 10_000)), (cell("b"), b)].into());
        check(&map, &loads, Duration::from_secs(3)).expect("all have answered")
    };

    assert_eq!(check(load(7, 3_000)), Fit::Yes);
    assert_eq!(check(load(7, 2_940)), Fit::No("cell b has counted for 2.9 s".into()));
    for version in [6, 8] {
        let why = format!("cell b goes by version {version} of the map, the file says 7");
        assert_eq!(check(load(version, 10_000)), Fit::No(why));
    }
}

#[test]
fn what_is_asked_of_a_name_that_is_none_here_still_counts() {
    let directory = |name: &str, reads_per_s| v1::DirectoryLoad {
        name: name.into(),
        reads_per_s,
        ..v1::DirectoryLoad::default()
    };
    let sent = v1::Load {
        directories: vec![directory("/ls/dev/d", 2.0), directory("/ls/dev/../d", 3.0)],
        other_reads_per_s: 4.0,
        measured_s: f64::NAN,
        ..v1::Load::default()
    };
    let read = CellLoad::read(&sent);

    assert_eq!(read.directories.len(), 1);
    assert!((read.others.reads_per_s - 7.0).abs() < 1e-9, "{read:?}");
    assert_eq!(read.over, Duration::ZERO);
}

#[test]
fn who_leaves_says_how_far_it_came() {
    let plan = planned(vec![split("/ls/dev/x"), split("/ls/dev/y")]);
    assert_eq!(left(&plan, 1), "stopped, 1 of 2 changes are made");
}

#[test]
fn who_is_stopped_says_how_far_it_came() {
    let plan = planned(vec![split("/ls/dev/x"), split("/ls/dev/y")]);
    let failure = stopped(&plan, 1, Failure::Refused("GivenUp: a limit".into()));
    let expected =
        "GivenUp: a limit; change 2 of 2 (hasp partition split /ls/dev/y --to b) stopped, 1 done before it";
    assert_eq!(failure.to_string(), expected);
}
