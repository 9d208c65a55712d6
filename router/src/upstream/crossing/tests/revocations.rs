//! What happens to requests that carry what an ACL said, when it is taken back.

use hasp_proto::crossing::{SealTicket, Vouch};
use hasp_proto::node::LockMode;

use super::*;

const ACL: &str = "/ls/dev/acl/ops";
const SEAL: SealTicket = SealTicket(9);

fn acquire() -> Op {
    Op::Acquire(handle("c", "/ls/dev/p/d/f", NodeKind::File), LockMode::Exclusive)
}

fn acquired() -> Result<Reply, Error> {
    Ok(Reply::Acquired { lock_generation: Generation(4) })
}

#[test]
fn the_home_cell_hears_that_an_acl_is_forgotten_when_what_carries_it_is_answered() {
    let mut played = Played::new();
    let (_, first) = played.carrying(t(0), open(), "ops");
    let (_, second) = played.carrying(t(0), open(), "ops");

    let news = played.tell_changed(t(1), &[ACL]);
    played.acknowledge(t(2), news);
    played.answer(t(3), "c", &first, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged, []);
    // Who comes from here on goes by what the file will say.
    let later = played.submit(t(3), open());
    played.reply(t(3), "c", needs_acl("ops"));
    played.keep_acl(t(3), "alice");
    played.answer(t(4), "c", &second, needs_acl("ops"));

    assert_eq!(played.acknowledged, [("h".to_owned(), Sequence(1))]);
    assert_eq!(played.code(later), None);
}

#[test]
fn the_owner_does_its_part_first() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), open(), "ops");
    let news = played.tell_changed(t(1), &[ACL]);

    played.answer(t(3), "c", &request, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged, []);
    played.acknowledge(t(4), news);

    assert_eq!(played.acknowledged.len(), 1);
}

#[test]
fn what_a_request_carried_before_is_looked_up_anew_each_time() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), open(), "ops");
    played.tell_changed(t(1), &[ACL]);
    played.answer(t(2), "c", &request, needs_acl("dev"));
    played.keep_acl(t(2), "alice");

    let again = played.take("c");
    assert_eq!((evidence(&again).is_member("ops"), evidence(&again).is_member("dev")), (None, Some(true)));
    // The cell is behind the map: it is asked again after a pause, in which things change.
    played.answer(t(3), "c", &again, error(ErrorCode::WrongCell { map_version: 2 }));
    played.tell_changed(t(50), &["/ls/dev/acl/dev"]);
    played.wait_until(t(103));

    assert_eq!(evidence(&played.take("c")), Evidence::default());

    let (_, request) = played.carrying(t(200), open(), "ops");
    played.tell_changed(t(201), &[ACL]);
    played.answer(
        t(202),
        "c",
        &request,
        needs(Need::Unseal { name: name(D), instance: Instance(7), ticket: SEAL }),
    );
    played.reply(t(202), "p", Ok(Reply::Noted));
    played.reply(t(202), "c", Ok(Reply::Noted));
    assert_eq!(evidence(&played.take("c")), Evidence::default(), "nothing is known any more");
}

#[test]
fn news_of_something_else_waits_for_nothing() {
    let mut played = Played::new();
    played.carrying(t(0), open(), "ops");
    let of_h = [
        played.tell_changed(t(1), &["/ls/dev/acl/dev"]),
        played.tell_changed(t(1), &["/ls/dev/f"]),
        played.tell(t(1), "h", News::EventsLost { cell: None }),
    ];
    let of_c = played.tell(t(1), "c", News::FailOver { cell: CellName::new("c"), epoch: Epoch(2) });

    of_h.into_iter().for_each(|news| played.acknowledge(t(2), news));
    played.core.acknowledge(t(2), Some(&CellName::new("c")), of_c);
    played.play(t(2));

    assert_eq!(played.acknowledged.len(), 4);
}

#[test]
fn a_fail_over_of_the_home_cell_waits_for_what_carries_anything() {
    let mut played = Played::new();
    let (_, first) = played.carrying(t(0), open(), "ops");
    let (_, second) = played.carrying(t(0), open(), "dev");

    let news = played.tell(t(1), "h", News::FailOver { cell: CellName::new("h"), epoch: Epoch(2) });
    played.acknowledge(t(2), news);
    played.answer(t(3), "c", &first, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged, []);
    played.answer(t(4), "c", &second, error(ErrorCode::NotFound));

    assert_eq!(played.acknowledged.len(), 1);
}

#[test]
fn each_piece_of_news_waits_for_what_was_under_way_when_it_came() {
    let mut played = Played::new();
    let (_, first) = played.carrying(t(0), open(), "ops");
    let one = played.tell_changed(t(1), &[ACL]);
    let (_, second) = played.carrying(t(2), open(), "ops");
    let two = played.tell_changed(t(3), &[ACL]);
    played.acknowledge(t(4), one);
    played.acknowledge(t(4), two);

    played.answer(t(5), "c", &first, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged, [("h".to_owned(), Sequence(1))]);
    played.answer(t(6), "c", &second, error(ErrorCode::NotFound));

    assert_eq!(played.acknowledged.len(), 2);
}

