//! What the master needs of other cells, and what it does for their sake (`route-1`, `route-3` to `route-6`).

use hasp_proto::crossing::{Anchor, Chore, CrossOp, Evidence, Membership, Need, Root, SealTicket, Vouch};
use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::node::{AclNames, NodeKind};
use hasp_proto::partition::{Change, Prefix};
use hasp_proto::position::Position;
use hasp_proto::request::{Create, OnBehalf};

use super::*;

const ROUTER: u64 = 9;

/// A master of `b` with a router. Client 2, who is bob, is behind it.
fn b() -> World {
    let mut world = World::serving_in("b");
    world.connect(ROUTER, hello(9, Role::Router));
    world
}

/// Bob asks through the router.
fn ask_as_bob(world: &mut World, evidence: Option<Evidence>, op: Op) -> Result<Reply, ErrorCode> {
    let number = world.numbers.entry(ROUTER).or_default();
    *number += 1;
    let number = *number;
    let client = on_behalf(2, number, 1).expect("somebody");
    let client = OnBehalf { evidence: evidence.map(Box::new), ..client };
    world.ask_for(ROUTER, number, Some(client), op);
    world.commit();
    world.answer(ROUTER, number).unwrap_or(Err(ErrorCode::Unavailable))
}

fn cross(world: &mut World, op: CrossOp) -> Result<Reply, ErrorCode> {
    world.call(ROUTER, Op::Cross(op))
}

fn create_as(text: &str, kind: NodeKind, acls: Option<AclNames>) -> Op {
    let create = Create { must: false, kind, contents: Bytes::new(), ephemeral: false, acls };
    Op::Open(Open { create: Some(create), ..Open::existing(name(text), Use::WriteAndLock) })
}

fn guarded_by(acl: &str) -> Option<AclNames> {
    Some(AclNames { read: "everyone".into(), write: acl.into(), change: "admin".into() })
}

fn handle_in(reply: Result<Reply, ErrorCode>) -> HandleToken {
    match reply {
        Ok(Reply::Opened { handle, .. }) => handle,
        other => panic!("{other:?}"),
    }
}

/// The router's word on an ACL, from that moment on for so long.
fn word(acl: &str, is_member: bool, anchor: Anchor, seconds: u64) -> Option<Evidence> {
    Some(Evidence {
        memberships: vec![Membership { acl: acl.into(), is_member }],
        vouch: Some(Vouch { anchor, lasts: Duration::from_secs(seconds) }),
        ..Evidence::default()
    })
}

