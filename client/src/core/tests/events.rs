//! Who is told what, and when.

use hasp_proto::event::EventKind::{ChildAdded, ContentsModified, HandleInvalid, LockAcquired, LockConflict};
use hasp_proto::event::{HandleId, NodeEvent};
use hasp_proto::id::{Epoch, Instance};
use hasp_proto::request::Use;
use hasp_proto::stream::News;

use crate::node_events::LossCause;

use super::super::*;
use super::world::{World, granted, happened, name, stat, t};

const F: &str = "/ls/dev/f";

fn told_to(world: &World, handle: HandleNumber) -> Vec<&HandleEvent> {
    world.told.iter().filter(|(to, _)| *to == handle).map(|(_, event)| event).collect()
}

fn code(event: &HandleEvent) -> Option<ErrorCode> {
    match event {
        HandleEvent::Invalid(error) => Some(error.code.clone()),
        HandleEvent::Happened(_) | HandleEvent::EventsLost(_) => None,
    }
}

#[test]
fn an_event_is_told_to_the_handles_that_asked_for_it_and_then_acknowledged() {
    let mut world = World::new();
    let first = world.open_with_events(F, &[ContentsModified, LockAcquired]);
    let second = world.open_with_events(F, &[ContentsModified]);
    world.open_with_events(F, &[ChildAdded]);
    world.open_with_events("/ls/dev/g", &[ContentsModified]);
    world.open(F, Use::Read);
    world.log.clear();

    let event = happened(ContentsModified, 12);
    world.tell(News::Event(event.clone()));

    assert_eq!(
        world.log,
        [format!("tell {}", first.0), format!("tell {}", second.0), "acknowledge 1".into()]
    );
    assert_eq!(told_to(&world, first), [&HandleEvent::Happened(event)]);
}

#[test]
fn an_event_of_an_earlier_node_or_for_another_handle_is_not_told() {
    let mut world = World::new();
    let first = world.open_with_events(F, &[LockConflict]);
    let second = world.open_with_events(F, &[LockConflict]);
    let body = &world.core.handles.get(first).unwrap().body;
    let to = Some(HandleId { session: body.session, opened_by: body.opened_by });

    world.tell(News::Event(NodeEvent { instance: Instance(3), ..happened(LockConflict, 12) }));
    world.tell(News::Event(NodeEvent { to, ..happened(LockConflict, 12) }));

    assert_eq!(told_to(&world, first).len(), 1);
    assert_eq!(told_to(&world, second).len(), 0);
}

#[test]
fn a_closed_handle_is_told_nothing() {
    let mut world = World::new();
    let handle = world.open_with_events(F, &[ContentsModified]);
    world.input(Input::Close(handle));

    world.tell(News::Event(happened(ContentsModified, 12)));

    assert_eq!(world.told, []);
    assert_eq!(world.log.last().unwrap(), "acknowledge 1");
}

#[test]
fn a_fail_over_of_another_cell_concerns_handles_that_are_told_of_children() {
    let mut world = World::new();
    let of_children = world.open_with_events(F, &[ChildAdded]);
    let of_itself = world.open_with_events(F, &[LockAcquired]);
    world.log.clear();
    let (cell, epoch) = (CellName::new("b"), Epoch(2));

    world.tell(News::FailOver { cell: cell.clone(), epoch });

    assert_eq!(world.log, ["refresh", "acknowledge 1"], "it may be the one that tells of them");
    world.answer_last(Ok(Reply::Stat(stat())));
    let lost = HandleEvent::EventsLost(LossCause::FailOver { cell, epoch });
    assert_eq!(told_to(&world, of_children), [&lost]);
    assert!(told_to(&world, of_itself).is_empty());
}

#[test]
fn after_a_fail_over_nobody_is_told_to_look_again_before_the_new_master_has_taken_the_handles() {
    let mut world = World::new();
    let listener = world.open_with_events(F, &[ContentsModified]);
    let elsewhere = world.open_with_events("/ls/dev/b/f", &[ContentsModified]);
    world.open(F, Use::Read);
    world.log.clear();

    let (cell, epoch) = (CellName::new("a"), Epoch(2));
    world.tell(News::FailOver { cell: cell.clone(), epoch });

    assert_eq!(world.log, ["refresh", "acknowledge 1"]);
    assert!(told_to(&world, listener).is_empty(), "what happens before it is taken would not be told");
    world.answer_last(Ok(Reply::Stat(stat())));
    let lost = HandleEvent::EventsLost(LossCause::FailOver { cell, epoch });
    assert_eq!(told_to(&world, listener), [&lost]);
    assert!(told_to(&world, elsewhere).is_empty());
}

