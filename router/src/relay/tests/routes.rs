//! `move-4` at a relay: what is below `/ls/dev/b` goes from `b` to `a`.

use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::name::Name;
use hasp_proto::partition::{Change, PartitionMap, Prefix};

use super::caching::{for_reading, put};
use super::events::{happens_at, heard};
use super::world::{World, map};
use super::*;

fn changing() -> PartitionMap {
    let prefix = Prefix::Below(Name::parse("/ls/dev/b").expect("good"));
    map().changing(Change { prefix, cells: vec![] }).expect("a good change")
}

fn changed() -> PartitionMap {
    changing().after().expect("a change").clone()
}

/// The home cell's file says this.
fn show(world: &mut World, map: &PartitionMap) {
    world.cell("a").show_map(map);
    world.run_for(200);
}

fn claims(world: &World, cell: &str, client: usize) -> Vec<OnBehalf> {
    let asked = world.asked(cell, client).into_iter().filter(|(_, request)| request.op == Op::Claim);
    asked.filter_map(|(_, request)| request.on_behalf).collect()
}

fn listening_to(world: &mut World, client: usize, name: &str) -> HandleToken {
    let name = Name::parse(name).expect("good");
    let events = EventMask::of([EventKind::ContentsModified]);
    let open = Op::Open(Open { events, ..Open::existing(name, Use::Read) });
    match world.ask(client, open) {
        Some(Answer { result: Ok(Reply::Opened { handle, .. }), .. }) => handle,
        other => panic!("not opened: {other:?}"),
    }
}

fn fail_overs(world: &World, client: usize) -> Vec<String> {
    let cell = |event: &Event| match event {
        Event::News(_, News::FailOver { cell, .. }) => Some(cell.to_string()),
        _ => None,
    };
    world.clients[client].events.iter().filter_map(cell).collect()
}

#[test]
fn requests_go_where_the_names_have_gone_and_not_before() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, B);
    let writes_at = |world: &World, cell: &str| {
        let writes = world.asked(cell, client).into_iter();
        writes.filter(|(_, request)| matches!(request.op, Op::SetContents { .. })).count()
    };

    show(&mut world, &changing());
    world.ask(client, put(&handle, "x"));
    assert_eq!((writes_at(&world, "a"), writes_at(&world, "b")), (0, 1));
    show(&mut world, &changed());
    world.ask(client, put(&handle, "y"));

    assert_eq!((writes_at(&world, "a"), writes_at(&world, "b")), (1, 1), "with the handle of before");
}

#[test]
fn the_new_cell_hears_through_whom_those_speak_who_left_something_in_the_old_one() {
    let mut world = World::new(&["p"]);
    let clients: Vec<_> = (0..5).map(|_| world.add_client(&["p"])).collect();
    let [writer, reader, beside, idle, first] = clients[..] else { unreachable!("five") };
    let handle = opened(&mut world, writer, B);
    world.ask(writer, put(&handle, "x"));
    for_reading(&mut world, first, B);
    for_reading(&mut world, reader, B); // From the cache.
    assert!(world.asked("b", reader).is_empty());
    let handle = opened(&mut world, beside, A);
    world.ask(beside, put(&handle, "x"));
    let before = [writer, reader, beside, idle].map(|client| claims(&world, "a", client).len());

    show(&mut world, &changing());
    assert_eq!([writer, reader, beside, idle].map(|client| claims(&world, "a", client).len()), before);
    show(&mut world, &changed());

    let after = [writer, reader, beside, idle].map(|client| claims(&world, "a", client).len());
    assert_eq!(after, [before[0] + 1, before[1], before[2], before[3]]);
    let claim = claims(&world, "a", writer).pop().expect("just seen");
    assert_eq!(claim.session, world.clients[writer].session());
    let (_, known) = world.asked("b", writer).remove(0);
    assert_eq!((claim.principal.as_str(), Some(claim.claim)), ("alice", known.on_behalf.map(|it| it.claim)));
    assert!(claims(&world, "b", writer).is_empty(), "the old one knows");
    let now = world.now;
    let session = claim.session;
    world.clients[writer].core.end(now);
    world.run_for(200);
    let ended = |cell: &str| {
        let mut seen = world.cells[cell].seen.iter();
        seen.any(|(_, request)| {
            let is_its = request.on_behalf.as_ref().is_some_and(|client| client.session == session);
            is_its && matches!(request.op, Op::EndClient(_))
        })
    };
    assert!(ended("a") && ended("b"), "both hear when it is over");
}

