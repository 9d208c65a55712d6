//! Of `bounded`.

use std::time::Duration;

use super::*;
use crate::sim::check::bounded::{Patience, Trouble, check_waiting, check_waits, may_lose_sessions};

const SECOND: u64 = 1_000_000;

fn late(seconds: u64, troubles: &[(u64, u64)]) -> Vec<String> {
    let mut history = file();
    history.asked.push(write(0, (10 * SECOND, (10 + seconds) * SECOND), 10, "a"));
    let trouble =
        |(from, until): &(u64, u64)| Trouble { from: Moment::seconds(*from), until: Moment::seconds(*until) };
    let patience = Patience {
        troubles: troubles.iter().map(trouble).collect(),
        lease: Duration::from_secs(3),
        lease_max: Duration::from_secs(12),
    };
    let mut findings = Findings::default();
    check_waits(&history, &patience, &mut findings);
    findings.broken
}

#[test]
fn a_change_that_waits_for_longer_than_any_lease_is_seen() {
    assert!(late(9, &[]).is_empty());

    let broken = late(10, &[]);
    assert!(broken[0].contains("no bound: Write"), "{broken:?}");
}

#[test]
fn a_change_may_wait_until_troubles_are_over_and_no_longer() {
    assert!(late(40, &[(12, 30)]).is_empty());
    assert!(!late(50, &[(12, 22)]).is_empty());
    assert!(!late(40, &[(55, 60)]).is_empty(), "it came later");
}

#[test]
fn proxies_lose_sessions_without_a_fault_where_messages_take_longer_than_the_last_third_of_a_lease() {
    let lease = Duration::from_millis(1_500);
    assert!(may_lose_sessions((50, 1_000), lease));
    assert!(may_lose_sessions((1, 500), lease));
    assert!(!may_lose_sessions((50, 499), lease));
    assert!(!may_lose_sessions((0, 1_000), lease), "none is slow");
}

#[test]
fn who_still_waits_at_the_end_is_seen() {
    let broken = |waiting: &[_], answers| {
        let mut findings = Findings::default();
        check_waiting(waiting, answers, &mut findings);
        findings.broken
    };

    assert!(broken(&[], 21).is_empty());
    assert!(broken(&[(1, Some(Moment::seconds(50)))], 21)[0].contains("c2 still waits"));
    assert!(broken(&[], 20)[0].contains("only 20 calls"));
}
