//! Histories that break a promise, and their neighbours that do not.

mod cells;

use std::time::Duration;

use hasp_proto::id::{CellName, Epoch};
use hasp_proto::node::LockMode;

use super::*;

fn at(index: u64) -> Position {
    Position { cell: CellName::new("a"), epoch: Epoch(1), index }
}

fn operation(client: usize, begun: u64, call: Call, end: Option<(u64, Answer)>) -> Operation {
    let end = end.map(|(at, answer)| (Moment(at), answer));
    Operation { client, file: "f", call, begun: Moment(begun), end }
}

fn write(begun: u64, ended: u64, contents: &str, previous: u64, generation: u64) -> Operation {
    let answer = Answer::Written { generation, previous, position: at(generation * 10) };
    operation(1, begun, Call::Write { contents: contents.into(), guard: None }, Some((ended, answer)))
}

fn unanswered(begun: u64, contents: &str) -> Operation {
    operation(2, begun, Call::Write { contents: contents.into(), guard: None }, None)
}

fn refused(begun: u64, contents: &str) -> Operation {
    operation(
        2,
        begun,
        Call::Write { contents: contents.into(), guard: None },
        Some((begun + 5, Answer::Refused)),
    )
}

fn read(client: usize, begun: u64, ended: u64, contents: &str, generation: u64) -> Operation {
    let position = at(generation * 10 + 1);
    let answer = Answer::Read { contents: contents.into(), generation, position };
    operation(client, begun, Call::Read, Some((ended, answer)))
}

/// The same, answered at another position.
fn moved(mut operation: Operation, index: u64) -> Operation {
    match &mut operation.end {
        Some((_, Answer::Read { position, .. } | Answer::Written { position, .. })) => *position = at(index),
        end => panic!("{end:?} has no position"),
    }
    operation
}

fn check(result: Result<(), Broken>, expected: Option<&str>) {
    match (result, expected) {
        (Ok(()), None) => {}
        (Err(broken), Some(expected)) => assert!(broken.contains(expected), "{broken}"),
        (result, expected) => panic!("{result:?} instead of {expected:?}"),
    }
}

#[test]
fn a_chain_is_whole_or_an_unanswered_write_fills_its_gap() {
    let whole = vec![write(0, 5, "x", 1, 2), write(10, 15, "y", 2, 3), refused(11, "z")];
    check(check_generations_chain(&whole), None);

    let gap = vec![write(0, 5, "x", 1, 2), write(20, 25, "y", 3, 4)];
    check(check_generations_chain(&gap), Some("that nobody asked for, or twice"));

    let filled = vec![write(0, 5, "x", 1, 2), unanswered(6, "z"), write(20, 25, "y", 3, 4)];
    check(check_generations_chain(&filled), None);

    let too_wide =
        vec![write(0, 5, "x", 1, 2), unanswered(6, "z"), write(20, 25, "y", 3, 4), write(30, 35, "v", 5, 6)];
    check(check_generations_chain(&too_wide), Some("between generations 4 and 6"));
}

#[test]
fn a_lost_or_repeated_acknowledged_write_breaks_the_chain() {
    let lost = vec![write(0, 5, "x", 1, 2), write(10, 15, "y", 1, 3)];
    check(check_generations_chain(&lost), Some("the acknowledged 2 was lost"));

    let handed_out_twice = vec![write(0, 5, "x", 1, 2), write(10, 15, "y", 1, 2)];
    check(check_generations_chain(&handed_out_twice), Some("two writes were acknowledged"));

    let backwards = vec![write(0, 5, "x", 3, 2)];
    check(check_generations_chain(&backwards), Some("replaced the later 3"));

    let twice = vec![write(0, 5, "x", 1, 2), read(2, 20, 25, "x", 3)];
    check(check_generations_chain(&twice), Some("generations 2 and 3"));
}

#[test]
fn writes_have_positions_in_the_order_of_their_generations() {
    let chain = |first| vec![moved(write(0, 50, "x", 1, 2), first), write(10, 15, "y", 2, 3)];

    check(check_generations_chain(&chain(29)), None);
    check(check_generations_chain(&chain(30)), Some("2 was written at a/1/30, and 3 at a/1/30"));
    // That of a write asked again: where it was asked, not where it took effect.
    check(check_generations_chain(&chain(40)), Some("2 was written at a/1/40, and 3 at a/1/30"));
}

#[test]
fn what_is_read_was_written_by_then_and_not_refused() {
    let other = vec![write(0, 5, "x", 1, 2), read(2, 20, 25, "y", 2)];
    check(check_generations_chain(&other), Some("generation 2 is"));

    let refused = vec![refused(0, "x"), read(2, 20, 25, "x", 2)];
    check(check_generations_chain(&refused), Some("whose write was refused"));

    let early = vec![read(2, 0, 5, "x", 2), unanswered(10, "x")];
    check(check_generations_chain(&early), Some("before it was written"));

    let late = vec![unanswered(0, "x"), read(2, 20, 25, "x", 2)];
    check(check_generations_chain(&late), None);
}