#[test]
fn the_new_cell_hears_of_clients_behind_other_relays_too() {
    let mut world = World::layered(&["u"], &["p"]);
    let clients: Vec<_> = (0..2).map(|_| world.add_client(&["p"])).collect();
    let handle = opened(&mut world, clients[0], B);
    world.ask(clients[0], put(&handle, "x"));
    let handle = opened(&mut world, clients[1], A);
    world.ask(clients[1], put(&handle, "x"));
    let count = |world: &World| [0, 1].map(|client| claims(world, "a", clients[client]).len());
    let before = count(&world);

    show(&mut world, &changed());

    assert_eq!(count(&world), [before[0] + 1, before[1]]);
}

#[test]
fn who_listens_to_what_has_moved_is_told_of_a_fail_over_and_nobody_else() {
    let mut world = World::new(&["p"]);
    let clients: Vec<_> = (0..4).map(|_| world.add_client(&["p"])).collect();
    listening_to(&mut world, clients[0], B);
    listening_to(&mut world, clients[1], A);
    listening_to(&mut world, clients[2], super::cell::SPLIT);
    opened(&mut world, clients[3], B);

    show(&mut world, &changing());
    assert!(clients.iter().all(|client| fail_overs(&world, *client).is_empty()), "nothing has moved yet");
    show(&mut world, &changed());

    assert_eq!(fail_overs(&world, clients[0]), ["b"], "P-EVENT");
    assert_eq!(fail_overs(&world, clients[1]), [""; 0]);
    assert_eq!(fail_overs(&world, clients[2]).len(), 1, "of its children it heard from the other");
    assert_eq!(fail_overs(&world, clients[3]), [""; 0]);
    show(&mut world, &changed());
    assert_eq!(fail_overs(&world, clients[0]).len(), 1, "once");
}

#[test]
fn behind_another_relay_a_client_hears_of_what_has_moved_though_the_cell_of_before_is_lost() {
    let mut world = World::layered(&["u"], &["p"]);
    let clients = [world.add_client(&["p"]), world.add_client(&["p"])];
    let shown = listening_to(&mut world, clients[1], B);
    show(&mut world, &changed());
    listening_to(&mut world, clients[0], B);
    assert_eq!(code(world.ask(clients[1], Op::Refresh(shown)).as_ref()), None);

    world.silence("b");
    world.run_for(180_000);
    assert!(clients.iter().all(|client| world.clients[*client].saw(|event| is_lost(event, "b")) == 1));
    happens_at(&mut world, "u", B, EventKind::ContentsModified, None);

    assert_eq!(
        clients.map(|client| heard(&world, client)),
        [1, 1],
        "P-EVENT: nobody said that it is deaf to a"
    );
}

#[test]
fn behind_another_relay_a_client_hears_of_the_loss_of_the_cell_that_something_has_moved_to() {
    let mut world = World::layered(&["u"], &["p"]);
    let client = world.add_client(&["p"]);
    show(&mut world, &changed());
    opened(&mut world, client, B);

    world.silence("a");
    world.run_for(180_000);

    assert_eq!(world.clients[client].saw(|event| is_lost(event, "a")), 1);
}

#[test]
fn a_client_hears_what_becomes_of_the_cell_that_something_has_moved_to_by_the_name_of_the_cell_of_its_handle()
{
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = listening_to(&mut world, client, B);
    show(&mut world, &changing());
    show(&mut world, &changed());
    assert_eq!(fail_overs(&world, client), ["b"]);
    assert_eq!(code(world.ask(client, Op::Refresh(handle)).as_ref()), None, "as libraries do then");
    world.clients[client].events.clear();

    let now = world.now;
    world.cell("a").fail_over(now);
    world.run_for(1_000);
    let mut heard = fail_overs(&world, client);
    heard.sort();
    assert_eq!(heard, ["a", "b"]);

    world.clients[client].events.clear();
    world.silence("a");
    world.run_for(180_000);
    let lost = |event: &Event| match event {
        Event::News(_, News::CellLost { cell }) => Some(cell.to_string()),
        _ => None,
    };
    let mut lost: Vec<_> = world.clients[client].events.iter().filter_map(lost).collect();
    lost.sort();
    assert_eq!(lost, ["a", "b"]);
}
