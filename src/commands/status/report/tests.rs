//! How answers become one report.

use hasp_proto::wire::v1::{CellAddresses, PartitionMap};

use super::*;

fn replica(id: u64, state: &str, epoch: u64) -> StatusReply {
    let map = PartitionMap {
        version: 1,
        namespace: "dev".into(),
        rules: vec![],
        rings: vec![],
        next: None,
        cells: vec![CellAddresses {
            cell: "a".into(),
            replicas: ["h:1", "h:2", "h:3"].map(str::to_owned).to_vec(),
        }],
    };
    let status = ReplicaStatus {
        cell: "a".into(),
        id,
        address: format!("h:{id}"),
        state: state.into(),
        epoch,
        applied: 10 * id,
        sessions: 3,
        nodes: 17,
        keepalives_per_s: 1.25,
        proxies: vec!["p:1".into(), "p:2".into()],
        ..ReplicaStatus::default()
    };
    StatusReply { map: Some(map), server: Some(Server::Replica(status)) }
}

fn proxy() -> StatusReply {
    let status = HostStatus {
        role: "proxy".into(),
        address: "p:1".into(),
        sessions: 1_000,
        upstream_sessions: 1,
        keepalives_per_s: 125.0,
        ..HostStatus::default()
    };
    StatusReply { map: None, server: Some(Server::Host(status)) }
}

fn found() -> Found {
    let mut found = Found::default();
    found.answers.insert("h:1".into(), Ok(replica(1, "master", 4)));
    found.answers.insert("alias:1".into(), Ok(replica(1, "master", 4)));
    found.answers.insert("h:2".into(), Ok(replica(2, "follower", 4)));
    found.answers.insert("h:3".into(), Err("connection refused".into()));
    found.answers.insert("p:1".into(), Ok(proxy()));
    found.answers.insert("p:2".into(), Err("no answer in time".into()));
    found.replicas = ["h:1", "h:2", "h:3"].map(|address| (address.to_owned(), "a".to_owned())).into();
    found.proxies = ["p:1", "p:2"].map(str::to_owned).into();
    found
}

#[test]
fn the_report_names_every_server_once() {
    let shown = serde_json::to_value(Report::new(&found())).unwrap();

    let expected = serde_json::json!({
        "cells": [{
            "name": "a", "master": "h:1", "epoch": 4, "nodes": 17, "sessions": 3, "keepalives_per_s": 1.25,
            "replicas": [
                {"id": 1, "address": "h:1", "state": "master", "applied": 10},
                {"id": 2, "address": "h:2", "state": "follower", "applied": 20},
                {"id": null, "address": "h:3", "state": "unreachable", "applied": null},
            ],
        }],
        "proxies": [
            {"address": "p:1", "role": "proxy", "layer": 1, "upstream": [], "sessions": 1000, "upstream_sessions": 1, "keepalives_per_s": 125.0},
            {"address": "p:2", "role": "unreachable", "layer": null, "upstream": null, "sessions": null, "upstream_sessions": null, "keepalives_per_s": null},
        ],
        "unreachable": [
            {"address": "h:3", "why": "connection refused"},
            {"address": "p:2", "why": "no answer in time"},
        ],
    });
    assert_eq!(shown, expected);
}

/// A proxy that answers at an address, and what it is behind.
fn behind(address: &str, upstream: &[&str]) -> (String, Result<StatusReply, String>) {
    let upstream = upstream.iter().map(|above| (*above).to_owned()).collect();
    let status =
        HostStatus { role: "proxy".into(), address: address.to_owned(), upstream, ..HostStatus::default() };
    (address.to_owned(), Ok(StatusReply { map: None, server: Some(Server::Host(status)) }))
}

#[test]
fn the_layer_of_a_proxy_is_how_many_there_are_on_the_way_to_a_cell() {
    let mut found = Found::default();
    let (asked, upper) = ("upper:1".to_owned(), behind("0.0.0.0:1", &[]).1);
    found.answers.insert(asked.clone(), upper);
    found.answers.insert("upper:2".into(), Err("connection refused".into()));
    found.answers.extend([behind("low:1", &["upper:2", "upper:1"]), behind("lowest:1", &["low:1"])]);
    found.answers.extend([behind("lost:1", &["upper:2"]), behind("round:1", &["round:1"])]);
    found.proxies = [asked, "upper:2".to_owned()].into();

    let report = Report::new(&found);

    let shown: Vec<_> = report.proxies.iter().map(|host| (host.address.as_str(), host.layer)).collect();
    let expected = [
        ("0.0.0.0:1", Some(1)),
        ("lost:1", None),
        ("low:1", Some(2)),
        ("lowest:1", Some(3)),
        ("round:1", None),
        ("upper:2", None),
    ];
    assert_eq!(shown, expected, "each once, whatever it was asked as");
    let text = report.tables();
    for word in ["LAYER", "BEHIND", "cells", "upper:2,upper:1"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn the_newer_of_two_masters_is_shown() {
    let mut found = Found::default();
    found.answers.insert("h:1".into(), Ok(replica(1, "master", 4)));
    found.answers.insert("h:2".into(), Ok(replica(2, "master", 5)));

    let report = Report::new(&found);

    assert_eq!(report.cells[0].master.as_deref(), Some("h:2"));
    assert_eq!(report.cells[0].epoch, 5);
}

#[test]
fn a_cell_without_a_master_says_none() {
    let mut found = Found::default();
    found.answers.insert("h:2".into(), Ok(replica(2, "follower", 4)));

    let report = Report::new(&found);

    assert_eq!(report.cells[0].master, None);
    assert!(report.tables().contains("none"), "{}", report.tables());
}

#[test]
fn the_tables_show_cells_replicas_and_proxies() {
    let text = Report::new(&found()).tables();

    for word in ["CELL", "h:1", "unreachable", "PROXY", "125.0", "h:3 does not answer: connection refused"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}