#[test]
fn a_cell_that_does_not_answer_holds_up_the_home_cell_no_longer_than_it_believes_us() {
    let mut played = Played::new();
    played.carrying(t(0), open(), "ops");
    let news = played.tell_changed(t(1), &[ACL]);
    played.acknowledge(t(2), news);
    ["c", "h", "p"].iter().for_each(|cell| played.extend(t(8_000), cell));

    let before = Time::from_micros(LEASE_END.as_micros() - 1);
    played.wait_until(before);
    assert_eq!(played.acknowledged, []);
    assert!(played.core.poll_timeout().is_some_and(|(at, _)| at <= LEASE_END));
    played.wait_until(LEASE_END);

    assert_eq!(played.acknowledged.len(), 1);
}

#[test]
fn a_wait_for_a_lock_is_called_back_and_asked_anew() {
    let mut played = Played::new();
    let (ticket, request) = played.carrying(t(0), acquire(), "ops");
    let (_, other) = played.carrying(t(0), acquire(), "dev");

    let news = played.tell_changed(t(1), &[ACL]);
    played.acknowledge(t(1), news);
    assert_eq!(played.cancels, [("c".to_owned(), request.number)], "only that");
    assert_eq!(played.acknowledged, []);
    played.answer(t(2), "c", &request, error(ErrorCode::Cancelled));

    assert_eq!(played.acknowledged.len(), 1);
    assert_eq!(played.code(ticket), None);
    let anew = played.take("c");
    assert!(anew.number > other.number);
    assert_eq!((anew.on_behalf.as_ref().map(|it| it.number), &anew.op), (Some(RequestNumber(1)), &acquire()));
    assert_eq!(evidence(&anew), Evidence::default());
    played.answer(t(3), "c", &anew, needs_acl("ops"));
    played.keep_acl(t(4), "bob");
    let told = played.take("c");
    assert_eq!(evidence(&told).is_member("ops"), Some(false));
    played.answer(t(5), "c", &told, error(ErrorCode::PermissionDenied));
    assert_eq!(played.code(ticket), Some(ErrorCode::PermissionDenied));
}

#[test]
fn a_wait_for_a_lock_is_called_back_each_time() {
    let mut played = Played::new();
    let (ticket, mut request) = played.carrying(t(0), acquire(), "ops");
    for round in 1..20 {
        let news = played.tell_changed(t(round), &[ACL]);
        played.acknowledge(t(round), news);
        assert_eq!(played.cancels.pop(), Some(("c".to_owned(), request.number)));
        // It was about to need something when it was called back.
        let answer = if round % 2 == 0 { error(ErrorCode::Cancelled) } else { needs_acl("ops") };
        played.answer(t(round), "c", &request, answer);
        if round % 2 == 0 {
            played.reply(t(round), "c", needs_acl("ops"));
        }
        played.keep_acl(t(round), "alice");
        request = played.take("c");
        assert_eq!(evidence(&request).is_member("ops"), Some(true));
        assert_eq!(played.acknowledged.len() as u64, round);
        assert!(played.cancels.is_empty());
    }
    assert_eq!(played.code(ticket), None);
}

#[test]
fn a_lock_that_was_got_before_it_was_called_back_is_got() {
    let mut played = Played::new();
    let (ticket, request) = played.carrying(t(0), acquire(), "ops");
    played.tell_changed(t(1), &[ACL]);

    played.answer(t(2), "c", &request, acquired());

    assert_eq!(played.result(ticket), Some(&acquired()));
}

#[test]
fn a_wait_that_nobody_wants_any_more_is_not_asked_anew() {
    for is_cancelled_first in [true, false] {
        let mut played = Played::new();
        let (ticket, request) = played.carrying(t(0), acquire(), "ops");
        if is_cancelled_first {
            played.cancel(t(1), ticket);
        }
        played.tell_changed(t(2), &[ACL]);
        if !is_cancelled_first {
            played.cancel(t(3), ticket);
        }

        played.answer(t(4), "c", &request, error(ErrorCode::Cancelled));

        assert_eq!(played.code(ticket), Some(ErrorCode::Cancelled));
        played.assert_nothing_asked();
    }
}

#[test]
fn waits_are_called_back_when_the_cache_lease_at_the_home_cell_is_lost() {
    let lost: [fn(&mut Played); 3] = [
        |played| played.expire(t(8_500), "h"),
        |played| {
            played.extend(t(11_882), "h");
        },
        |played| {
            let link = played.links["h"].clone();
            played.core.disconnected(t(8_500), &link);
            played.wait_until(t(9_500));
        },
    ];
    for lose in lost {
        let mut played = Played::new();
        let (ticket, request) = played.carrying(t(0), acquire(), "ops");
        played.extend(t(8_000), "c");
        lose(&mut played);

        assert_eq!(played.cancels, [("c".to_owned(), request.number)]);
        played.answer(t(12_000), "c", &request, error(ErrorCode::Cancelled));
        assert_eq!(evidence(&played.take_all("c").pop().expect("asked anew")), Evidence::default());
        assert_eq!(played.code(ticket), None);
    }
}

