//! What cells are told of ACLs, and for how long it holds.

use hasp_proto::crossing::{Membership, Vouch};
use hasp_proto::node::LockMode;

use super::*;

fn membership(acl: &str, is_member: bool) -> Membership {
    Membership { acl: acl.into(), is_member }
}

#[test]
fn a_cell_is_told_who_is_in_an_acl_and_the_answer_comes_with_the_ticket() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    let first = played.reply(t(2_000), "c", needs_acl("ops"));

    let fetch = played.take("h");
    assert_eq!((cross(&fetch), fetch.caches), (CrossOp::ReadAcl("ops".into()), true));
    played.answer_keeping(t(2_500), "h", &fetch, data(), acl("bob\nalice\n"));

    let again = played.take("c");
    assert_eq!(again.op, first.op);
    assert!(again.number > first.number, "another request of the session");
    assert_eq!(
        again.on_behalf.as_ref().map(|it| it.number),
        Some(RequestNumber(1)),
        "the same of the client"
    );
    let told = evidence(&again);
    assert_eq!(told.memberships, [membership("ops", true)]);
    // 9,881,188 us are left of the lease since the anchor came; 1% less by a slow clock.
    let lasts = Duration::from_micros(9_783_354);
    assert_eq!(told.vouch, Some(Vouch { anchor: anchor(50_000), lasts }));
    played.answer(t(2_600), "c", &again, error(ErrorCode::NotFound));
    assert_eq!(played.code(ticket), Some(ErrorCode::NotFound));
    assert_eq!(played.answers.len(), 1);
}

#[test]
fn one_fetch_does_for_a_thousand_requests_and_what_is_kept_for_those_after() {
    let mut played = Played::new();
    for _ in 0..1_000 {
        played.submit(t(0), open());
    }
    for request in played.take_all("c") {
        played.answer(t(1), "c", &request, needs_acl("ops"));
    }
    played.keep_acl(t(2), "alice");

    let again = played.take_all("c");
    assert_eq!(again.len(), 1_000);
    assert!(again.iter().all(|it| evidence(it).memberships == [membership("ops", true)]));
    played.submit(t(3), open());
    played.reply(t(3), "c", needs_acl("ops"));
    assert_eq!(evidence(&played.take("c")).is_member("ops"), Some(true));
    played.assert_nothing_asked();
}

#[test]
fn what_lies_beside_it_brings_the_same_acl_along() {
    let mut played = Played::new();
    let (_, first) = played.carrying(t(0), open(), "ops");
    let beside = |file: &str| Op::Open(Open::existing(name(&format!("/ls/dev/p/d/{file}")), Use::Read));

    played.submit(t(1), beside("g"));
    let second = played.take("c");
    assert_eq!(evidence(&second), evidence(&first), "the word that counts from the same moment");
    // It is carried like what was asked for.
    let news = played.tell_changed(t(2), &["/ls/dev/acl/ops"]);
    played.acknowledge(t(2), news);
    played.answer(t(3), "c", &first, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged, []);
    played.answer(t(4), "c", &second, error(ErrorCode::NotFound));
    assert_eq!(played.acknowledged.len(), 1);

    played.submit(t(5), beside("h"));
    assert_eq!(evidence(&played.take("c")), Evidence::default(), "nothing is known of it any more");
}

#[test]
fn a_wait_for_a_lock_brings_nothing_along_that_the_cell_did_not_ask_for() {
    let mut played = Played::new();
    let file = handle("c", "/ls/dev/p/d/f", NodeKind::File);
    played.carrying(t(0), Op::Acquire(file.clone(), LockMode::Shared), "ops");

    played.submit(t(1), Op::Acquire(file, LockMode::Shared));

    assert_eq!(evidence(&played.take("c")), Evidence::default());
}

#[test]
fn everything_that_the_cell_asked_for_is_told_together() {
    let mut played = Played::new();
    played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    played.keep_acl(t(0), "alice");
    played.reply(t(0), "c", needs_acl("dev"));
    played.keep_acl(t(0), "bob");

    let told = evidence(&played.take("c")).memberships;

    assert_eq!(told, [membership("dev", false), membership("ops", true)]);
}

#[test]
fn nobody_is_in_an_acl_without_a_file() {
    let mut played = Played::new();
    played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    let fetch = played.take("h");
    let absence = ItemKinds::of([ItemKind::Absence]);
    played.answer_keeping(t(0), "h", &fetch, absence, error(ErrorCode::NotFound));
    assert_eq!(evidence(&played.take("c")).memberships, [membership("ops", false)]);

    played.submit(t(1), open());
    played.reply(t(1), "c", needs_acl("ops"));
    assert_eq!(evidence(&played.take("c")).memberships, [membership("ops", false)], "that is kept");
}

