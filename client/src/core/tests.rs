//! The core against a host of a few lines that is played by hand. Here: what becomes of calls whose
//! callers have gone.

mod caching;
mod events;
mod following;
mod handles;
mod idle;
mod kept_locks;
mod world;

use hasp_proto::error::ErrorCode;
use hasp_proto::node::LockMode;
use hasp_proto::request::{Open, Use};

use super::*;
use world::{World, granted, name};

#[test]
fn an_answer_reaches_who_asked() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let call = world.acquire(handle);
    world.answer_last(granted(5));

    assert_eq!(world.acquired(call), Some(5));
    assert_eq!(world.last(), "acquire", "the lock is kept");
}

#[test]
fn an_abandoned_acquire_is_cancelled() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let call = world.acquire(handle);
    world.input(Input::Abandon(call));
    world.answer_last(Err(ErrorCode::Cancelled));

    assert_eq!(world.cancelled, [world.asked.last().unwrap().number]);
    assert_eq!(world.result(call), None);
    assert_eq!(world.last(), "acquire", "there is nothing to release");
}

#[test]
fn a_lock_granted_to_a_caller_that_has_gone_is_released() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let call = world.acquire(handle);
    world.input(Input::Abandon(call));
    world.answer_last(granted(5));

    assert_eq!(world.last(), "release");
    assert_eq!(world.result(call), None);
}

#[test]
fn a_lock_whose_answer_nobody_heard_is_released() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let call = world.acquire(handle);
    world.answer_last(granted(5));
    world.input(Input::Abandon(call));
    world.input(Input::Unheard(Brought { lock_of: Some(handle), handle: None }));

    assert_eq!(world.last(), "release");
}

#[test]
fn a_lock_that_another_clone_holds_or_waits_for_is_not_released() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let first = world.acquire(handle);
    let first_number = world.asked.last().unwrap().number;
    let second = world.acquire(handle);
    world.input(Input::Abandon(first));
    world.answer(first_number, granted(5));
    assert_eq!(world.last(), "acquire", "the second still waits");
    world.answer_last(granted(5));

    assert_eq!(world.last(), "acquire", "the second holds it");
    assert_eq!(world.acquired(second), Some(5));
}

#[test]
fn a_lock_granted_to_nobody_is_released_once_no_other_clone_will_hold_it() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    let first = world.acquire(handle);
    let first_number = world.asked.last().unwrap().number;
    world.acquire_as(handle, LockMode::Shared);
    world.input(Input::Abandon(first));
    world.answer(first_number, granted(5));
    world.answer_last(Err(ErrorCode::LockHeld));

    assert_eq!(world.last(), "release");
}

/// A handle whose lock was asked for by somebody who has gone, and whose call in the other mode waits.
fn crossing() -> (World, HandleNumber, CallId) {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");
    let first = world.acquire(handle);
    world.input(Input::Abandon(first));
    let second = world.acquire_as(handle, LockMode::Shared);
    assert_eq!(world.count("acquire"), 1, "the cell would refuse it, if the first was granted meanwhile");
    (world, handle, second)
}

#[test]
fn a_lock_granted_to_nobody_is_given_back_before_it_is_asked_for_in_the_other_mode() {
    let (mut world, _, call) = crossing();

    world.answer_last(granted(5));
    assert_eq!((world.last(), world.count("acquire")), ("release", 1));
    world.answer_last(Ok(Reply::Released));
    assert_eq!((world.last(), world.count("acquire")), ("acquire", 2));
    world.answer_last(granted(6));

    assert_eq!(world.acquired(call), Some(6));
}

#[test]
fn what_waits_for_the_answer_to_nobody_is_asked_when_that_was_in_time_to_be_cancelled() {
    let (mut world, _, call) = crossing();

    world.answer_last(Err(ErrorCode::Cancelled));
    assert_eq!((world.count("release"), world.count("acquire")), (0, 2));
    world.answer_last(granted(5));

    assert_eq!(world.acquired(call), Some(5));
}

#[test]
fn who_asks_while_the_lock_is_given_back_waits_so_that_the_release_cannot_come_after_it() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");
    let first = world.acquire(handle);
    world.input(Input::Abandon(first));
    world.answer_last(granted(5));

    let second = world.acquire(handle);
    assert_eq!(world.last(), "release");
    world.answer_last(Ok(Reply::Released));
    assert_eq!(world.last(), "acquire");
    world.answer_last(granted(6));

    assert_eq!(world.acquired(second), Some(6));
}

#[test]
fn who_asks_in_the_mode_of_the_one_that_went_does_not_wait_for_its_answer() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");
    let first = world.acquire(handle);
    world.input(Input::Abandon(first));

    world.acquire(handle);

    assert_eq!(world.count("acquire"), 2, "it has its place in the line at once");
}

#[test]
fn what_waits_here_for_the_lock_can_go_away() {
    let (mut world, _, call) = crossing();

    world.input(Input::Abandon(call));
    world.answer_last(Err(ErrorCode::Cancelled));

    assert_eq!(world.count("acquire"), 1);
    assert_eq!(world.result(call), None);
}

#[test]
fn what_waits_here_for_the_lock_ends_with_the_handle_or_the_session() {
    let (mut world, handle, call) = crossing();
    world.input(Input::Close(handle));
    assert_eq!(world.code(call), Some(ErrorCode::Cancelled));

    let (mut world, _, call) = crossing();
    world.answer_last(Err(ErrorCode::SessionExpired));
    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
    assert_eq!(world.count("acquire"), 1);
}

#[test]
fn a_released_lock_is_not_released_again() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    world.acquire(handle);
    world.answer_last(granted(5));
    world.release(handle);
    world.answer_last(Ok(Reply::Released));

    assert_eq!(world.count("release"), 1);
}

#[test]
fn a_handle_opened_for_a_caller_that_has_gone_is_closed() {
    let mut world = World::new();

    let call = world.ask(Op::Open(Open::existing(name("/ls/dev/f"), Use::Read)).into());
    world.input(Input::Abandon(call));
    world.answer_open();

    assert_eq!(world.last(), "close");
    assert_eq!(world.result(call), None);
}

#[test]
fn a_handle_that_nobody_heard_of_is_closed() {
    let mut world = World::new();
    let handle = world.open_uncached("/ls/dev/f");

    world.input(Input::Unheard(Brought { handle: Some(handle), lock_of: None }));

    assert_eq!(world.last(), "close");
}

#[test]
fn a_handle_that_is_dropped_is_closed_and_the_answer_is_for_nobody() {
    let mut world = World::new();
    let handle = world.open_uncached("/ls/dev/f");
    let answered = world.answered.len();

    world.input(Input::Close(handle));
    assert_eq!(world.last(), "close");
    world.answer_last(Ok(Reply::Closed));

    assert_eq!(world.answered.len(), answered);
    assert_eq!(world.closed, [handle]);
}

#[test]
fn calls_after_the_end_fail_at_once() {
    let mut world = World::new();
    let handle = world.open_to_write("/ls/dev/f");

    world.input(Input::End);
    let call = world.acquire(handle);

    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
}
