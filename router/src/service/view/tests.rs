//! What is answered beside the machine, and what is not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hasp_proto::event::EventMask;
use hasp_proto::id::{Generation, RequestNumber};
use hasp_proto::node::NodeKind;
use hasp_proto::request::Use;
use hasp_proto::sequencer::SequencerToken;
use hasp_rt::clock::TokioClock;

use super::*;

const C1: ConnectionId = ConnectionId(1);
const S1: SessionId = SessionId([1; 16]);
const FILE: &str = "/ls/dev/f";
const OTHER: &str = "/ls/dev/g";

fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

fn a() -> CellName {
    CellName::new("a")
}

fn key() -> HandleKey {
    HandleKey::new(Bytes::from_static(b"key"))
}

fn handle(file: &str, instance: u64, session: SessionId, key: &HandleKey) -> HandleToken {
    key.seal(&HandleBody {
        cell: a(),
        name: name(file),
        instance: Instance(instance),
        kind: NodeKind::File,
        r#use: Use::Read,
        session,
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: Duration::ZERO,
        events: EventMask::NONE,
        ephemeral: false,
    })
}

fn stat(generation: u64) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(7),
        content_generation: Generation(generation),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 0,
        ephemeral: false,
        acls: AclNames { read: "staff".into(), ..AclNames::default() },
    }
}

fn copy(generation: u64) -> Show {
    let reply = Reply::Contents { contents: Bytes::from_static(b"x"), stat: stat(generation) };
    Show::Copy { cell: a(), principal: "alice".into(), name: name(FILE), instance: Instance(7), reply }
}

fn position(index: u64) -> Position {
    Position { cell: a(), epoch: Epoch(1), index }
}

fn request(op: Op) -> Request {
    let number = RequestNumber(9);
    Request { number, settled_below: number, on_behalf: None, guard: None, caches: false, trace: None, op }
}

fn read() -> Request {
    request(Op::GetContentsAndStat(handle(FILE, 7, S1, &key())))
}

fn speaks(connection: ConnectionId, principal: &str, is_new: bool) -> Show {
    Show::Speaks { connection, session: S1, principal: principal.into(), is_new }
}

/// Alice speaks on connection 1 and a copy of the file is there, under a lease of 10 s.
fn view() -> View {
    let view = View::new([CellName::new("b"), a()].iter(), 1 << 20, Arc::new(TokioClock::new()));
    view.show(Show::Key(a(), key()));
    view.show(Show::Lease(a(), Time::from_millis(10_000)));
    view.show(Show::Seen(position(5)));
    view.show(speaks(C1, "alice", true));
    view.show(copy(3));
    view
}

fn answered(view: &View, connection: ConnectionId, request: &Request) -> Option<Answer> {
    let mut given = None;
    let is_answered = view.answer(connection, request, |answer| given = Some(answer));
    assert_eq!(is_answered, given.is_some());
    given
}