/// The home cell does not let us keep what it says; `voided` is told before it answers.
fn check_not_kept(caches: ItemKinds, voided: Option<News>) {
    let mut played = Played::new();
    let member = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    let fetch = played.take("h");
    let bob = Ask { on_behalf: Some(OnBehalf { principal: "bob".into(), ..client(90) }), ..open().into() };
    let late = played.core.submit(t(1), bob);
    played.play(t(1));
    played.reply(t(1), "c", needs_acl("ops"));
    played.assert_nothing_asked();
    if let Some(news) = voided {
        played.tell(t(2), "h", news);
    }

    played.answer_keeping(t(3), "h", &fetch, caches, acl("alice"));

    assert_eq!(played.code(member), Some(ErrorCode::Unavailable), "it may have been revoked since");
    assert!(played.detail(member).contains("ACL ops is being changed in its home cell h"));
    let next = played.take("h");
    assert_eq!(cross(&next), CrossOp::ReadAcl("ops".into()), "who has come since waits for the next");
    assert_eq!(played.code(late), None);
    played.answer(t(4), "h", &next, acl("alice"));
    assert_eq!(
        evidence(&played.take("c")).memberships,
        [membership("ops", false)],
        "a read is enough for that"
    );
    let third = played.submit(t(5), open());
    played.reply(t(5), "c", needs_acl("ops"));
    played.keep_acl(t(5), "alice");
    assert_eq!(evidence(&played.take("c")).memberships, [membership("ops", true)]);
    assert_eq!(played.code(third), None);
}

#[test]
fn without_leave_to_keep_it_an_answer_only_denies() {
    check_not_kept(ItemKinds::NONE, None);
    check_not_kept(ItemKinds::of([ItemKind::Lock, ItemKind::Absence]), None);
}

#[test]
fn a_fetch_that_raced_with_a_change_of_the_acl_only_denies() {
    let changed = |kind| News::Invalidate {
        items: vec![Item::new(name("/ls/dev/acl/ops"), kind)],
        floor: position("h", 6),
    };
    check_not_kept(data(), Some(changed(ItemKind::Data)));
    check_not_kept(data(), Some(changed(ItemKind::Acl)));
    check_not_kept(data(), Some(News::FailOver { cell: CellName::new("h"), epoch: Epoch(2) }));
}

#[test]
fn who_comes_while_a_fetch_is_under_way_goes_by_what_is_kept_of_it() {
    let mut played = Played::new();
    for now in [0, 1] {
        played.submit(t(now), open());
        played.reply(t(now), "c", needs_acl("ops"));
    }

    played.keep_acl(t(2), "alice");

    assert_eq!(played.take_all("c").len(), 2);
    played.assert_nothing_asked();
}

/// Whether an ACL that was fetched at the beginning is fetched again after that.
fn is_fetched_again_after(happens: fn(&mut Played)) -> bool {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), open(), "ops");
    played.answer(t(0), "c", &request, error(ErrorCode::NotFound));
    played.extend_all(t(12_000));
    happens(&mut played);
    played.submit(t(14_000), open());
    played.reply(t(14_000), "c", needs_acl("ops"));
    !played.take_all("h").is_empty()
}

#[test]
fn what_is_kept_is_fetched_anew_once_it_may_have_changed() {
    assert!(!is_fetched_again_after(|_| ()));
    assert!(!is_fetched_again_after(|played| {
        let other = ["/ls/dev/acl/dev", "/ls/dev/ops", "/ls/dev/acl/ops/x", "/ls/dev/p/acl/ops"];
        played.tell_changed(t(12_500), &other);
    }));
    assert!(!is_fetched_again_after(|played| {
        played.tell(t(12_500), "p", News::FailOver { cell: CellName::new("p"), epoch: Epoch(2) });
    }));
    assert!(!is_fetched_again_after(|played| {
        played.tell(t(12_500), "h", News::EventsLost { cell: None });
    }));

    assert!(is_fetched_again_after(|played| {
        played.tell_changed(t(12_500), &["/ls/dev/acl/dev", "/ls/dev/acl/ops"]);
    }));
    assert!(is_fetched_again_after(|played| {
        played.tell(t(12_500), "h", News::FailOver { cell: CellName::new("h"), epoch: Epoch(2) });
    }));
    assert!(is_fetched_again_after(|played| played.expire(t(12_500), "h")));
    // The next Welcome does not know what was kept.
    assert!(is_fetched_again_after(|played| {
        let link = played.links["h"].clone();
        played.core.disconnected(t(12_500), &link);
        played.wait_until(t(13_500));
    }));
}

