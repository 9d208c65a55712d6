//! What a session's holder does, seen in the two-ended world.

use std::time::Duration;

use super::{Event, Status};
use crate::error::ErrorCode;
use crate::handle::HandleToken;
use crate::id::{CellName, Epoch, Generation, RequestNumber};
use crate::lease::{Ceiling, LeaseEnds, LeaseTerms};
use crate::limits::LEASE_MAX;
use crate::node::AclNames;
use crate::pair::Pair;
use crate::position::Position;
use crate::request::{Answer, Op, Reply};
use crate::server::ServerCore;
use crate::stream::{Down, News};
use crate::time::{Time, t};

fn op() -> Op {
    Op::Close(HandleToken::new(bytes::Bytes::from_static(b"h")))
}

fn expired(pair: &Pair) -> bool {
    pair.events.iter().any(|event| matches!(event, Event::Expired(_)))
}

#[test]
fn a_session_is_kept_by_one_keep_alive_every_eight_seconds() {
    let mut pair = Pair::new(&["m"]);

    pair.run_until(t(60_000));

    assert_eq!(pair.client.status(), Status::Safe);
    let sent = pair.client.keep_alives_sent();
    assert!((8..=10).contains(&sent), "60 s / 8 s, and one more for the phase: {sent}");
    pair.check_transcript("keep_alive");
}

#[test]
fn a_request_is_asked_again_with_its_number_after_a_lost_connection() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    let number = pair.client.submit(op().into());
    pair.run_until(t(200));

    pair.break_links();
    pair.run_until(t(1_000));

    assert_eq!(pair.asked("m"), vec![number], "the host was still at it: asked once, not twice");
    let session = pair.client.session();
    pair.host("m").core.answer(session, Answer::plain(number, Ok(Reply::Closed)));
    pair.run_until(t(1_100));
    assert_eq!(pair.answers.len(), 1);
    pair.check_transcript("lost_connection");
}

#[test]
fn a_request_whose_answer_was_lost_is_worked_on_again_under_the_same_number() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    let number = pair.client.submit(op().into());
    pair.run_until(t(115)); // It has arrived and was answered; the answer is still on its way.

    pair.break_links();
    pair.run_until(t(1_000));

    assert_eq!(pair.asked("m"), vec![number, number]);
    assert_eq!(pair.answers.len(), 1);
}

#[test]
fn the_holder_goes_to_the_next_host_and_resumes_with_a_greater_claim() {
    let mut pair = Pair::new(&["p1", "p2"]);
    pair.host("p2").admits_resumed = true;
    pair.run_until(t(5_000));

    pair.take_down("p1");
    pair.run_until(t(7_000));

    assert_eq!(pair.client.host(), Some("p2"));
    assert!(!pair.events.contains(&Event::Jeopardy), "the lease had not run out");
    pair.check_transcript("next_host");
}

#[test]
fn the_next_host_is_not_bound_by_the_cache_lease_of_the_last() {
    let mut pair = Pair::new(&["p1", "p2"]);
    pair.host("p2").admits_resumed = true;
    pair.run_until(t(5_000));
    let granted = pair.client.lease_ends();
    assert!(granted.cache > t(11_000));

    // The next one could not promise to void anything beyond seven seconds.
    let ends = LeaseEnds { session: t(60_000), cache: t(7_000) };
    pair.host("p2").core.set_ceiling(t(5_000), Ceiling::Upstream(ends));
    pair.take_down("p1");
    pair.run_until(t(6_500));

    assert_eq!(pair.client.host(), Some("p2"));
    assert!(pair.client.lease_ends().cache <= t(7_000), "{:?}", pair.client.lease_ends());
    assert!(pair.client.lease_ends().session >= granted.session, "time-3: the session lease goes on");
    assert!(pair.events.contains(&Event::CacheLapsed));
}

#[test]
fn the_next_host_does_not_end_a_session_that_counts_on_the_word_of_the_last() {
    let mut pair = Pair::new(&["p1", "p2"]);
    pair.host("p1").core = generous_host();
    pair.host("p2").admits_resumed = true;
    pair.run_until(t(5_000));
    let ends = pair.client.lease_ends().session;
    assert!(ends > t(55_000), "{ends:?}");
    pair.take_down("p1");
    pair.run_until(t(7_000));
    assert_eq!(pair.client.host(), Some("p2"));

    pair.latency = Duration::from_secs(600); // Neither hears of the other any more.
    pair.break_links();
    pair.run_until(ends);
    assert!(pair.host("p2").expired.is_empty(), "its own word was over at 19 s");
    pair.run_until(ends + Duration::from_secs(2));

    assert_eq!(pair.host("p2").expired.len(), 1);
}