#[track_caller]
fn needs_acl(reply: Result<Reply, ErrorCode>, acl: &str) -> Anchor {
    match reply {
        Ok(Reply::Needs(Need::Acl(name), anchor)) if name == acl => anchor,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_acl_of_another_cell_is_needed_of_a_router_and_denies_whoever_comes_without_one() {
    let mut world = b();
    world.client(1);
    let handle = handle_in(world.call(1, create_as("/ls/dev/b/f", NodeKind::File, guarded_by("ops"))));
    assert_eq!(world.call(1, set(&handle, "x")), Err(ErrorCode::PermissionDenied), "it speaks for itself");

    let opened =
        ask_as_bob(&mut world, None, Op::Open(Open::existing(name("/ls/dev/b/f"), Use::WriteAndLock)));
    let anchor = needs_acl(opened, "ops");
    assert_eq!(anchor, Anchor { epoch: Epoch(1), at: world.now });
    let open = || Op::Open(Open::existing(name("/ls/dev/b/f"), Use::WriteAndLock));
    let no = ask_as_bob(&mut world, word("ops", false, anchor, 5), open());
    assert_eq!(no, Err(ErrorCode::PermissionDenied));
    let handle = handle_in(ask_as_bob(&mut world, word("ops", true, anchor, 5), open()));
    needs_acl(ask_as_bob(&mut world, None, set(&handle, "x")), "ops");
    let written = ask_as_bob(&mut world, word("ops", true, anchor, 5), set(&handle, "x"));
    assert!(matches!(written, Ok(Reply::Written { .. })), "{written:?}");
}

#[test]
fn a_routers_word_on_an_acl_counts_as_long_as_it_said() {
    let mut world = b();
    world.client(1);
    world.call(1, create_as("/ls/dev/b/f", NodeKind::File, guarded_by("ops"))).expect("created");
    let open = || Op::Open(Open::existing(name("/ls/dev/b/f"), Use::WriteAndLock));
    let anchor = needs_acl(ask_as_bob(&mut world, None, open()), "ops");
    let without_end = || Evidence { vouch: None, ..word("ops", true, anchor, 0).expect("a word") };

    needs_acl(ask_as_bob(&mut world, Some(without_end()), open()), "ops");
    world.pass(Duration::from_millis(4_999));
    handle_in(ask_as_bob(&mut world, word("ops", true, anchor, 5), open()));
    handle_in(ask_as_bob(&mut world, Some(without_end()), open()));
    world.pass(Duration::from_millis(1));
    needs_acl(ask_as_bob(&mut world, word("ops", true, anchor, 5), open()), "ops");

    let Ok(Reply::Anchored(anchor)) = cross(&mut world, CrossOp::Vouch(None)) else { panic!("an anchor") };
    let vouch = Vouch { anchor, lasts: Duration::from_secs(3) };
    cross(&mut world, CrossOp::Vouch(Some(vouch))).expect("heard");
    handle_in(ask_as_bob(&mut world, Some(without_end()), open()));
}

#[test]
fn a_write_that_has_waited_for_caches_longer_than_the_word_on_its_acl_is_not_done() {
    let mut world = b();
    world.client(1);
    world.call(1, create_as("/ls/dev/b/f", NodeKind::File, guarded_by("ops"))).expect("created");
    let open = || Op::Open(Open::existing(name("/ls/dev/b/f"), Use::WriteAndLock));
    let anchor = needs_acl(ask_as_bob(&mut world, None, open()), "ops");
    let handle = handle_in(ask_as_bob(&mut world, word("ops", true, anchor, 2), open()));
    (world.caches, world.acknowledges) = (true, false);
    world.call(1, reading("/ls/dev/b/f")).expect("somebody caches it");
    world.caches = false;

    let number = world.numbers[&ROUTER] + 1;
    world.numbers.insert(ROUTER, number);
    let client = on_behalf(2, number, 1).expect("somebody");
    let evidence = word("ops", true, anchor, 2).map(Box::new);
    world.ask_for(ROUTER, number, Some(OnBehalf { evidence, ..client }), set(&handle, "late"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.answer(ROUTER, number), None, "it waits until nobody caches the file");
    let told: Vec<_> = world.news(1).into_iter().map(|(sequence, _)| sequence).collect();
    told.into_iter().for_each(|sequence| world.acknowledge(1, sequence));
    world.commit();

    needs_acl(world.answer(ROUTER, number).expect("it is decided by now"), "ops");
    assert!(world.state.node(&name("/ls/dev/b/f")).expect("there").contents.is_empty());
}

#[test]
fn a_router_reads_acls_whoever_may_and_hears_when_they_change() {
    let mut world = World::serving();
    world.connect(ROUTER, hello(9, Role::Router));
    world.connect(3, Hello { principal: "admin".into(), ..hello(3, Role::Client) });
    let secret = AclNames { read: "admin".into(), write: "admin".into(), change: "admin".into() };
    let file = handle_in(world.call(3, create_as("/ls/dev/acl/ops", NodeKind::File, Some(secret))));
    world.call(3, set(&file, "bob\n")).expect("written");
    world.caches = true;

    let number = world.ask(ROUTER, Op::Cross(CrossOp::ReadAcl("ops".into())));
    let Some(Ok(Reply::Contents { contents, .. })) = world.answer(ROUTER, number) else { panic!("read") };
    assert_eq!(contents, "bob\n");
    assert_eq!(world.cachable(ROUTER, number), [ItemKind::Data]);
    let number = world.ask(ROUTER, Op::Cross(CrossOp::ReadAcl("none".into())));
    assert_eq!(world.answer(ROUTER, number), Some(Err(ErrorCode::NotFound)));
    assert_eq!(world.cachable(ROUTER, number), [ItemKind::Absence]);
    assert_eq!(cross(&mut world, CrossOp::ReadAcl("a/b".into())), Err(ErrorCode::InvalidArgument));

    world.call(3, set(&file, "\n")).expect("written");
    assert_eq!(world.news(ROUTER).len(), 1);
    world.client(1);
    let refused = world.call(1, Op::Cross(CrossOp::ReadAcl("ops".into())));
    assert_eq!(refused, Err(ErrorCode::PermissionDenied), "that is for routers");
}

#[test]
fn nobody_may_keep_what_another_cells_acl_guards() {
    let mut world = b();
    world.client(1);
    world.caches = true;
    let secret = AclNames { read: "ops".into(), write: "everyone".into(), change: "everyone".into() };
    world.call(1, create_as("/ls/dev/b/f", NodeKind::File, Some(secret))).expect("created");
    world.call(1, create_as("/ls/dev/b/g", NodeKind::File, None)).expect("created");
    let open = |text: &str| Op::Open(Open::existing(name(text), Use::Read));
    let anchor = needs_acl(ask_as_bob(&mut world, None, open("/ls/dev/b/f")), "ops");

    for (text, evidence, kept) in [("/ls/dev/b/f", word("ops", true, anchor, 5), 0), ("/ls/dev/b/g", None, 3)]
    {
        handle_in(ask_as_bob(&mut world, evidence, open(text)));
        let number = world.numbers[&ROUTER];
        assert_eq!(world.cachable(ROUTER, number).len(), kept, "{text}");
    }
}

/// A directory below which children are `b`'s while its node is `a`'s.
fn split() -> Name {
    let map = World::following().core.map();
    let is_split = |name: &Name| map.children_owner(name) == Some(&CellName::new("b"));
    (0..).map(|at| name(&format!("/ls/dev/r/x{at}"))).find(is_split).expect("one of many")
}

fn root(instance: u64, index: u64) -> Root {
    let as_of = Position { cell: CellName::new("a"), epoch: Epoch(1), index };
    let acl_generation = Generation(instance);
    Root { name: split(), instance: Instance(instance), acls: AclNames::default(), acl_generation, as_of }
}

fn says(root: Root) -> Option<Evidence> {
    Some(Evidence { root: Some(root), ..Evidence::default() })
}

/// Client 2's handle, made by `a`.
fn made_in_a(name: Name, instance: u64, kind: NodeKind) -> HandleToken {
    HandleKey::new(Bytes::from_static(&[7; 32])).seal(&HandleBody {
        cell: CellName::new("a"),
        name,
        instance: Instance(instance),
        kind,
        r#use: Use::WriteAndLock,
        session: key(2).id(),
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: Duration::ZERO,
        events: EventMask::default(),
        ephemeral: false,
    })
}

fn child(text: &str) -> String {
    format!("{}/{text}", split())
}

#[test]
fn a_directory_of_another_cell_is_listed_and_watched_by_whoever_has_it_open() {
    let mut world = b();
    let list = || Op::Cross(CrossOp::ListRoot { name: split(), instance: Instance(5) });
    let watch = |events| {
        let (name, instance, opened_by) = (split(), Instance(5), RequestNumber(77));
        Op::Cross(CrossOp::WatchRoot { name, instance, opened_by, events })
    };
    let names = |reply: Result<Reply, ErrorCode>| match reply {
        Ok(Reply::Children { children, .. }) => children.into_iter().map(|it| it.component).collect(),
        other => vec![format!("{other:?}")],
    };
    let needs = |reply| assert!(matches!(reply, Ok(Reply::Needs(Need::Root(_), _))), "{reply:?}");

    needs(ask_as_bob(&mut world, None, list()));
    needs(ask_as_bob(&mut world, None, watch(EventMask::ALL)));
    world.caches = true;
    assert!(names(ask_as_bob(&mut world, says(root(5, 10)), list())).is_empty());
    let number = world.numbers[&ROUTER];
    assert!(world.cachable(ROUTER, number).is_empty(), "there is nothing yet that could be invalidated");
    let other = ask_as_bob(&mut world, says(root(6, 11)), list());
    assert_eq!(other, Err(ErrorCode::StaleHandle));
    assert_eq!(ask_as_bob(&mut world, says(root(5, 10)), watch(EventMask::ALL)), Ok(Reply::Noted));

    handle_in(ask_as_bob(&mut world, says(root(5, 10)), create_as(&child("c"), NodeKind::File, None)));
    assert_eq!(world.events(ROUTER), [format!("child-added {} c", split())]);
    assert_eq!(names(ask_as_bob(&mut world, None, list())), ["c"]);
    let number = world.numbers[&ROUTER];
    assert_eq!(world.cachable(ROUTER, number), [ItemKind::Listing, ItemKind::Acl]);

    assert_eq!(ask_as_bob(&mut world, None, watch(EventMask::NONE)), Ok(Reply::Noted));
    handle_in(ask_as_bob(&mut world, None, create_as(&child("d"), NodeKind::File, None)));
    assert_eq!(world.events(ROUTER).len(), 1, "it is not watched any more");
}

#[test]
fn a_name_relative_to_a_directory_of_another_cell_is_of_that_very_directory() {
    let mut world = b();
    let relative = |op: Op, base: u64| {
        let Op::Open(open) = op else { unreachable!() };
        Op::Open(Open { relative_to: Some(made_in_a(split(), base, NodeKind::Directory)), ..open })
    };
    let make = || create_as(&child("c"), NodeKind::File, None);
    let open = || Op::Open(Open::existing(name(&child("c")), Use::Read));

    let stale = ask_as_bob(&mut world, says(root(9, 20)), relative(make(), 5));
    assert_eq!(stale, Err(ErrorCode::StaleHandle));
    handle_in(ask_as_bob(&mut world, None, relative(make(), 9)));
    assert_eq!(ask_as_bob(&mut world, None, relative(open(), 5)), Err(ErrorCode::StaleHandle));
    handle_in(ask_as_bob(&mut world, None, relative(open(), 9)));
}

#[test]
fn only_what_happens_to_children_is_told_of_a_directory_whose_node_is_elsewhere() {
    assert_eq!(
        EventMask::ALL.of_children(),
        EventMask::of([EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified])
    );
    assert!(EventMask::of([EventKind::LockAcquired]).of_children().is_empty());
}

#[test]
fn a_seal_takes_cached_listings_back_before_it_is_there() {
    let mut world = b();
    world.caches = true;
    let handle =
        handle_in(ask_as_bob(&mut world, says(root(5, 10)), create_as(&child("c"), NodeKind::File, None)));
    ask_as_bob(&mut world, None, Op::Delete(handle)).expect("deleted");
    let list = || Op::Cross(CrossOp::ListRoot { name: split(), instance: Instance(5) });
    ask_as_bob(&mut world, None, list()).expect("listed");
    world.acknowledges = false;

    let seal = world.ask(ROUTER, Op::Cross(CrossOp::Seal { name: split(), instance: Instance(5) }));
    world.commit();
    assert_eq!(world.answer(ROUTER, seal), None);
    let (told, news) = world.news(ROUTER).pop().expect("told");
    assert!(
        matches!(news, News::Invalidate { items, .. } if items == [Item::new(split(), ItemKind::Listing)])
    );
    world.acknowledge(ROUTER, told);
    world.commit();
    let Some(Ok(Reply::Sealed(ticket))) = world.answer(ROUTER, seal) else { panic!("sealed") };

    let needs = ask_as_bob(&mut world, None, create_as(&child("c"), NodeKind::File, None));
    let unseal = Need::Unseal { name: split(), instance: Instance(5), ticket };
    assert!(matches!(needs, Ok(Reply::Needs(need, _)) if need == unseal));
    let listed = ask_as_bob(&mut world, None, list());
    assert!(matches!(listed, Ok(Reply::Needs(Need::Root(_), _))), "it may be gone by now: {listed:?}");
}

#[test]
fn chores_are_told_to_a_router_that_asks_once_somebody_had_the_time_to_do_them() {
    let mut world = b();
    let asks = world.ask(ROUTER, Op::Cross(CrossOp::Chores));
    world.connect(8, hello(8, Role::Router));
    world.call(8, Op::Cross(CrossOp::Seal { name: split(), instance: Instance(5) })).expect("sealed");
    for _ in 0..5 {
        assert_eq!(world.answer(ROUTER, asks), None);
        world.keep_alive(ROUTER);
        world.pass(Duration::from_secs(1));
    }

    let Some(Ok(Reply::Chores(chores))) = world.answer(ROUTER, asks) else { panic!("told") };
    let [Chore::Unseal { name, instance, ticket }] = &chores[..] else { panic!("{chores:?}") };
    assert_eq!((name, *instance), (&split(), Instance(5)));
    cross(&mut world, CrossOp::Unseal { name: split(), instance: *instance, ticket: *ticket }).expect("done");
    let asks = world.ask(ROUTER, Op::Cross(CrossOp::Chores));
    for _ in 0..12 {
        world.keep_alive(ROUTER);
        world.pass(Duration::from_secs(5));
    }
    assert_eq!(world.answer(ROUTER, asks), None, "nothing is left");
    world.input(Input::Received(ConnectionId(ROUTER), vec![Up::Cancel(RequestNumber(asks))]));
    assert_eq!(world.answer(ROUTER, asks), Some(Err(ErrorCode::Cancelled)));
}

#[test]
fn the_cell_of_the_node_describes_a_directory_and_nothing_else() {
    let mut world = World::serving();
    world.connect(ROUTER, hello(9, Role::Router));
    world.client(1);
    world.call(1, create_as(split().as_str(), NodeKind::Directory, None)).expect("created");
    world.call(1, create_as("/ls/dev/r/file", NodeKind::File, None)).expect("created");

    let Ok(Reply::Root(root)) = cross(&mut world, CrossOp::DescribeRoot(split())) else { panic!("told") };
    let node = world.state.node(&split()).expect("created");
    assert_eq!((root.instance, root.as_of), (node.instance, world.state.position()));
    let describe = |world: &mut World, text: &str| cross(world, CrossOp::DescribeRoot(name(text)));
    assert_eq!(describe(&mut world, "/ls/dev/r/file"), Err(ErrorCode::NotADirectory));
    assert_eq!(describe(&mut world, "/ls/dev/r/none"), Err(ErrorCode::NotFound));
    let of_b = describe(&mut world, &child("c"));
    assert!(matches!(of_b, Err(ErrorCode::WrongCell { .. })), "{of_b:?}");
}

#[test]
fn who_speaks_with_a_cell_alone_is_told_that_it_takes_a_router() {
    let mut world = b();
    world.client(1);
    assert_eq!(world.call(1, create_as(&child("c"), NodeKind::File, None)), Err(ErrorCode::NotFound));

    let mut world = World::serving();
    world.connect(1, Hello { principal: "admin".into(), ..hello(1, Role::Client) });
    let handle = handle_in(world.call(1, create_as(split().as_str(), NodeKind::Directory, None)));
    assert_eq!(world.call(1, Op::Delete(handle)), Err(ErrorCode::NotFound));
    let open = Open::existing(split(), Use::ChangeAcl);
    let handle = handle_in(world.call(1, Op::Open(open)));
    let set = Op::SetAcl { handle, acls: AclNames::default(), if_generation: None };
    assert_eq!(world.call(1, set), Err(ErrorCode::NotFound));
    let ticket = SealTicket(1);
    let seal = CrossOp::Unseal { name: split(), instance: Instance(1), ticket };
    assert_eq!(world.call(1, Op::Cross(seal)), Err(ErrorCode::PermissionDenied));
}

/// The key of the cell that made it comes with the node.
#[test]
fn a_handle_on_a_node_that_is_on_its_way_here_waits_for_the_node() {
    let mut world = b();
    let on = |text: &str| made_in_a(name(text), 7, NodeKind::File);
    let (elsewhere, forged) = (on("/ls/dev/x/f"), on("/ls/dev/b/f"));
    let wrong = ask_as_bob(&mut world, None, Op::GetStat(elsewhere.clone()));
    assert!(matches!(wrong, Err(ErrorCode::WrongCell { map_version: 1 })), "{wrong:?}");

    let change =
        Change { prefix: Prefix::parse("/ls/dev/x").expect("good"), cells: vec![CellName::new("b")] };
    let changing = world.state.map().changing(change).expect("a good change");
    cross(&mut world, CrossOp::Adopt(changing)).expect("heard");

    for op in [Op::GetStat(elsewhere.clone()), set(&elsewhere, "x"), Op::Close(elsewhere)] {
        let waits = ask_as_bob(&mut world, None, op);
        assert!(matches!(waits, Ok(Reply::Needs(Need::Map(2), _))), "{waits:?}");
    }
    assert_eq!(ask_as_bob(&mut world, None, Op::GetStat(forged)), Err(ErrorCode::StaleHandle));
}