fn is_answered(view: &View, request: &Request) -> bool {
    answered(view, C1, request).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_answered_with_the_latest_position_and_no_leave_to_keep_it() {
    let view = view();
    view.show(Show::Seen(position(8)));

    let answer = answered(&view, C1, &read()).expect("it is there");

    let reply = Reply::Contents { contents: Bytes::from_static(b"x"), stat: stat(3) };
    let position = Some(position(8));
    let expected = Answer { number: RequestNumber(9), position, caches: ItemKinds::NONE, result: Ok(reply) };
    assert_eq!((answer, view.hits()), (expected, 1));
    let stated = answered(&view, C1, &request(Op::GetStat(handle(FILE, 7, S1, &key()))));
    assert_eq!(stated.map(|answer| answer.result), Some(Ok(Reply::Stat(stat(3)))));
    assert!(!is_answered(&view, &request(Op::ReadDir(handle(FILE, 7, S1, &key())))));
}

#[tokio::test(start_paused = true)]
async fn a_listing_by_another_cell_than_the_handles_is_left_to_the_machine() {
    let view = view();
    view.show(Show::Lease(CellName::new("b"), Time::from_millis(10_000)));
    view.show(Show::Seen(Position { cell: CellName::new("b"), ..position(90) }));
    let listing = |cell: CellName| {
        let acls = AclNames { read: "staff".into(), ..AclNames::default() };
        let reply = Reply::Children { children: Vec::new(), acls };
        Show::Copy { cell, principal: "alice".into(), name: name(FILE), instance: Instance(7), reply }
    };
    let list = request(Op::ReadDir(handle(FILE, 7, S1, &key())));

    view.show(listing(CellName::new("b")));
    assert!(!is_answered(&view, &list));
    view.show(listing(a()));
    assert!(is_answered(&view, &list), "its own cell's");
}

#[tokio::test(start_paused = true)]
async fn what_the_machine_must_see_is_not_answered() {
    let view = view();
    let token = handle(FILE, 7, S1, &key());

    let cases = [
        ("wants leave to cache", Request { caches: true, ..read() }),
        ("guarded", Request { guard: Some(SequencerToken::new(Bytes::new())), ..read() }),
        ("no read", request(Op::Close(token.clone()))),
        ("forged", request(Op::GetStat(handle(FILE, 7, S1, &HandleKey::new(Bytes::from_static(b"other")))))),
        ("another session's", request(Op::GetStat(handle(FILE, 7, SessionId([2; 16]), &key())))),
        ("another node's", request(Op::GetStat(handle(FILE, 8, S1, &key())))),
        ("not there", request(Op::GetStat(handle(OTHER, 7, S1, &key())))),
    ];

    for (why, request) in cases {
        assert!(!is_answered(&view, &request), "{why}");
    }
    assert_eq!(answered(&view, ConnectionId(2), &read()), None, "nobody speaks there");
    assert!(is_answered(&view, &read()));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_answered_until_it_is_void() {
    let item = |file: &str, kind| Show::Void(vec![Item::new(name(file), kind)]);
    let acl = "/ls/dev/acl/staff";
    for (void, answered) in [
        (item(FILE, ItemKind::Data), false),
        (item(FILE, ItemKind::Lock), false),
        (item(acl, ItemKind::Acl), false),
        (item(acl, ItemKind::Data), true),
        (item(OTHER, ItemKind::Data), true),
        (Show::VoidCell(a()), false),
        (Show::VoidCell(CellName::new("b")), true),
        (Show::Silent(C1), false),
    ] {
        let view = view();
        view.show(void.clone());
        assert_eq!(is_answered(&view, &read()), answered, "{void:?}");

        view.show(speaks(C1, "alice", true));
        view.show(copy(4));
        assert!(is_answered(&view, &read()), "shown again after {void:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_answered_under_the_cache_lease_only() {
    let view = view();
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert!(is_answered(&view, &read()));

    tokio::time::advance(Duration::from_millis(1)).await;

    assert!(!is_answered(&view, &read()), "lease-3");
    view.show(Show::Lease(a(), Time::from_millis(20_000)));
    assert!(is_answered(&view, &read()));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_answered_to_principals_that_may_see_it() {
    let view = view();
    view.show(speaks(C1, "bob", true));
    assert!(!is_answered(&view, &read()));

    view.show(Show::Copy {
        cell: a(),
        principal: "bob".into(),
        name: name(FILE),
        instance: Instance(7),
        reply: Reply::Stat(stat(3)),
    });

    assert!(is_answered(&view, &request(Op::GetStat(handle(FILE, 7, S1, &key())))));
    assert!(!is_answered(&view, &read()), "without contents");
}

#[tokio::test(start_paused = true)]
async fn who_was_elsewhere_is_answered_once_it_was_shown_as_much_here() {
    let view = view();
    view.show(speaks(C1, "alice", false));
    assert!(!is_answered(&view, &read()), "P-MONO");

    view.show(Show::CaughtUp(S1, CellName::new("b")));
    assert!(!is_answered(&view, &read()), "of another cell");
    view.show(Show::CaughtUp(S1, a()));

    assert!(is_answered(&view, &read()));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_that_goes_leaves_the_sessions_new_one_alone() {
    let view = view();
    view.show(speaks(ConnectionId(2), "alice", false));
    view.forget(C1);

    view.show(Show::CaughtUp(S1, a()));

    assert_eq!(answered(&view, C1, &read()), None);
    assert!(answered(&view, ConnectionId(2), &read()).is_some());
}

/// One thread changes the file as the machine does: void, acknowledge, change, show. Others read.
#[tokio::test]
async fn no_reader_sees_what_is_older_than_a_change_that_was_done() {
    let view = view();
    let (done, is_over) = (AtomicU64::new(3), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = || {
            let (mut last, mut hits) = (0, 0_u64);
            while !is_over.load(Ordering::SeqCst) {
                let before = done.load(Ordering::SeqCst);
                let Some(answer) = answered(&view, C1, &read()) else { continue };
                let Ok(Reply::Contents { stat, .. }) = answer.result else { panic!("contents") };
                let index = answer.position.expect("of the cell").index;
                assert!(stat.content_generation.0 >= before, "P-LIN");
                assert!(stat.content_generation.0 >= index.saturating_sub(2), "current as of its position");
                assert!(index >= last, "P-MONO");
                (last, hits) = (index, hits + 1);
            }
            hits
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for generation in 4..40_000 {
            view.show(Show::Void(vec![Item::new(name(FILE), ItemKind::Data)]));
            done.store(generation, Ordering::SeqCst);
            view.show(Show::Seen(position(generation + 2)));
            view.show(copy(generation));
            if generation % 8 == 0 {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().expect("no reader failed");
        }
    });
    assert!(view.hits() > 0, "something was read");
}
