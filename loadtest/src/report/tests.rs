use std::time::Duration;

use super::*;
use crate::capacity::Step;
use crate::check::ViolationKind;

fn rates(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(cell, rate)| ((*cell).to_owned(), *rate)).collect()
}

fn setting() -> Setting {
    Setting {
        proxies: 3,
        upper_proxies: 0,
        cells: 2,
        replicas: 3,
        seed: 1,
        rates: Rates::paper(3_000),
        is_raised: true,
    }
}

fn main_phase() -> Phase {
    let mut ops = OpStats::default();
    ops.succeeded(OpKind::GetStat, Duration::from_micros(700));
    Phase {
        clients: 3_000,
        seconds: 30.000_4,
        sessions: Sessions { opened: 3_000, lost: 0, jeopardy: 0 },
        ramp_seconds: 8.0,
        ramp: Summary { count: 3_000, p50_us: 900, p99_us: 4_000, max_us: 9_000 },
        sent_per_s: 375.0,
        at_proxies_per_s: Some(375.0),
        at_masters_per_s: rates(&[("a", 0.375), ("b", 0.3)]),
        ops,
        processes: vec![ProcessReport {
            role: "proxy".into(),
            name: "proxy-1".into(),
            pid: 7,
            cpu_s: Some(0.2),
            rss_mib: Some(40.0),
            sessions: 1_000,
            cpu_us_per_keepalive: Some(53.333),
            rss_kib_per_session: Some(40.96),
        }],
        ..Phase::default()
    }
}

fn baseline_phase() -> Phase {
    Phase {
        clients: 1_000,
        is_baseline: true,
        sessions: Sessions { opened: 1_000, lost: 0, jeopardy: 0 },
        at_masters_per_s: rates(&[("a", 126.0), ("b", 124.0)]),
        ..main_phase()
    }
}

#[test]
fn the_reduction_is_the_baseline_for_all_clients_over_the_busiest_master() {
    let per_client = baseline_phase().at_master_per_s_per_client();

    assert_eq!(per_client, Some(0.125), "the mean of both masters");
    assert_eq!(reduction(per_client, 3_000, &rates(&[("a", 0.375), ("b", 0.3)])), Some(1_000.0));
    assert_eq!(reduction(None, 3_000, &rates(&[("a", 0.375)])), None, "no baseline");
    assert_eq!(reduction(per_client, 3_000, &rates(&[("a", 0.0)])), None, "nothing received");
    assert_eq!(reduction(per_client, 3_000, &rates(&[])), None, "nobody asked");
}

#[test]
fn a_phase_is_no_success_if_a_session_a_check_or_an_operation_failed() {
    let fault = |change: &dyn Fn(&mut Phase)| {
        let mut phase = main_phase();
        change(&mut phase);
        phase.faults()
    };

    assert!(fault(&|_| {}).is_empty());
    assert_eq!(fault(&|phase| phase.sessions.lost = 2), ["2 sessions were lost"]);
    assert_eq!(fault(&|phase| phase.sessions.opened = 2_999), ["2999 of 3000 sessions were opened"]);
    let violated = fault(&|phase| phase.violations.add(ViolationKind::StaleRead.because("4 after 5")));
    assert_eq!(violated, ["1 checks failed", "StaleRead: 4 after 5"]);
    let failed = fault(&|phase| phase.ops.failed(OpKind::Open, "NotFound: x"));
    assert_eq!(failed, ["1 operations failed", "open: NotFound: x"]);
    assert!(fault(&|phase| phase.sessions.jeopardy = 1).is_empty(), "jeopardy is reported, not a failure");
}