#[test]
fn what_was_kept_before_the_cache_lease_lapsed_is_void() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), open(), "ops");
    played.answer(t(0), "c", &request, error(ErrorCode::NotFound));
    played.extend(t(8_000), "c");
    // It comes after the end that it extends.
    played.extend(t(11_882), "h");

    played.submit(t(11_900), open());
    played.reply(t(11_900), "c", needs_acl("ops"));

    assert_eq!(cross(&played.take("h")), CrossOp::ReadAcl("ops".into()));
}

#[test]
fn an_acl_is_not_gone_by_when_the_cache_lease_is_over() {
    let mut played = Played::new();
    let (_, request) = played.carrying(t(0), open(), "ops");
    played.answer(t(0), "c", &request, error(ErrorCode::NotFound));
    played.extend(t(8_000), "c");
    played.submit(LEASE_END, open());
    let request = played.take("c");
    // By its own count the session at the home cell is in jeopardy only when it is told the time.
    played.answer(LEASE_END, "c", &request, needs_acl("ops"));

    assert_eq!(cross(&played.take("h")), CrossOp::ReadAcl("ops".into()));
}

#[test]
fn an_acl_that_cannot_be_read_lets_nobody_in_and_says_why() {
    type Happens = fn(&mut Played);
    let unreadable: [(&str, Happens); 4] = [
        ("not UTF-8", |played| {
            let contents = Bytes::from_static(b"\xff");
            played.reply(t(1), "h", Ok(Reply::Contents { contents, stat: stat() }));
        }),
        ("makes no sense", |played| drop(played.reply(t(1), "h", Ok(Reply::Noted)))),
        ("played", |played| drop(played.reply(t(1), "h", error(ErrorCode::PermissionDenied)))),
        ("played", |played| played.expire(t(1), "h")),
    ];
    for (why, happens) in unreadable {
        let mut played = Played::new();
        let ticket = played.submit(t(0), open());
        played.reply(t(0), "c", needs_acl("ops"));
        happens(&mut played);
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable), "{why}");
        let detail = played.detail(ticket);
        assert!(
            detail.contains("ACL ops cannot be read in its home cell h: ") && detail.contains(why),
            "{detail}"
        );
    }
}

#[test]
fn nobody_waits_for_a_home_cell_that_cannot_be_reached() {
    let mut played = Played::new();
    let waiting = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    let late = played.submit(t(1), open());
    played.reply(t(1), "c", needs_acl("ops"));
    for cell in ["c", "p"] {
        played.extend(t(8_000), cell);
    }

    played.links.remove("h");
    played.core.handle_timeout(LEASE_END);
    // Its next connection is not made.
    while let Some(output) = played.core.poll_output() {
        if let Output::Answered(ticket, answer) = output {
            played.answers.insert(ticket, answer);
        }
    }
    played.core.check_invariants();

    for ticket in [waiting, late] {
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
        assert!(played.detail(ticket).contains("ACL ops cannot be read in its home cell h"));
    }
    let third = played.submit(t(12_000), open());
    played.reply(t(12_000), "c", needs_acl("ops"));
    assert_eq!(played.code(third), Some(ErrorCode::Unavailable), "at once");
}

#[test]
fn an_anchor_that_is_too_old_is_not_counted_from_and_the_cell_asks_again() {
    let mut played = Played::new();
    played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    played.extend_all(t(28_000));
    let fetch = played.take("h");
    played.answer_keeping(t(30_001), "h", &fetch, data(), acl("alice"));

    let again = played.take("c");
    assert_eq!(evidence(&again), Evidence::default());
    let anew = Ok(Reply::Needs(Need::Acl("ops".into()), anchor(90_000)));
    played.answer(t(30_002), "c", &again, anew);
    let told = evidence(&played.take("c"));
    assert_eq!(told.vouch.map(|it| it.anchor), Some(anchor(90_000)));
    played.assert_nothing_asked();
}

#[test]
fn a_request_that_waits_for_an_acl_is_cancelled_at_once() {
    let mut played = Played::new();
    let cancelled = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    let other = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));

    played.cancel(t(1), cancelled);
    assert_eq!(played.code(cancelled), Some(ErrorCode::Cancelled));
    played.cancel(t(1), cancelled);
    let fetch = played.take("h");
    played.answer(t(2), "h", &fetch, acl(""));
    played.keep_acl(t(3), "alice");

    assert_eq!(played.take_all("c").len(), 1, "only the other");
    assert_eq!(played.code(other), None);
}

#[test]
fn a_cell_that_needs_something_for_a_request_nobody_waits_for_is_not_asked_again() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    let request = played.take("c");
    played.cancel(t(1), ticket);
    assert_eq!(played.cancels, [("c".to_owned(), request.number)]);

    played.answer(t(2), "c", &request, needs_acl("ops"));

    assert_eq!(played.code(ticket), Some(ErrorCode::Cancelled));
    played.assert_nothing_asked();
}