#[test]
fn a_read_that_begins_after_a_write_ended_sees_it() {
    let stale = vec![read(2, 11, 15, "x", 2), write(0, 5, "x", 1, 2), write(6, 10, "y", 2, 3)];
    check(check_read_your_writes(&stale), Some("client 2 began at 11 ms and was answered generation 2"));

    let at_once = vec![read(2, 10, 15, "x", 2), write(0, 5, "x", 1, 2), write(6, 10, "y", 2, 3)];
    check(check_read_your_writes(&at_once), None);
}

#[test]
fn a_read_that_begins_after_another_ended_sees_no_less() {
    let back = vec![unanswered(0, "y"), read(2, 1, 5, "y", 3), read(3, 6, 9, "x", 2)];
    check(check_read_your_writes(&back), Some("after client 2 was answered 3"));
}

#[test]
fn a_write_that_begins_after_another_ended_gets_a_later_generation() {
    let equal = vec![write(0, 5, "x", 1, 2), write(6, 9, "y", 1, 2)];
    check(check_read_your_writes(&equal), Some("generation 2 (written)"));
}

#[test]
fn a_read_at_a_later_position_sees_no_less() {
    let behind = |index| vec![read(2, 0, 5, "y", 3), moved(read(3, 0, 5, "x", 2), index)];
    check(check_read_your_writes(&behind(31)), None);
    check(check_read_your_writes(&behind(32)), Some("generation 2 read at a/1/32"));

    let answered_late = vec![write(0, 50, "x", 1, 2), read(2, 0, 5, "y", 3)];
    check(check_read_your_writes(&answered_late), None);
}

#[test]
fn a_write_at_a_later_position_makes_more_than_was_seen() {
    let late = |index| vec![moved(write(0, 50, "x", 1, 2), index), read(2, 0, 5, "x", 2)];
    check(check_read_your_writes(&late(21)), None);
    check(check_read_your_writes(&late(22)), Some("generation 2 written at a/1/22, and 2 was there before"));

    let unseen = |index| vec![write(0, 50, "x", 1, 2), moved(read(2, 0, 5, "w", 1), index)];
    check(check_read_your_writes(&unseen(19)), None);
    check(check_read_your_writes(&unseen(20)), Some("generation 1 read at a/1/20, and 2 was there before"));
}

#[test]
fn a_clients_reads_never_go_back_even_over_files() {
    let mut other = read(1, 6, 9, "x", 2);
    other.file = "g";
    let history = vec![read(1, 0, 5, "y", 3), other];
    check(check_read_your_writes(&history), Some("client 1 read at a/1/21 after it had seen a/1/31"));
}

#[test]
fn a_client_writes_at_a_later_position_than_it_has_seen() {
    let then = |index| {
        let mut other = moved(write(6, 9, "x", 1, 2), index);
        other.file = "g";
        vec![read(1, 0, 5, "y", 3), other]
    };

    check(check_read_your_writes(&then(32)), None);
    check(check_read_your_writes(&then(31)), Some("client 1 wrote at a/1/31 after it had seen a/1/31"));
    check(check_read_your_writes(&then(20)), Some("client 1 wrote at a/1/20 after it had seen a/1/31"));
}

#[test]
fn every_acknowledged_append_is_there_once_and_in_order() {
    let history =
        [write(0, 5, "x", 1, 2), write(6, 9, "x y", 2, 3), unanswered(10, "x y u"), refused(3, "r")];

    check(check_appended(&history, "f", "x y"), None);
    check(check_appended(&history, "f", "x y u"), None);
    check(check_appended(&history, "f", "x"), Some("y was lost"));
    check(check_appended(&history, "f", "x y x"), Some("x was appended twice"));
    check(check_appended(&history, "f", "y x"), Some("not in the order"));
    check(check_appended(&history, "f", "x r y"), Some("its write was refused"));
}

fn hold(client: usize, generation: u64, granted: u64, until: u64, end: HoldEnd) -> Hold {
    let believed_until = Some(Moment(until));
    let (position, granted) = (at(generation * 10), Moment(granted));
    let mode = LockMode::Exclusive;
    Hold { client, mode, generation, position, granted, believed_until, end }
}

