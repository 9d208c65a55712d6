use hasp_client::CellName;
use hasp_proto::partition::Prefix;
use serde_json::{Value, json};

use super::*;

fn changing(prefix: &str, cells: &[&str]) -> PartitionMap {
    let listed = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![format!("{cell}:1")])).into();
    let rules = [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b")];
    let map = PartitionMap::new(4, "dev", rules, listed).expect("a good map");
    let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
    map.changing(Change { prefix: Prefix::parse(prefix).expect("good"), cells }).expect("a good change")
}

fn object(report: Option<Report>) -> Value {
    serde_json::to_value(report.expect("a change is under way")).expect("plain")
}

#[test]
fn people_are_told_where_things_go() {
    let check = |prefix: &str, cells: &[&str], text: &str| {
        assert_eq!(started(&changing(prefix, cells)), text);
    };
    check("/ls/dev/x", &["b"], "version 5: /ls/dev/x moves from a to b\n");
    check("/ls/dev/jobs", &[], "version 5: /ls/dev/jobs moves from b to a\n");
    check("/ls/dev/users/*", &["a", "b", "c"], "version 5: /ls/dev/users/* moves from a, b to c\n");
    check("/ls/dev/jobs/*", &["b", "c"], "version 5: /ls/dev/jobs/* moves from b to c\n");
    check("/ls/dev/x", &["a"], "version 5: nothing moves\n");
}

#[test]
fn people_are_told_of_the_end() {
    let map = changing("/ls/dev/jobs", &["a"]);

    assert_eq!(done(6, Duration::from_millis(412)), "version 6: done after 0.4 s\n");
    assert_eq!(done(6, Duration::from_secs(75)), "version 6: done after 75.0 s\n");
    assert_eq!(given_up(&map, 6), "version 6: the change of /ls/dev/jobs is given up\n");
}

#[test]
fn people_are_shown_what_would_be_done() {
    let expected = "\
/ls/dev/jobs would move from b to c: 12 nodes

version 5

/ls/dev          a
/ls/dev/jobs     b
/ls/dev/users/*  a b

next /ls/dev/jobs  c

cell a
cell b
cell c
";
    assert_eq!(planned(&changing("/ls/dev/jobs", &["c"]), &Counted::of(12)), expected);
    let text = planned(&changing("/ls/dev/x", &["a"]), &Counted::of(0));
    assert!(text.starts_with("nothing would move\n\nversion 5\n"), "{text}");
}

#[test]
fn programs_are_told_of_each_state() {
    let map = changing("/ls/dev/jobs", &["c"]);
    let report = |state| Report::new(state, &map);
    let told = |state: &str, version: u64| {
        json!({
            "state": state,
            "version": version,
            "prefix": "/ls/dev/jobs",
            "cells": ["c"],
            "journeys": [{"from": "b", "to": "c"}],
        })
    };
    let with = |mut object: Value, field: &str, value: Value| {
        object[field] = value;
        object
    };

    assert_eq!(object(report(State::Moving)), told("moving", 5));
    let took = Some(Duration::from_micros(412_345));
    let done = report(State::Done).map(|report| report.since(6, took));
    assert_eq!(object(done), with(told("done", 6), "seconds", json!(0.412)));
    let given_up = report(State::GivenUp).map(|report| report.since(6, None));
    assert_eq!(object(given_up), told("given-up", 6));
    let plan = report(State::DryRun).map(|report| report.with_plan(Counted::of(12), &map));
    let expected = with(told("dry-run", 5), "nodes", json!({"count": 12, "is_complete": true}));
    let text = "version 5\n\n/ls/dev          a\n/ls/dev/jobs     b\n/ls/dev/users/*  a b\n\nnext /ls/dev/jobs  c\n\n\
                cell a\ncell b\ncell c\n";
    assert_eq!(object(plan), with(expected, "map", json!(text)));
}

#[test]
fn programs_are_told_of_every_journey() {
    let report = |prefix, cells| object(Report::new(State::Moving, &changing(prefix, cells)));

    let joined = report("/ls/dev/users/*", &["a", "b", "c"]);
    assert_eq!(joined["journeys"], json!([{"from": "a", "to": "c"}, {"from": "b", "to": "c"}]));
    assert_eq!(report("/ls/dev/jobs", &[])["cells"], json!([]));
    assert_eq!(report("/ls/dev/x", &["a"])["journeys"], json!([]));
}
