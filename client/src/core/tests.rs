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
