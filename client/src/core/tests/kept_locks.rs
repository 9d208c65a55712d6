//! Locks that stay held after their release (`lock-5`).

use hasp_proto::event::EventKind::LockConflict;
use hasp_proto::event::{EventMask, HandleId, NodeEvent};
use hasp_proto::request::{Open, Use};
use hasp_proto::stream::News;

use super::super::*;
use super::world::{World, granted, happened, name, t};

const F: &str = "/ls/dev/f";

/// A handle that keeps its lock, which it has acquired.
fn holding() -> (World, HandleNumber) {
    let mut world = World::new();
    let events = EventMask::of([LockConflict]);
    let open = Open { events, ..Open::existing(name(F), Use::WriteAndLock) };
    let handle = world.open_with(open, Opening { told: EventMask::NONE, keeps_lock: true });
    world.acquire(handle);
    world.answer_last(granted(5));
    (world, handle)
}

fn conflict(world: &mut World, handle: HandleNumber) {
    let body = &world.core.handles.get(handle).unwrap().body;
    let to = Some(HandleId { session: body.session, opened_by: body.opened_by });
    world.tell(News::Event(NodeEvent { to, ..happened(LockConflict, 12) }));
}

#[test]
fn a_released_lock_is_taken_again_without_a_message_and_with_its_generation() {
    let (mut world, handle) = holding();
    let asked = world.asked.len();

    let released = world.release(handle);
    let again = world.acquire(handle);

    assert_eq!(world.result(released).unwrap().result, Ok(Reply::Released));
    assert_eq!(world.acquired(again), Some(5));
    assert_eq!(world.asked.len(), asked);
}

#[test]
fn a_handle_that_does_not_keep_its_lock_asks_every_time() {
    let mut world = World::new();
    let handle = world.open_to_write(F);
    world.acquire(handle);
    world.answer_last(granted(5));

    world.release(handle);

    assert_eq!(world.last(), "release");
}

#[test]
fn who_has_released_it_does_not_hold_it() {
    let (mut world, handle) = holding();
    world.release(handle);

    let again = world.release(handle);
    let sequencer = world.ask(world.on(handle, Op::GetSequencer));

    assert_eq!(world.code(again), Some(ErrorCode::LockNotHeld));
    assert_eq!(world.code(sequencer), Some(ErrorCode::LockNotHeld));
}

#[test]
fn a_conflict_ends_a_lock_that_nobody_uses_at_once() {
    let (mut world, handle) = holding();
    world.release(handle);

    conflict(&mut world, handle);

    assert_eq!(world.count("release"), 1);
    assert_eq!(world.told, [], "the application did not ask to be told");
}

#[test]
fn a_conflict_ends_a_lock_in_use_with_its_release() {
    let (mut world, handle) = holding();

    conflict(&mut world, handle);
    assert_eq!(world.count("release"), 0);
    let released = world.release(handle);
    assert_eq!(world.count("release"), 1);
    assert_eq!(world.result(released), None, "the cell is to say so");
    world.answer_last(Ok(Reply::Released));

    assert_eq!(world.result(released).unwrap().result, Ok(Reply::Released));
    world.acquire(handle);
    assert_eq!(world.last(), "acquire", "it is held no more");
}

#[test]
fn a_conflict_counts_for_one_holding() {
    let (mut world, handle) = holding();
    conflict(&mut world, handle);
    world.release(handle);
    world.answer_last(Ok(Reply::Released));
    world.acquire(handle);
    world.answer_last(granted(7));

    world.release(handle);

    assert_eq!(world.count("release"), 1, "nobody else wants it now");
}

#[test]
fn who_wants_it_while_it_is_given_up_stands_in_line_after_that() {
    let (mut world, handle) = holding();
    world.release(handle);
    conflict(&mut world, handle);

    let again = world.acquire(handle);
    assert_eq!(world.last(), "release");
    world.answer_last(Ok(Reply::Released));
    assert_eq!(world.last(), "acquire");
    world.answer_last(granted(9));

    assert_eq!(world.acquired(again), Some(9));
}