#[test]
fn a_host_that_does_not_know_the_session_takes_the_handles_before_anybody_is_told_to_look_again() {
    let mut world = World::new();
    let listener = world.open_with_events(F, &[ContentsModified]);
    world.log.clear();

    world.lose_connection();
    world.wait_until(t(1_000));
    assert_eq!(world.log, [] as [&str; 0], "the host knew it");
    world.resumes = false;
    world.lose_connection();
    world.wait_until(t(2_000));

    assert_eq!(world.log, ["refresh"]);
    assert!(told_to(&world, listener).is_empty());
    world.answer_last(Ok(Reply::Stat(stat())));
    assert_eq!(told_to(&world, listener), [&HandleEvent::EventsLost(LossCause::NewHost)]);
}

#[test]
fn an_event_before_the_host_has_taken_the_handle_comes_after_the_word_that_some_may_be_missing() {
    let mut world = World::new();
    let listener = world.open_with_events(F, &[ContentsModified]);
    let (cell, epoch) = (CellName::new("a"), Epoch(2));
    world.tell(News::FailOver { cell: cell.clone(), epoch });

    let event = happened(ContentsModified, 12);
    world.tell(News::Event(event.clone()));
    world.answer_last(Ok(Reply::Stat(stat())));

    let lost = HandleEvent::EventsLost(LossCause::FailOver { cell, epoch });
    let expected = [&lost, &HandleEvent::Happened(event), &lost];
    assert_eq!(told_to(&world, listener), expected, "and again, since others may have been missing after it");
}

#[test]
fn a_lock_that_comes_after_the_loss_of_its_cell_is_given_back_and_its_caller_never_has_it() {
    let mut world = World::new();
    let handle = world.open(F, Use::WriteAndLock);
    let call = world.acquire(handle);
    let number = world.asked.last().expect("asked").number;
    world.tell(News::CellLost { cell: CellName::new("a") });

    world.answer(number, granted(9));

    assert_eq!(world.code(call), Some(ErrorCode::SessionExpired));
    assert_eq!(world.last(), "close");
}

#[test]
fn events_that_the_host_could_not_tell_are_told_to_be_lost_in_their_cell() {
    let mut world = World::new();
    let here = world.open_with_events(F, &[ContentsModified]);
    let there = world.open_with_events("/ls/dev/b/f", &[ContentsModified]);

    world.tell(News::EventsLost { cell: Some(CellName::new("b")) });
    assert!(told_to(&world, here).is_empty());
    world.tell(News::EventsLost { cell: None });

    let lost = HandleEvent::EventsLost(LossCause::Host);
    assert_eq!(told_to(&world, here), [&lost]);
    assert_eq!(told_to(&world, there), [&lost, &lost]);
}

#[test]
fn a_handle_whose_node_is_gone_at_the_new_master_is_invalid() {
    let mut world = World::new();
    let listener = world.open_with_events(F, &[ContentsModified]);
    world.tell(News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) });

    world.answer_last(Err(ErrorCode::StaleHandle));

    assert_eq!(code(told_to(&world, listener)[0]), Some(ErrorCode::StaleHandle));
}

#[test]
fn a_deleted_node_makes_its_handles_invalid() {
    let mut world = World::new();
    let listener = world.open_with_events(F, &[HandleInvalid]);

    world.tell(News::Event(happened(HandleInvalid, 12)));

    assert_eq!(code(told_to(&world, listener)[0]), Some(ErrorCode::StaleHandle));
}

#[test]
fn the_loss_of_the_cell_or_of_the_session_makes_handles_invalid() {
    let mut world = World::new();
    let here = world.open_with_events(F, &[ContentsModified]);
    let there = world.open_with_events("/ls/dev/b/f", &[ContentsModified]);
    world.tell(News::CellLost { cell: CellName::new("b") });
    assert_eq!(code(told_to(&world, there)[0]), Some(ErrorCode::SessionExpired));
    assert!(told_to(&world, here).is_empty());

    world.welcomes = false;
    world.wait_until(t(60_000));

    assert_eq!(code(told_to(&world, here)[0]), Some(ErrorCode::SessionExpired));
    assert_eq!(told_to(&world, there).len(), 1, "once");
}

#[test]
fn the_names_of_handles_are_those_of_the_cells() {
    let mut world = World::new();
    let listener = world.open_with_events("/ls/local/f", &[ContentsModified]);

    world.tell(News::Event(happened(ContentsModified, 12)));

    assert_eq!(told_to(&world, listener).len(), 1);
    assert_eq!(world.core.handles.get(listener).unwrap().body.name, name(F));
}
