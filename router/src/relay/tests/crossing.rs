//! Directories of which one cell holds the node and another the children: `a` holds that of `/ls/dev/b`.

use bytes::Bytes;
use hasp_proto::crossing::CrossOp;
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::{HandleKey, HandleToken};
use hasp_proto::id::{CellName, Instance, SessionId};
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, OnBehalf, Op, Reply, Request};

use super::caching::{for_reading, put};
use super::cell::SPLIT;
use super::world::World;
use super::{B, code, for_client, opened};

fn list_root() -> CrossOp {
    CrossOp::ListRoot { name: Name::parse(SPLIT).expect("good"), instance: Instance(1) }
}

/// The names of the children, and the answer.
fn listed(answer: Option<Answer>) -> (Vec<String>, Answer) {
    let answer = answer.expect("answered");
    let Ok(Reply::Children { children, .. }) = &answer.result else { panic!("children: {answer:?}") };
    (children.iter().map(|child| child.component.clone()).collect(), answer)
}

fn is_listing(request: &Request) -> bool {
    request.op == Op::Cross(list_root())
}

fn listings_at(world: &World, cell: &str) -> usize {
    world.cells[cell].seen.iter().filter(|(_, request)| is_listing(request)).count()
}

#[test]
fn a_split_directory_is_listed_by_the_cell_that_holds_the_children() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let file = opened(&mut world, client, B);
    world.ask(client, put(&file, "x"));
    let directory = for_reading(&mut world, client, SPLIT);
    assert_eq!(directory.claimed_body().map(|body| body.cell.as_str().to_owned()), Some("a".to_owned()));

    let (names, answer) = listed(world.ask(client, Op::ReadDir(directory)));

    assert_eq!(names, ["x"]);
    assert_eq!(answer.position.map(|it| it.cell.as_str().to_owned()), Some("b".to_owned()));
    let (_, request) = world.asked("b", client).into_iter().find(|(_, it)| is_listing(it)).expect("asked");
    let on_behalf = request.on_behalf.expect("for the client");
    assert_eq!((on_behalf.session, &*on_behalf.principal), (world.clients[client].session(), "alice"));
    assert!(!world.cells["a"].ops().contains(&"read_dir"));
}

#[test]
fn its_listing_is_kept_until_the_cell_that_holds_the_children_takes_it_back() {
    let mut world = World::new(&["p"]);
    let (client, other) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let file = opened(&mut world, other, B);
    world.ask(other, put(&file, "x"));
    let directory = for_reading(&mut world, client, SPLIT);
    let list = Op::ReadDir(directory);
    let generation = |answer: &Answer| match &answer.result {
        Ok(Reply::Children { children, .. }) => children[0].stat.content_generation.0,
        other => panic!("{other:?}"),
    };

    let first = world.ask(client, list.clone()).expect("answered");
    let again = world.ask(client, list.clone()).expect("answered");
    assert_eq!((generation(&first), generation(&again), listings_at(&world, "b")), (1, 1, 1));
    assert!(!again.caches.is_empty(), "the client may keep it");
    world.ask(other, put(&file, "y"));
    let after = world.ask(client, list).expect("answered");

    assert_eq!((generation(&after), listings_at(&world, "b")), (2, 2));
    assert_eq!(after.position.map(|it| it.cell.as_str().to_owned()), Some("b".to_owned()));
}

#[test]
fn readers_of_its_listing_share_one_question() {
    let mut world = World::new(&["p"]);
    let clients: Vec<_> = (0..5).map(|_| world.add_client(&["p"])).collect();
    let handles: Vec<_> = clients.iter().map(|client| for_reading(&mut world, *client, SPLIT)).collect();

    world.cell("b").holds = true;
    let list =
        |world: &mut World, index: usize| world.submit(clients[index], Op::ReadDir(handles[index].clone()));
    let tickets: Vec<_> = (0..5).map(|index| list(&mut world, index)).collect();
    world.run_for(100);
    assert_eq!(listings_at(&world, "b"), 1);
    world.cell("b").answer_held();
    world.run_for(100);

    for (client, ticket) in clients.iter().zip(tickets) {
        listed(world.clients[*client].answer(ticket).cloned());
    }
    assert!(listings_at(&world, "b") <= 2);
}

#[test]
fn relays_behind_relays_leave_it_to_the_first_and_keep_it_alike() {
    let mut world = World::layered(&["r"], &["p"]);
    let client = world.add_client(&["p"]);
    let file = opened(&mut world, client, B);
    world.ask(client, put(&file, "x"));
    let directory = for_reading(&mut world, client, SPLIT);

    let (first, _) = listed(world.ask(client, Op::ReadDir(directory.clone())));
    let hits = world.relays["p"].status().hits;
    let (again, _) = listed(world.ask(client, Op::ReadDir(directory.clone())));
    assert_eq!((first, again, listings_at(&world, "b")), (vec!["x".to_owned()], vec!["x".to_owned()], 1));
    assert_eq!(world.relays["p"].status().hits, hits + 1);
    world.ask(client, put(&file, "y"));
    listed(world.ask(client, Op::ReadDir(directory)));

    assert_eq!(listings_at(&world, "b"), 2);
}

#[test]
fn a_handle_that_no_cell_made_is_left_to_the_cell_that_it_names() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let body = for_reading(&mut world, client, SPLIT).claimed_body().expect("a handle");
    let forged: HandleToken = HandleKey::new(Bytes::from_static(b"another")).seal(&body);

    world.ask(client, Op::ReadDir(forged));

    assert_eq!(listings_at(&world, "b"), 0);
    assert!(world.cells["a"].ops().contains(&"read_dir"));
}

#[test]
fn what_cells_are_asked_between_them_is_not_for_those_below() {
    let mut world = World::new(&["p"]);
    let (client, proxy) = (world.add_client(&["p"]), world.add_proxy(&["p"]));
    opened(&mut world, client, B);
    let op = Op::Cross(list_root());

    assert_eq!(code(world.ask(client, op.clone()).as_ref()), Some(ErrorCode::PermissionDenied));
    assert_eq!(code(world.ask(proxy, op.clone()).as_ref()), Some(ErrorCode::InvalidArgument));
    let on_behalf = world.asked("b", client)[0].1.on_behalf.clone().expect("for the client");
    let now = world.now;
    let guest = OnBehalf { session: SessionId([77; 16]), ..on_behalf };
    let ticket = world.clients[proxy].core.submit_to(now, &CellName::new("b"), for_client(op, guest));
    world.run_for(100);

    assert_eq!(code(world.clients[proxy].answer(ticket)), Some(ErrorCode::InvalidArgument));
    assert_eq!(listings_at(&world, "b"), 0);
}