#[test]
fn who_goes_while_it_is_given_up_does_not_get_it() {
    let (mut world, handle) = holding();
    world.release(handle);
    conflict(&mut world, handle);

    let again = world.acquire(handle);
    world.input(Input::Abandon(again));
    world.answer_last(Ok(Reply::Released));

    assert_eq!(world.last(), "release");
}

#[test]
fn the_other_mode_needs_the_cell() {
    let (mut world, handle) = holding();
    world.release(handle);

    let shared = world.acquire_as(handle, LockMode::Shared);
    assert_eq!(world.last(), "release", "first it is given up");
    world.answer_last(Ok(Reply::Released));
    world.answer_last(granted(6));

    assert_eq!(world.acquired(shared), Some(6));
}

#[test]
fn when_conflicts_may_have_been_missed_a_lock_that_nobody_uses_is_given_up() {
    let fail_over = News::FailOver { cell: CellName::new("a"), epoch: hasp_proto::id::Epoch(2) };
    for news in [News::EventsLost { cell: None }, fail_over] {
        let (mut world, handle) = holding();
        world.release(handle);

        world.tell(news.clone());

        assert_eq!(world.count("release"), 1, "{news:?}");
    }
}

#[test]
fn in_jeopardy_a_kept_lock_is_asked_for() {
    let (mut world, handle) = holding();
    world.release(handle);
    world.welcomes = false;
    world.wait_until(t(13_000));

    let again = world.acquire(handle);

    assert_eq!(world.result(again), None, "whether it is held, nobody knows");
}

#[test]
fn a_guarded_call_needs_the_cell() {
    let (mut world, handle) = holding();
    world.release(handle);
    let guard = Some(hasp_proto::sequencer::SequencerToken::new(bytes::Bytes::from_static(b"s")));

    let call = world.on(handle, |token| Op::Acquire(token, LockMode::Exclusive));
    world.ask(Call { guard: guard.clone(), ..call });
    world.answer_last(Ok(Reply::Released));

    assert_eq!((world.last(), &world.asked.last().unwrap().guard), ("acquire", &guard));
}

#[test]
fn a_conflict_that_comes_before_the_grant_is_not_forgotten() {
    let (mut world, handle) = holding();
    world.release(handle);
    conflict(&mut world, handle);
    world.answer_last(Ok(Reply::Released));
    world.acquire(handle);
    conflict(&mut world, handle);
    world.answer_last(granted(7));

    world.release(handle);

    assert_eq!(world.count("release"), 2);
}

#[test]
fn a_closed_handle_keeps_nothing() {
    let (mut world, handle) = holding();
    world.release(handle);

    world.input(Input::Close(handle));

    assert_eq!(world.last(), "close");
}

#[test]
fn a_kept_lock_whose_answer_nobody_heard_is_given_up() {
    let (mut world, handle) = holding();
    world.release(handle);
    let again = world.acquire(handle);

    world.input(Input::Abandon(again));
    world.input(Input::Unheard(Brought { lock_of: Some(handle), handle: None }));

    assert_eq!(world.last(), "release");
}

#[test]
fn a_grant_from_before_a_release_is_not_kept() {
    let (mut world, handle) = holding();
    let again = world.acquire(handle);
    let number = world.asked.last().unwrap().number;
    conflict(&mut world, handle);
    world.release(handle);
    world.answer_last(Ok(Reply::Released));
    world.answer(number, granted(5));
    assert_eq!(world.acquired(again), Some(5));

    world.release(handle);

    assert_eq!(world.count("release"), 2, "whether it is held, only the cell knows");
}

#[test]
fn with_the_session_the_lock_is_gone() {
    let (mut world, handle) = holding();
    world.release(handle);
    conflict(&mut world, handle);
    let waiting = world.acquire(handle);

    world.tell(News::CellLost { cell: CellName::new("a") });

    assert_eq!(world.code(waiting), Some(ErrorCode::SessionExpired));
    let again = world.acquire(handle);
    assert_eq!(world.code(again), Some(ErrorCode::SessionExpired));
}