/// The contract with whoever reads the file: these fields, of these types, under these names.
#[test]
fn the_json_has_the_shape_agreed() {
    let report = Report::new(&setting(), &main_phase(), Some(&baseline_phase()));

    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");

    let golden = serde_json::json!({
        "clients": 3000, "proxies": 3, "cells": 2, "replicas": 3, "seconds": 30.0,
        "sessions": {"opened": 3000, "lost": 0, "jeopardy": 0},
        "keepalive": {
            "sent_per_s": 375.0, "at_proxies_per_s": 375.0, "at_upper_proxies_per_s": null,
            "at_masters_per_s": {"a": 0.375, "b": 0.3},
            "baseline_at_master_per_s_per_client": 0.125, "reduction": 1000.0
        },
        "processes": [{
            "role": "proxy", "name": "proxy-1", "pid": 7, "cpu_s": 0.2, "rss_mib": 40.0, "sessions": 1000,
            "cpu_us_per_keepalive": 53.333, "rss_kib_per_session": 40.96
        }],
        "violations": 0
    });
    for (field, value) in golden.as_object().expect("an object") {
        assert_eq!(&json[field], value, "{field}");
    }
    let op = serde_json::json!({"count": 1, "errors": 0, "p50_us": 700, "p99_us": 700, "max_us": 700});
    assert_eq!(json["ops"]["get_stat"], op);
    assert_eq!(json["ops"].as_object().map(serde_json::Map::len), Some(6), "all that were wanted");
}

#[test]
fn a_reduction_from_a_handful_of_keep_alives_is_remarked() {
    let remarks = |seconds| {
        let phase = Phase { seconds, ..main_phase() };
        Report::new(&setting(), &phase, None).remarks
    };

    assert!(remarks(30.0).is_empty());
    assert!(remarks(10.0)[0].contains("only 4 KeepAlives"), "{:?}", remarks(10.0));
}

#[test]
fn what_was_not_measured_is_null() {
    let report = Report::new(&setting(), &main_phase(), None);

    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");

    assert!(json["keepalive"]["reduction"].is_null());
    assert!(json["keepalive"]["baseline_at_master_per_s_per_client"].is_null());
    assert!(json["baseline"].is_null());
}

#[test]
fn keep_alives_are_told_for_each_layer_of_proxies() {
    let phase = Phase { at_upper_proxies_per_s: Some(0.75), ..main_phase() };
    let setting = Setting { upper_proxies: 2, ..setting() };

    let report = Report::new(&setting, &phase, None);

    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
    assert_eq!((&json["proxies"], &json["upper_proxies"]), (&3.into(), &2.into()));
    assert_eq!(json["keepalive"]["at_proxies_per_s"], 375.0);
    assert_eq!(json["keepalive"]["at_upper_proxies_per_s"], 0.75);
    let text = report.to_string();
    assert!(text.starts_with("3000 clients, 3 proxies behind 2 upper ones, 2 cells"), "{text}");
    assert!(text.contains("received by the upper proxies"), "{text}");
}

#[test]
fn the_report_for_people_says_the_reduction_and_whether_all_is_well() {
    let good = Report::new(&setting(), &main_phase(), Some(&baseline_phase())).to_string();
    let lost = Phase { sessions: Sessions { opened: 3_000, lost: 1, jeopardy: 1 }, ..main_phase() };
    let bad = Report::new(&setting(), &lost, None).to_string();

    assert!(good.contains("1000 x") && good.contains("ok: no session lost"), "{good}");
    assert!(bad.contains("FAILED: 1 sessions were lost") && !bad.contains("ok:"), "{bad}");
}

fn churn_report() -> ChurnReport {
    ChurnReport {
        asked_per_s: 100.0,
        stay_s: 5.0,
        opened_per_s: 99.0,
        closed_per_s: 98.0,
        kept_up: true,
        open: Summary { count: 2_970, p50_us: 4_000, p99_us: 20_000, max_us: 31_000 },
        close: Summary { count: 2_450, p50_us: 1_000, p99_us: 5_000, max_us: 9_000 },
        failed: 0,
        left_behind: 0,
    }
}

