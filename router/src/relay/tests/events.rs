//! Events of nodes on their way through a relay.

use hasp_proto::client::Event;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::{EventKind, EventMask, HandleId, NodeEvent};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Instance, RequestNumber};
use hasp_proto::limits::EVENTS_PER_SESSION;
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, EndCause, Op, Open, Reply, Use};
use hasp_proto::stream::News;

use super::A;
use super::world::World;

pub(super) fn listening(world: &mut World, client: usize, kinds: &[EventKind]) -> HandleToken {
    let name = Name::parse(A).expect("good");
    let events = EventMask::of(kinds.iter().copied());
    match world.ask(client, Op::Open(Open { events, ..Open::existing(name, Use::Read) })) {
        Some(Answer { result: Ok(Reply::Opened { handle, .. }), .. }) => handle,
        other => panic!("not opened: {other:?}"),
    }
}

fn happens(world: &mut World, kind: EventKind, to: Option<HandleId>) {
    happens_at(world, "p", A, kind, to);
}

/// The cell `a` tells that relay of that node.
pub(super) fn happens_at(world: &mut World, relay: &str, node: &str, kind: EventKind, to: Option<HandleId>) {
    let name = Name::parse(node).expect("good");
    let position = world.cells["a"].position();
    let event = NodeEvent { kind, name, instance: Instance(1), child: None, to, position };
    let session = world.relays[relay].upstream.sessions().next().expect("at a").session;
    let now = world.now;
    world.cell("a").core.tell_event(now, session, event);
    world.run_for(50);
}

pub(super) fn heard(world: &World, client: usize) -> usize {
    world.clients[client].saw(|event| matches!(event, Event::News(_, News::Event(_))))
}

fn lost(world: &World, client: usize) -> usize {
    world.clients[client].saw(|event| matches!(event, Event::News(_, News::EventsLost { .. })))
}

#[test]
fn an_event_is_told_to_the_clients_whose_handles_subscribed_and_acknowledged_at_once() {
    let mut world = World::new(&["p"]);
    let clients: Vec<_> = (0..4).map(|_| world.add_client(&["p"])).collect();
    for client in &clients[..2] {
        listening(&mut world, *client, &[EventKind::ContentsModified]);
    }
    let closed = listening(&mut world, clients[2], &[EventKind::ContentsModified]);
    world.ask(clients[2], Op::Close(closed));
    listening(&mut world, clients[3], &[EventKind::LockAcquired]);
    world.clients[clients[0]].is_deaf = true;

    happens(&mut world, EventKind::ContentsModified, None);

    let numbers: Vec<_> = clients.iter().map(|client| heard(&world, *client)).collect();
    assert_eq!(numbers, [1, 1, 0, 0]);
    assert_eq!(world.relays["p"].status().rounds, 0, "whoever is slow holds up nobody above");
}

#[test]
fn an_event_for_one_handle_goes_to_its_client() {
    let mut world = World::new(&["p"]);
    let clients = [world.add_client(&["p"]), world.add_client(&["p"])];
    for client in clients {
        listening(&mut world, client, &[EventKind::LockConflict]);
    }
    let to = HandleId { session: world.clients[clients[1]].session(), opened_by: RequestNumber(1) };

    happens(&mut world, EventKind::LockConflict, Some(to));

    assert_eq!(clients.map(|client| heard(&world, client)), [0, 1]);
}

#[test]
fn a_handle_that_is_shown_is_told_of_events_here() {
    let mut world = World::new(&["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    let handle = listening(&mut world, client, &[EventKind::ContentsModified]);
    let (first, next) = if world.relays["p"].status().sessions == 1 { ("p", "q") } else { ("q", "p") };
    happens_at(&mut world, first, A, EventKind::ContentsModified, None);
    assert_eq!(heard(&world, client), 1);

    world.break_links(client);
    world.run_for(1_000);
    happens_at(&mut world, next, A, EventKind::ContentsModified, None);
    assert_eq!(heard(&world, client), 1, "nobody there knows the handle");
    world.ask(client, Op::Refresh(handle));
    happens_at(&mut world, next, A, EventKind::ContentsModified, None);

    assert_eq!(heard(&world, client), 2);
}

#[test]
fn a_slow_listener_is_told_once_that_it_missed_some_and_others_miss_nothing() {
    let mut world = World::new(&["p"]);
    let (slow, quick) = (world.add_client(&["p"]), world.add_client(&["p"]));
    for client in [slow, quick] {
        listening(&mut world, client, &[EventKind::ContentsModified]);
    }
    world.clients[slow].is_deaf = true;

    for _ in 0..EVENTS_PER_SESSION + 20 {
        happens(&mut world, EventKind::ContentsModified, None);
    }

    assert_eq!((heard(&world, slow), lost(&world, slow)), (EVENTS_PER_SESSION, 1));
    assert_eq!((heard(&world, quick), lost(&world, quick)), (EVENTS_PER_SESSION + 20, 0));
}

#[test]
fn events_lost_above_are_lost_to_all_who_subscribed_in_that_cell() {
    let mut world = World::new(&["p"]);
    let (listens, other) = (world.add_client(&["p"]), world.add_client(&["p"]));
    listening(&mut world, listens, &[EventKind::ContentsModified]);
    let session = world.relays["p"].upstream.sessions().next().expect("at a").session;
    let now = world.now;

    world.cell("a").core.tell_events_lost(now, session);
    world.run_for(50);

    assert_eq!((lost(&world, listens), lost(&world, other)), (1, 0));
}

#[test]
fn after_a_fail_over_only_handles_that_the_new_master_took_hear_of_events() {
    let mut world = World::new(&["p"]);
    let (shows, shows_not, is_denied) =
        (world.add_client(&["p"]), world.add_client(&["p"]), world.add_client(&["p"]));
    let handles =
        [shows, shows_not, is_denied].map(|it| listening(&mut world, it, &[EventKind::ContentsModified]));
    let now = world.now;
    world.cell("a").fail_over(now);
    world.run_for(5_000);

    world.ask(shows, Op::Refresh(handles[0].clone()));
    world.cell("a").refuses = Some(("refresh", ErrorCode::PermissionDenied));
    world.ask(is_denied, Op::Refresh(handles[2].clone()));
    happens(&mut world, EventKind::ContentsModified, None);

    assert_eq!([shows, shows_not, is_denied].map(|client| heard(&world, client)), [1, 0, 0]);
}

#[test]
fn a_handle_that_its_cell_does_not_take_any_more_hears_of_nothing() {
    let mut world = World::new(&["p"]);
    let (client, other) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let handle = listening(&mut world, client, &[EventKind::ContentsModified]);
    listening(&mut world, other, &[EventKind::ContentsModified]);

    world.cell("a").refuses = Some(("refresh", ErrorCode::PermissionDenied));
    world.ask(client, Op::Refresh(handle));
    happens(&mut world, EventKind::ContentsModified, None);

    assert_eq!((heard(&world, client), heard(&world, other)), (0, 1));
}

#[test]
fn the_cell_hears_of_the_end_of_a_client_that_only_listened() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    listening(&mut world, client, &[EventKind::ContentsModified]);

    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(100);

    let ends =
        world.asked("a", client).into_iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Closed));
    assert_eq!(ends.count(), 1);
    happens(&mut world, EventKind::ContentsModified, None);
    assert_eq!(heard(&world, client), 0);
}
