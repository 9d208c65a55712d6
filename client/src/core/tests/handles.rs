//! Which handles serve another `Open`, and what a handle is good for after its session.

use std::time::Duration;

use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::item::ItemKind;
use hasp_proto::node::{AclNames, NodeKind, Stat};
use hasp_proto::request::{Create, Open, Use};
use hasp_proto::stream::News;

use super::super::*;
use super::world::{World, granted, item, name, stat, t};

const F: &str = "/ls/dev/f";

fn opens(world: &World) -> usize {
    world.count("open")
}

#[test]
fn a_closed_handle_serves_the_next_open_of_the_same_kind_without_a_message() {
    let mut world = World::new();
    let first = world.open("/ls/local/f", Use::Read);
    world.input(Input::Close(first));
    assert_eq!(world.count("close"), 0);

    let second = world.open(F, Use::Read);

    assert_ne!(first, second);
    assert_eq!(opens(&world), 1);
    assert_eq!(world.closed, [first]);
    let (_, answer) = world.answered.last().unwrap();
    assert!(
        matches!(&answer.result, Ok(Reply::Opened { created: false, stat, .. }) if *stat == super::world::stat())
    );
    let late = world.read(first);
    assert_eq!(world.code(late), Some(ErrorCode::StaleHandle), "the one that was closed stays closed");
    world.open(F, Use::WriteAndLock);
    assert_eq!(opens(&world), 2, "for another use");
}

#[test]
fn a_close_that_is_waited_for_is_answered_at_once_if_the_handle_is_kept() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);

    let call = world.ask(world.on(handle, Op::Close));

    assert_eq!(world.result(call).unwrap().result, Ok(Reply::Closed));
    assert_eq!(world.count("close"), 0);
}

#[test]
fn a_handle_for_reading_serves_many_at_a_time_and_is_closed_after_the_last() {
    let mut world = World::new();
    let first = world.open(F, Use::Read);
    let second = world.open(F, Use::Read);
    assert_eq!(opens(&world), 1);

    world.input(Input::Close(first));
    world.invalidate(item(F, ItemKind::Data), 10);
    assert_eq!(world.count("close"), 0, "the second is in use");
    world.input(Input::Close(second));

    assert_eq!(world.count("close"), 1);
}

#[test]
fn a_handle_that_permits_locking_serves_one_at_a_time() {
    let mut world = World::new();
    let first = world.open(F, Use::WriteAndLock);
    let second = world.open(F, Use::WriteAndLock);
    assert_eq!(opens(&world), 2);

    world.input(Input::Close(second));
    let third = world.open(F, Use::WriteAndLock);
    assert_eq!(opens(&world), 2);
    assert_ne!(world.core.handles.get(first).unwrap().token, world.core.handles.get(third).unwrap().token);
    world.input(Input::Close(first));
    assert_eq!(world.count("close"), 1, "it was replaced");
}

#[test]
fn a_handle_that_may_hold_a_lock_is_really_closed() {
    let mut world = World::new();
    let holder = world.open(F, Use::WriteAndLock);
    world.acquire(holder);
    world.answer_last(granted(5));
    world.input(Input::Close(holder));
    assert_eq!(world.count("close"), 1);

    let waiting = world.open(F, Use::WriteAndLock);
    let call = world.acquire(waiting);
    world.input(Input::Abandon(call));
    world.input(Input::Close(waiting));
    assert_eq!(world.count("close"), 2, "the cell may grant it still");

    let released = world.open(F, Use::WriteAndLock);
    world.acquire(released);
    world.answer_last(granted(6));
    world.release(released);
    world.input(Input::Close(released));
    assert_eq!(world.count("close"), 3, "the release is under way");

    let done = world.open(F, Use::WriteAndLock);
    world.acquire(done);
    world.answer_last(granted(7));
    world.release(done);
    world.answer_last(Ok(Reply::Released));
    world.input(Input::Close(done));
    assert_eq!(world.count("close"), 3, "nothing is held any more");
}

#[test]
fn a_handle_for_writing_needs_the_decision_to_write() {
    let mut world = World::new();
    let acls = AclNames { write: "writers".into(), ..AclNames::default() };
    let id = world.ask(Op::Open(Open::existing(name(F), Use::WriteAndLock)).into());
    world.answer_open();
    let handle = world.opened[&id];
    world.ask(world.on(handle, Op::GetStat));
    world.answer_to_cache(11, Ok(Reply::Stat(Stat { acls, ..stat() })));
    world.input(Input::Close(handle));

    world.ask(Op::Open(Open::existing(name(F), Use::WriteAndLock)).into());

    assert_eq!(opens(&world), 2, "who may read it may not be one who may write it");
}

#[test]
fn an_idle_handle_is_closed_when_what_it_hangs_on_falls() {
    for (subject, kind, closes) in [
        (F, ItemKind::Data, 1),
        ("/ls/dev/acl/everyone", ItemKind::Acl, 1),
        (F, ItemKind::Lock, 0),
        (F, ItemKind::Listing, 0),
    ] {
        let mut world = World::new();
        let handle = world.open(F, Use::Read);
        world.input(Input::Close(handle));

        world.invalidate(item(subject, kind), 10);

        assert_eq!(world.count("close"), closes, "{kind:?}");
    }
}