#[test]
fn clients_that_come_and_go_are_reported_and_their_failures_are_faults() {
    let phase = |change: &dyn Fn(&mut ChurnReport)| {
        let mut churn = churn_report();
        change(&mut churn);
        Phase { churn: Some(churn), visit_failures: vec!["visitor 7: no answer".into()], ..main_phase() }
    };
    let report = Report::new(&setting(), &phase(&|_| {}), None);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");

    assert_eq!((&json["mode"], &json["churn"]["opened_per_s"]), (&"churn".into(), &99.0.into()));
    assert_eq!(json["churn"]["open"]["p99_us"], 20_000);
    assert!(report.to_string().contains("the rate was kept up") && report.faults().is_empty());
    let failed = phase(&|churn| churn.failed = 3).faults();
    assert_eq!(failed, ["3 clients that came and went fared badly", "visitor 7: no answer"]);
    let left = phase(&|churn| churn.left_behind = 2).faults();
    assert_eq!(left, ["2 ephemeral files outlived their sessions"]);
    let slow = Report::new(&setting(), &phase(&|churn| churn.kept_up = false), None);
    assert!(slow.faults().is_empty() && slow.to_string().contains("NOT kept up"), "{slow}");
}

fn step(clients: usize) -> Step {
    Step {
        clients,
        opened: clients as u64,
        asked_per_s: 100.0,
        opened_per_s: 100.0,
        at_master_per_s: Some(0.5),
        master_cpu: Some(0.02),
        seconds: 10.0,
        ..Step::default()
    }
}

#[test]
fn a_search_that_ends_with_a_bend_is_a_success_if_the_first_size_held() {
    let found = |steps| {
        let capacity = Some(Capacity::new(steps, Duration::from_secs(1)));
        // Some were lost at the size that did not hold.
        let sessions = Sessions { opened: 3_000, lost: 9, jeopardy: 0 };
        Phase { capacity, sessions, ..main_phase() }
    };
    let bent = Step { lost: 9, ..step(2_000) };

    let report = Report::new(&setting(), &found(vec![step(1_000), bent.clone()]), None);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");

    assert_eq!(
        (&json["capacity"]["held"], &json["capacity"]["stopped_by"]),
        (&1_000.into(), &"sessions_lost".into())
    );
    assert_eq!(json["mode"], "capacity");
    assert!(report.faults().is_empty(), "{:?}", report.faults());
    let text = report.to_string();
    assert!(text.contains("1000 clients held; at 2000 clients 9 sessions were lost"), "{text}");
    assert!(text.contains("ok: no check failed\n"), "{text}");
    let none = found(vec![bent.clone()]).faults();
    assert_eq!(none, ["no size held: at 2000 clients 9 sessions were lost"]);
    let mut wrong = found(vec![step(1_000), bent]);
    wrong.violations.add(ViolationKind::StaleRead.because("4 after 5"));
    assert_eq!(wrong.faults(), ["1 checks failed", "StaleRead: 4 after 5"]);
}

#[test]
fn each_size_that_was_measured_is_a_point_and_no_other() {
    let master =
        ProcessReport { role: "master".into(), cpu_s: Some(0.6), ..main_phase().processes.remove(0) };
    let main = Phase { processes: vec![master], seconds: 30.0, ..main_phase() };
    let small =
        Phase { clients: 500, sessions: Sessions { opened: 499, ..Sessions::default() }, ..main_phase() };

    let report = Report::new(&setting(), &main, Some(&baseline_phase())).with_others(&[small]);

    let points: Vec<_> = report.points().iter().map(|point| (point.clients, point.proxied)).collect();
    assert_eq!(points, [(500, true), (1_000, false), (3_000, true)]);
    assert_eq!(report.points()[2].master_cpu, Some(0.02));
    assert_eq!(report.points()[1].at_master_per_s, 126.0, "the busiest");
    assert_eq!(report.faults(), ["500 clients: 499 of 500 sessions were opened"]);
    assert!(report.to_string().contains("without"), "a table of the points");

    let unopened = Step { opened: 1_999, seconds: 0.0, at_master_per_s: None, ..step(2_000) };
    let capacity = Some(Capacity::new(vec![step(1_000), unopened], Duration::from_secs(1)));
    let points = Phase { capacity, ..main_phase() }.points();
    assert_eq!(points.iter().map(|point| point.clients).collect::<Vec<_>>(), [1_000]);
}