/// Grants as much as anybody may.
fn generous_host() -> ServerCore {
    let mut core = ServerCore::new(LeaseTerms { lease: LEASE_MAX });
    core.set_ceiling(Time::ZERO, Ceiling::Master);
    core
}

#[test]
fn without_a_host_the_lease_ends_in_jeopardy_and_the_grace_period_in_expiry() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.take_down("m");
    let number = pair.client.submit(op().into());

    pair.run_until(t(11_000));
    assert_eq!(pair.client.status(), Status::Safe, "the lease holds without a connection");
    pair.run_until(t(12_000));
    assert_eq!(pair.client.status(), Status::Jeopardy, "12 s / 1.01 after the Hello");
    pair.run_until(t(56_500));
    assert_eq!(pair.client.status(), Status::Jeopardy);
    assert!(pair.answers.is_empty(), "calls block in jeopardy");

    pair.run_until(t(57_000));
    assert_eq!(pair.client.status(), Status::Over);
    let answer = &pair.answers[0];
    assert_eq!(answer.number, number);
    assert_eq!(answer.result.as_ref().map_err(|error| &error.code), Err(&ErrorCode::SessionExpired));
}

#[test]
fn whatever_a_host_calls_it_a_session_that_is_over_has_expired_and_so_say_all_calls() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    let number = pair.client.submit(op().into());
    pair.run_until(t(200));

    let session = pair.client.session();
    pair.host("m").core.expel(session, ErrorCode::SessionMoved.because("a newer claim"));
    pair.run_until(t(300));

    let error = ErrorCode::SessionExpired.because("a newer claim");
    assert_eq!(pair.events.last(), Some(&Event::Expired(error.clone())));
    assert_eq!(pair.answers, [Answer::plain(number, Err(error))]);
}

#[test]
fn a_host_that_comes_back_in_the_grace_period_makes_the_session_safe_again() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.take_down("m");
    pair.client.submit(op().into());
    pair.run_until(t(30_000));
    assert_eq!(pair.client.status(), Status::Jeopardy);

    pair.host("m").up = true;
    pair.host("m").admits_resumed = true;
    pair.run_until(t(32_000));

    assert_eq!(pair.client.status(), Status::Safe);
    assert!(pair.events.contains(&Event::Safe));
    assert_eq!(pair.answers.len(), 1, "the blocked call went through");
}

#[test]
fn a_host_that_falls_silent_is_left_before_the_lease_ends() {
    let mut pair = Pair::new(&["p1", "p2"]);
    pair.host("p2").admits_resumed = true;
    pair.run_until(t(100));

    pair.host("p1").core.set_ceiling(t(100), Ceiling::Closed);
    pair.run_until(t(60_000));

    assert_eq!(pair.client.host(), Some("p2"));
    assert!(!pair.events.contains(&Event::Jeopardy));
}

#[test]
fn a_session_unknown_to_the_master_is_expired_at_once() {
    let mut pair = Pair::new(&["m1", "m2"]);
    pair.run_until(t(100));

    pair.take_down("m1");
    pair.run_until(t(3_000));

    assert!(expired(&pair), "m2 does not know it and says so");
}

#[test]
fn a_request_refused_for_the_moment_is_asked_again() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    let number = pair.client.submit(op().into());
    pair.run_until(t(120));
    let session = pair.client.session();
    let result = Err(ErrorCode::Unavailable.because("the entry was lost"));
    pair.host("m").core.answer(session, Answer::plain(number, result));

    pair.run_until(t(1_000));

    assert_eq!(pair.asked("m"), vec![number, number]);
    assert!(pair.answers.is_empty(), "the caller hears nothing of it");
}

#[test]
fn an_answer_older_than_what_was_seen_is_not_believed() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    let first = pair.client.submit(op().into());
    let second = pair.client.submit(op().into());
    pair.run_until(t(150));
    let at = |index| Some(Position { cell: CellName::new("a"), epoch: Epoch(1), index });
    let children = || Ok(Reply::Children { children: vec![], acls: AclNames::default() });
    let session = pair.client.session();
    pair.host("m").core.answer(session, Answer { position: at(9), ..Answer::plain(first, children()) });
    pair.host("m").core.answer(session, Answer { position: at(8), ..Answer::plain(second, children()) });

    pair.run_until(t(170));

    assert_eq!(pair.answers.len(), 1, "only the first");
    assert_eq!(pair.client.host(), None, "the host is left for another try");
}

