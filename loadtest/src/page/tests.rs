use std::collections::BTreeMap;

use super::*;
use crate::job::Sessions;
use crate::measure::Summary;
use crate::report::Setting;
use crate::series::Mark;
use crate::workload::Rates;

fn phase(clients: usize, at_master: f64) -> Phase {
    let process = |cpu_share| ProcessSample {
        name: "proxy-1".into(),
        role: "proxy".into(),
        cpu_share: Some(cpu_share),
        rss_mib: Some(80.0),
    };
    let sample = |at_s, latency| Sample {
        at_s,
        ops_per_s: 120.0,
        latency,
        at_masters_per_s: BTreeMap::from([("a".to_owned(), at_master)]),
        processes: vec![process(0.25)],
        ..Sample::default()
    };
    let latency = Summary { count: 9, p50_us: 1_500, p99_us: 9_000, max_us: 20_000 };
    let marks = vec![Mark { at_s: 1.5, what: "proxy-1 is killed".into() }];
    Phase {
        clients,
        seconds: 2.0,
        sessions: Sessions { opened: clients as u64, lost: 0, jeopardy: 3 },
        at_masters_per_s: BTreeMap::from([("a".to_owned(), at_master)]),
        at_proxies_per_s: Some(11_250.0),
        series: Series { samples: vec![sample(1.0, Some(latency)), sample(2.0, None)], marks },
        ..Phase::default()
    }
}

fn page_of(main: &Phase, baseline: Option<&Phase>) -> String {
    let rates = Rates::paper(main.clients);
    let setting =
        Setting { proxies: 9, upper_proxies: 0, cells: 2, replicas: 3, seed: 1, rates, is_raised: true };
    page(&Report::new(&setting, main, baseline), main)
}

#[test]
fn the_page_says_what_was_measured_and_needs_nothing_else() {
    let baseline = Phase { is_baseline: true, ..phase(3_000, 375.0) };
    let text = page_of(&phase(90_000, 1.125), Some(&baseline));

    assert!(text.contains("<b>90,000</b>sessions opened"));
    assert!(
        text.contains("<b>10,000</b>times fewer KeepAlives"),
        "0.125 a client, 90,000 clients, 1.125 received"
    );
    assert_eq!(text.matches("<svg").count(), 6);
    assert_eq!(text.matches("proxy-1 is killed</text>").count(), 5, "in every plot over time");
    for fetched in ["http:", "https:", "<script", "src=", "@import"] {
        assert!(!text.contains(fetched), "{fetched}");
    }
    assert!(!text.contains("NaN"));
}

#[test]
fn what_went_wrong_stands_in_front_and_is_no_html() {
    let mut bad = phase(10, 1.0);
    bad.sessions.lost = 2;
    bad.ops.note_failure("open: <b>nothing</b> & more".into());
    bad.checks.errors = 1;

    let text = page_of(&bad, None);

    let wrong = text.find("What went wrong").expect("told");
    assert!(wrong < text.find("<svg").expect("a plot"));
    assert!(text.contains("2 sessions were lost") && text.contains("&lt;b&gt;nothing"));
    assert!(!text.contains("<b>nothing"));
}

#[test]
fn a_measurement_without_looks_has_no_plots_over_time() {
    let mut short = phase(10, 1.0);
    short.series = Series::default();

    let text = page_of(&short, None);

    assert_eq!(text.matches("<svg").count(), 1);
    assert!(text.contains("Too short"));
}

#[test]
fn thousands_are_set_apart() {
    assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