#[test]
fn an_open_is_asked_while_the_lock_generation_is_not_known() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    world.input(Input::Close(handle));
    world.invalidate(item(F, ItemKind::Lock), 10);

    world.ask(Op::Open(Open::existing(name(F), Use::Read)).into());

    assert_eq!(opens(&world), 2, "it is part of what an open brings");
}

#[test]
fn of_many_idle_handles_the_oldest_is_closed() {
    let mut world = World::new();
    for number in 0..=spares::IDLE_MAX {
        let handle = world.open(&format!("/ls/dev/{number}"), Use::Read);
        world.input(Input::Close(handle));
    }

    assert_eq!(world.count("close"), 1);
    world.open("/ls/dev/1", Use::Read);
    assert_eq!(opens(&world), spares::IDLE_MAX + 1);
    world.open("/ls/dev/0", Use::Read);
    assert_eq!(opens(&world), spares::IDLE_MAX + 2, "that was the oldest");
}

#[test]
fn handles_with_events_of_ephemeral_nodes_created_relative_or_for_acls_are_really_closed() {
    let create = |ephemeral| Create {
        must: false,
        kind: NodeKind::File,
        contents: bytes::Bytes::new(),
        ephemeral,
        acls: None,
    };
    let plain = Open::existing(name(F), Use::Read);
    let base = hasp_proto::handle::HandleToken::new(bytes::Bytes::from_static(b"base"));
    let kinds = [
        Open { events: EventMask::of([EventKind::ContentsModified]), ..plain.clone() },
        Open { create: Some(create(true)), ..plain.clone() },
        Open { create: Some(create(false)), ..plain.clone() },
        Open { r#use: Use::ChangeAcl, ..plain.clone() },
        Open { relative_to: Some(base), ..plain.clone() },
    ];
    for open in kinds {
        let mut world = World::new();
        let asked = Call { ..Op::Open(open.clone()).into() };
        // A base that is no handle is refused by whoever routes; here it only has to be no plain open.
        let sharing = Same::of(&open, name(F));
        assert_eq!(sharing, None, "{open:?}");
        if open.relative_to.is_none() {
            let handle = world.open_with(open, asked.opening);
            world.input(Input::Close(handle));
            assert_eq!(world.count("close"), 1);
        }
    }
}

#[test]
fn opens_that_differ_in_their_lock_delay_share_no_handle() {
    let mut world = World::new();
    let handle = world.open(F, Use::WriteAndLock);
    world.input(Input::Close(handle));

    let lock_delay = Duration::from_secs(1);
    world.open_with(Open { lock_delay, ..Open::existing(name(F), Use::WriteAndLock) }, Opening::default());

    assert_eq!(opens(&world), 2);
}

#[test]
fn after_a_call_that_failed_with_its_session_all_later_ones_on_the_handle_fail() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    world.welcomes = false;
    let waiting = world.ask(world.on(handle, Op::ReadDir));
    world.wait_until(t(60_000));

    assert_eq!(world.code(waiting), Some(ErrorCode::SessionExpired));
    assert_eq!(world.over, [handle]);
    let late = world.read(handle);
    assert_eq!(world.code(late), Some(ErrorCode::SessionExpired));
    let closing = world.ask(world.on(handle, Op::Close));
    assert_eq!(world.result(closing).unwrap().result, Ok(Reply::Closed), "that never fails");
}

#[test]
fn a_lost_cell_ends_its_handles_for_good_and_no_others() {
    let mut world = World::new();
    let lost = world.open("/ls/dev/b/f", Use::Read);
    let idle = world.open("/ls/dev/b/g", Use::Read);
    let stays = world.open(F, Use::Read);
    world.input(Input::Close(idle));

    world.tell(News::CellLost { cell: CellName::new("b") });

    assert_eq!(world.over, [lost]);
    let call = world.read(lost);
    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
    let call = world.read(stays);
    assert_eq!(world.result(call), None, "it is asked");
    let asked = opens(&world);
    let again = world.open("/ls/dev/b/f", Use::Read);
    assert_eq!(opens(&world), asked + 1, "a handle from before is of no use");
    let call = world.read(again);
    assert_eq!(world.result(call), None, "a new one is, also in the same session");
    let call = world.read(lost);
    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired), "the old one stays lost");
}

#[test]
fn what_a_new_host_says_is_lost_is_over_before_the_rest_is_looked_at() {
    let mut world = World::new();
    let lost = world.open_with_events("/ls/dev/b/f", &[EventKind::ContentsModified]);
    world.open_with_events(F, &[EventKind::ContentsModified]);
    (world.resumes, world.lost_cells) = (false, vec![CellName::new("b")]);

    world.lose_connection();
    world.wait_until(t(1_000));

    assert_eq!(world.over, [lost]);
    let refreshed: Vec<_> = world.asked.iter().filter(|asked| matches!(asked.op, Op::Refresh(_))).collect();
    assert_eq!(refreshed.len(), 1, "only what may still be there");
    let call = world.read(lost);
    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
}

#[test]
fn an_answer_that_its_session_is_over_ends_the_handle() {
    let mut world = World::new();
    let handle = world.open_to_write(F);
    world.input(Input::End);
    let call = world.acquire(handle);

    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
    assert_eq!(world.over, [handle]);
}