#[test]
fn the_answer_of_a_write_may_be_older_than_what_was_seen_and_does_not_lower_the_floor() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    let numbers = [(); 4].map(|()| pair.client.submit(op().into()));
    pair.run_until(t(150));
    let session = pair.client.session();
    let written = Reply::Written { content_generation: Generation(2), previous_generation: Generation(1) };
    let listed = || Reply::Children { children: Vec::new(), acls: AclNames::default() };
    let replies = [listed(), written, Reply::Closed, listed()];
    for ((number, index), reply) in numbers.into_iter().zip([9, 3, 2, 8]).zip(replies) {
        let position = Some(Position { cell: CellName::new("a"), epoch: Epoch(1), index });
        pair.host("m").core.answer(session, Answer { position, ..Answer::plain(number, Ok(reply)) });
    }

    pair.run_until(t(170));

    let answered: Vec<_> = pair.answers.iter().map(|answer| answer.number).collect();
    assert_eq!(answered, numbers[..3], "both writes, and not the read at 8");
    assert_eq!(pair.client.host(), None, "for the read the host is left");
}

#[test]
fn an_ended_session_is_told_to_the_host_and_over() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));

    let now = pair.now;
    pair.client.end(now);
    pair.run_until(t(200));

    assert_eq!(pair.client.status(), Status::Over);
    assert!(pair.host("m").expired.is_empty());
    assert_eq!(pair.host("m").core.session_count(), 0);
    pair.check_transcript("ended");
}

#[test]
fn numbers_below_the_oldest_open_request_are_settled() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    pair.host("m").answers = false;
    for _ in 0..3 {
        pair.client.submit(op().into());
    }
    pair.run_until(t(150));
    let session = pair.client.session();
    for number in [1, 3] {
        let answer = Answer::plain(RequestNumber(number), Ok(Reply::Closed));
        pair.host("m").core.answer(session, answer);
    }
    pair.run_until(t(200));

    pair.client.submit(op().into());
    pair.run_until(t(250));

    let last = &pair.hosts["m"].requests.last().expect("asked").1;
    assert_eq!((last.number, last.settled_below), (RequestNumber(4), RequestNumber(2)));
}

#[test]
fn news_is_taken_in_once_and_acknowledged_every_time() {
    let mut pair = Pair::new(&["m"]);
    pair.run_until(t(100));
    let news = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    let session = pair.client.session();
    pair.host("m").core.tell(t(100), session, news.clone());
    pair.run_until(t(111)); // Told, and acknowledged, but the acknowledgement is lost.

    pair.break_links();
    pair.run_until(t(2_000));

    let seen =
        pair.events.iter().filter(|event| matches!(event, Event::News(_, item) if *item == news)).count();
    assert_eq!(seen, 1);
    pair.check_transcript("news");
}

#[test]
fn the_holders_lease_never_outlives_the_hosts_with_a_fast_host_clock() {
    let mut pair = Pair::new(&["m"]);
    pair.host("m").fast_ppm = 9_900;
    pair.latency = Duration::from_millis(200);
    pair.run_until(t(30_000));
    pair.take_down("m"); // Nothing reaches it, but its clock runs on.
    pair.host("m").up = true;
    pair.latency = Duration::from_secs(3_600);

    while pair.host("m").expired.is_empty() {
        let next = pair.now + Duration::from_millis(10);
        pair.run_until(next);
        assert!(pair.now < t(60_000), "the host gives the session up in the end");
    }

    assert_eq!(pair.client.status(), Status::Jeopardy, "the holder knew before the host acted");
}

#[test]
fn a_down_item_before_the_welcome_does_no_harm() {
    let mut pair = Pair::new(&["m"]);
    let grant = crate::stream::Grant {
        held: Duration::ZERO,
        session: Duration::from_secs(99),
        cache: Duration::ZERO,
    };

    pair.client.received(t(0), super::Attempt(1), Down::Lease { keep_alive: 0, grant });
    pair.run_until(t(100));

    assert!(pair.client.lease_ends().session < t(13_000), "a lease that was not asked for is not believed");
}