#[test]
fn holders_follow_one_another() {
    let released = HoldEnd::Released(at(15));
    let one = hold(1, 1, 0, 50, released.clone());
    check(check_holders(&[hold(2, 2, 60, 70, HoldEnd::Open), one.clone()]), None);

    let early = hold(2, 2, 40, 70, HoldEnd::Open);
    check(check_holders(&[one.clone(), early]), Some("held until 50 ms, granted at 40 ms"));

    let same = hold(2, 1, 60, 70, HoldEnd::Open);
    check(check_holders(&[one.clone(), same]), Some("one generation"));

    let backwards = hold(1, 1, 0, 50, HoldEnd::Released(at(10)));
    check(check_holders(&[backwards, hold(2, 2, 60, 70, HoldEnd::Open)]), Some("released at a/1/10"));

    let next_at = |index| {
        let mut next = hold(2, 2, 60, 70, HoldEnd::Open);
        next.position = at(index);
        [one.clone(), next]
    };
    check(check_holders(&next_at(9)), Some("acquired at a/1/10 and a/1/9"));
    check(check_holders(&next_at(15)), Some("released at a/1/15, acquired at a/1/15"));
    check(check_holders(&next_at(16)), None);

    let mut endless = hold(1, 1, 0, 0, HoldEnd::Open);
    endless.believed_until = None;
    check(check_holders(&[endless, hold(2, 2, 9, 9, HoldEnd::Open)]), Some("until the end"));
}

#[test]
fn who_follows_a_lost_holder_waits_out_the_lock_delay() {
    let lost = hold(1, 1, 0, 50, HoldEnd::Lost(Moment(50), Duration::from_millis(100)));

    check(check_holders(&[lost.clone(), hold(2, 2, 150, 160, HoldEnd::Open)]), None);
    check(check_holders(&[lost, hold(2, 2, 149, 160, HoldEnd::Open)]), Some("lock-delay of 100ms"));
}

#[test]
fn a_read_of_what_was_replaced_before_it_has_no_place_in_any_order() {
    let good = vec![
        write(0, 5, "x", 1, 2),
        write(10, 15, "y", 2, 3),
        read(2, 11, 14, "x", 2),
        read(2, 20, 25, "y", 3),
    ];
    check(check_zones(&good), None);

    let stale = vec![
        write(0, 5, "x", 1, 2),
        write(10, 15, "y", 2, 3),
        read(2, 16, 20, "x", 2),
        read(3, 12, 17, "y", 3),
    ];
    check(check_zones(&stale), Some("\"y\" happened while \"x\" was current"));

    let both = vec![
        write(0, 5, "x", 1, 2),
        write(10, 15, "y", 2, 3),
        read(2, 20, 25, "x", 2),
        read(3, 20, 25, "y", 3),
    ];
    check(check_zones(&both), Some("current"));

    let invented = vec![write(0, 5, "x", 1, 2), read(2, 16, 20, "z", 9)];
    check(check_zones(&invented), Some("which nobody wrote"));
}

#[test]
fn an_unanswered_write_may_have_happened_or_not_but_not_before_it_began() {
    let seen =
        vec![write(0, 5, "x", 1, 2), unanswered(6, "z"), read(3, 20, 25, "z", 3), read(3, 30, 35, "z", 3)];
    check(check_zones(&seen), None);
    check(check_zones(&[write(0, 5, "x", 1, 2), unanswered(6, "z"), read(3, 20, 25, "x", 2)]), None);

    let gone =
        vec![unanswered(6, "z"), read(3, 20, 25, "z", 3), write(30, 31, "x", 3, 4), read(3, 40, 45, "z", 3)];
    check(check_zones(&gone), Some("while \"z\" was current"));
}

#[test]
fn a_guarded_write_takes_effect_while_its_acquisition_stands() {
    let guarded = |index: u64, generation: u64| {
        let mut operation = moved(write(0, 5, "x", 1, 2), index);
        operation.call = Call::Write { contents: "x".into(), guard: Some(generation) };
        vec![operation]
    };
    let holds = [hold_at(7, 10), hold_at(8, 20)];

    check(check_guarded(&guarded(15, 7), &holds), None);
    check(check_guarded(&guarded(25, 8), &holds), None);
    check(check_guarded(&guarded(25, 7), &holds), Some("generation 8 was acquired"));
    check(check_guarded(&guarded(9, 7), &holds), Some("generation 7 was acquired"));
}

fn hold_at(generation: u64, index: u64) -> Hold {
    Hold {
        client: 1,
        mode: LockMode::Exclusive,
        generation,
        position: at(index),
        granted: Moment(index),
        believed_until: None,
        end: HoldEnd::Open,
    }
}

