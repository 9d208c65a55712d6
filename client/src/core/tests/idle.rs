//! When a session that nobody needs is ended, and what the application notices.

use hasp_proto::client::Event;
use hasp_proto::event::EventKind;
use hasp_proto::request::{Open, Use};

use super::super::*;
use super::world::{ME, World, contents, name, t};

const F: &str = "/ls/dev/f";

/// Lets time pass under a lease that is always extended.
fn pass(world: &mut World, until: u64) {
    while world.now < t(until) {
        let next = (world.now + std::time::Duration::from_secs(4)).min(t(until));
        world.wait_until(next);
        if world.log.last().is_some_and(|line| line == "end") {
            return;
        }
        world.extend();
    }
}

/// A world in which a file was opened, read and closed at 5 s.
fn used() -> World {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    world.read(handle);
    world.answer_to_cache(11, contents("hello"));
    pass(&mut world, 5_000);
    world.input(Input::Close(handle));
    world
}

#[test]
fn a_session_without_handles_and_calls_is_ended_after_a_minute() {
    let mut world = used();

    pass(&mut world, 64_999);
    assert_ne!(world.log.last().unwrap(), "end");
    pass(&mut world, 65_000);

    assert_eq!(world.log.last().unwrap(), "end");
    assert_eq!(world.count("close"), 0, "idle handles go with it");
    assert!(world.shown.is_empty());
    assert_eq!(world.cache_lease, None);
}

#[test]
fn the_next_call_begins_another_session_and_nobody_is_told() {
    let mut world = used();
    pass(&mut world, 70_000);
    world.lose_connection();

    let handle = world.open(F, Use::Read);
    let call = world.read(handle);

    assert_eq!(world.sessions.len(), 2);
    assert_ne!(world.sessions[0], world.sessions[1]);
    assert_eq!(world.text(call), None, "what was kept has gone with the old one");
    assert_eq!(world.last(), "get_contents_and_stat");
    let is_end = |event: &Event| matches!(event, Event::Closed | Event::Expired(_) | Event::Jeopardy);
    assert!(!world.events.iter().any(is_end));
    assert_eq!(world.over, []);
}

#[test]
fn handles_of_the_old_session_serve_nobody_in_the_next() {
    let mut world = used();
    let to_write = world.open(F, Use::WriteAndLock);
    world.input(Input::Close(to_write));
    pass(&mut world, 70_000);
    world.lose_connection();

    world.open(F, Use::Read);
    let asked = world.count("open");
    world.open(F, Use::WriteAndLock);

    assert_eq!(world.count("open"), asked + 1);
}

#[test]
fn a_call_that_comes_while_the_session_ends_is_asked_in_the_next() {
    let mut world = used();
    pass(&mut world, 70_000);

    let call = world.ask(Op::Open(Open::existing(name(F), Use::Read)).into());
    assert_eq!(world.count("open"), 1);
    world.lose_connection();
    world.answer_open();

    assert!(world.opened.contains_key(&call));
}

#[test]
fn an_open_handle_keeps_the_session() {
    let mut world = World::new();
    world.open_with_events(F, &[EventKind::ContentsModified]);

    pass(&mut world, 200_000);

    assert!(!world.log.contains(&"end".into()));
}

#[test]
fn a_call_under_way_keeps_the_session_and_a_minute_begins_with_its_answer() {
    let mut world = World::new();
    let call = world.ask(Op::Open(Open::existing(name(F), Use::Read)).into());
    pass(&mut world, 100_000);
    world.answer_last(Err(ErrorCode::NotFound));
    assert_eq!(world.code(call), Some(ErrorCode::NotFound));

    pass(&mut world, 159_999);
    assert!(!world.log.contains(&"end".into()));
    pass(&mut world, 160_000);

    assert!(world.log.contains(&"end".into()));
}

#[test]
fn it_can_be_switched_off() {
    let mut world = World::with(&CoreOptions {
        principal: ME.into(),
        cache_bytes: Some(1 << 20),
        ends_idle: false,
        follows: Vec::new(),
    });

    pass(&mut world, 200_000);

    assert!(!world.log.contains(&"end".into()));
}

#[test]
fn who_closes_an_application_without_a_session_is_told_that_it_is_closed() {
    let mut world = used();
    pass(&mut world, 70_000);
    world.lose_connection();

    world.input(Input::End);

    assert_eq!(world.events.last(), Some(&Event::Closed));
    assert!(world.core.upstream().is_over());
}