/// What the cell was told last, besides requests of clients.
fn vouch(played: &mut Played) -> (Request, Option<Vouch>) {
    let request = played.take("c");
    match cross(&request) {
        CrossOp::Vouch(vouch) => (request, vouch),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cell_where_somebody_waits_is_told_every_three_seconds_that_the_acl_holds_still() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(1_000), acquire(), "ops");
    played.wait_until(t(3_999));
    played.assert_nothing_asked();
    assert!(played.core.poll_timeout().is_some_and(|(at, _)| at <= t(4_000)));

    played.wait_until(t(4_000));
    let (asked, told) = vouch(&mut played);
    // Till the end of the lease, from when the anchor came: 10,881,188 us, 1% less.
    let lasts = Duration::from_micros(10_773_453);
    assert_eq!(told, Some(Vouch { anchor: anchor(50_000), lasts }));
    ["c", "h", "p"].iter().for_each(|cell| played.extend(t(5_000), cell));
    played.wait_until(t(7_000));
    played.assert_nothing_asked();
    played.answer(t(7_500), "c", &asked, Ok(Reply::Anchored(anchor(54_000))));

    played.wait_until(t(10_000));
    let (asked, told) = vouch(&mut played);
    // The lease ends after 16,831,683 us, and the anchor came after 7,500,000.
    let lasts = Duration::from_micros(9_239_290);
    assert_eq!(told, Some(Vouch { anchor: anchor(54_000), lasts }));
    played.answer(t(10_001), "c", &asked, Ok(Reply::Anchored(anchor(57_000))));
    played.answer(t(10_001), "c", &request, acquired());
    ["c", "h", "p"].iter().for_each(|cell| played.extend(t(10_500), cell));
    played.wait_until(t(13_000));
    played.wait_until(t(16_000));
    played.assert_nothing_asked();
}

#[test]
fn a_cell_whose_time_is_not_known_any_more_is_asked_for_it() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), acquire(), "ops");
    for now in (3_000..=30_000).step_by(3_000) {
        ["c", "h", "p"].iter().for_each(|cell| played.extend(t(now), cell));
        played.wait_until(t(now));
        let (asked, told) = vouch(&mut played);
        assert!(told.is_some(), "{now}");
        played.answer(t(now), "c", &asked, error(ErrorCode::InvalidArgument));
    }

    played.wait_until(t(33_000));
    let (asked, told) = vouch(&mut played);
    assert_eq!(told, None);
    played.answer(t(33_000), "c", &asked, Ok(Reply::Anchored(anchor(83_000))));
    played.wait_until(t(36_000));

    assert_eq!(vouch(&mut played).1.map(|it| it.anchor), Some(anchor(83_000)));
    drop(request);
}

#[test]
fn what_is_void_is_not_said_again_until_nobody_carries_it() {
    let mut played = Played::new();
    let (_, waiting) = played.carrying(t(0), acquire(), "dev");
    let (_, read) = played.carrying(t(0), open(), "ops");
    let news = played.tell_changed(t(1), &[ACL]);
    played.acknowledge(t(1), news);
    assert_eq!(played.cancels, []);

    played.wait_until(t(3_000));
    played.assert_nothing_asked();
    played.answer(t(3_500), "c", &read, error(ErrorCode::NotFound));
    played.wait_until(t(6_000));

    assert!(vouch(&mut played).1.is_some());
    assert_eq!(played.cancels, []);
    drop(waiting);
}

#[test]
fn what_was_said_again_holds_up_the_home_cell_for_longer() {
    let mut played = Played::new();
    played.carrying(t(0), acquire(), "ops");
    played.extend(t(2_000), "h");
    played.wait_until(t(3_000));
    assert!(vouch(&mut played).1.is_some());
    ["c", "h", "p"].iter().for_each(|cell| played.extend(t(8_000), cell));
    let news = played.tell_changed(t(8_000), &[ACL]);
    played.acknowledge(t(8_000), news);

    // Extended after 2 s to 14 s by a clock that may be slow, which was said after 3 s; the later end was not.
    let end = Time::from_micros(13_861_386);
    played.wait_until(Time::from_micros(end.as_micros() - 1));
    assert_eq!(played.acknowledged, []);
    played.wait_until(end);

    assert_eq!(played.acknowledged.len(), 1);
}

#[test]
fn without_a_cache_lease_at_the_home_cell_nothing_is_said_again() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(10_000), acquire(), "ops");
    ["c", "p"].iter().for_each(|cell| played.extend(t(11_000), cell));
    played.links.remove("h");

    played.core.handle_timeout(t(13_000));
    while played.core.poll_output().is_some() {}
    played.core.check_invariants();
    drop(request);

    played.assert_nothing_asked();
}