#[test]
fn who_shares_a_lock_has_it_with_others_and_nobody_alone_meanwhile() {
    let sharing = |client, position, granted, until, end| {
        let mode = LockMode::Shared;
        Hold { mode, position: at(position), ..hold(client, 1, granted, until, end) }
    };
    let (one, other) = (sharing(1, 10, 0, 50, HoldEnd::Open), sharing(2, 12, 20, 90, HoldEnd::Open));
    check(check_holders(&[one.clone(), other.clone(), hold(3, 2, 90, 99, HoldEnd::Open)]), None);
    assert_eq!(shared(&[one.clone(), other.clone()]), 1);

    check(
        check_holders(&[one.clone(), other.clone(), hold(3, 2, 60, 99, HoldEnd::Open)]),
        Some("held until 90 ms, granted at 60 ms"),
    );
    let alone = Hold { mode: LockMode::Exclusive, ..other };
    check(check_holders(&[one.clone(), alone]), Some("one generation"));

    let lost = HoldEnd::Lost(Moment(50), Duration::from_millis(100));
    let died = Hold { end: lost, ..one };
    let joined = sharing(2, 12, 60, 140, HoldEnd::Open);
    check(check_holders(&[died.clone(), joined.clone(), hold(3, 2, 150, 160, HoldEnd::Open)]), None);
    check(check_holders(&[died, joined, hold(3, 2, 149, 160, HoldEnd::Open)]), Some("lock-delay of 100ms"));
}

#[test]
fn who_shares_a_lock_writes_after_the_first_that_has_it() {
    let mut operation = moved(write(0, 5, "x", 1, 2), 15);
    operation.call = Call::Write { contents: "x".into(), guard: Some(7) };
    let sharing = |index| Hold { mode: LockMode::Shared, ..hold_at(7, index) };

    check(check_guarded(std::slice::from_ref(&operation), &[sharing(20), sharing(10)]), None);
    check(
        check_guarded(&[operation], &[sharing(20), sharing(16)]),
        Some("generation 7 was acquired at a/1/16"),
    );
}

#[test]
fn each_write_is_told_once_and_in_order_and_reads_show_it() {
    let history = vec![
        write(0, 5, "x", 1, 2),
        write(10, 15, "y", 2, 3),
        write(20, 25, "z", 3, 4),
        read(2, 40, 41, "y", 3),
    ];
    let watch = |told: Vec<Told>| {
        let told = told.into_iter().zip(30..).map(|(told, moment)| (Moment(moment), told)).collect();
        vec![Watch { client: 2, file: "f", begun: Moment(8), told }]
    };
    let event = |generation: u64| Told::Modified(at(generation * 10));
    check(check_events(&history, &watch(vec![event(2), event(3)])), None);
    check(check_events(&history, &watch(vec![event(2), event(4)])), Some("not of a/1/30"));
    check(check_events(&history, &watch(vec![event(2), event(4)])[..0]), None);
    check(check_events(&history, &watch(vec![event(3), event(2)])), Some("was told of a/1/20 after a/1/30"));
    check(check_events(&history, &watch(vec![event(3), event(3)])), Some("after"));
    check(check_events(&history[..3], &watch(vec![event(2), Told::Lost, event(4)])), None);
    check(
        check_events(&history, &watch(vec![event(4)])),
        Some("was told of a/1/40 at first, and not of a/1/30"),
    );
    let shown = [history[2].clone(), history[3].clone()];
    check(check_events(&shown, &watch(vec![event(4)])), Some("was told of a/1/40 at 30 ms, then"));
    check(check_events(&history, &watch(vec![Told::Modified(at(21))])), Some("that nobody asked for"));

    let [late] = &watch(vec![event(2), event(3)])[..] else { unreachable!("one watch") };
    assert!(late.is_up_to_date(&history, Moment(25)));
    assert!(!late.is_up_to_date(&history, Moment(26)));
}

#[test]
fn nobody_is_let_in_or_refused_but_as_the_acl_said_meanwhile() {
    let knock = |begun, ended, is_allowed| {
        vec![Knock { client: 1, begun: Moment(begun), ended: Moment(ended), is_allowed, position: None }]
    };
    let history = vec![write(10, 15, "*#1", 1, 2), write(30, 35, "#2", 2, 3)];
    let checked = |knocks: Vec<Knock>| check_access(&history, &knocks, "f", false);

    check(checked(knock(0, 5, false)), None);
    check(checked(knock(0, 5, true)), Some("said otherwise"));
    check(checked(knock(12, 14, true)), None);
    check(checked(knock(12, 14, false)), None);
    check(checked(knock(16, 20, false)), Some("said otherwise"));
    check(check_access(&history, &knock(16, 20, false), "f", true), None);
    check(checked(knock(16, 31, false)), None);
    check(checked(knock(34, 38, true)), None);
    check(checked(knock(36, 38, true)), Some("said otherwise"));
    check(check_access(&history, &knock(36, 38, true), "f", true), Some("said otherwise"));
}
