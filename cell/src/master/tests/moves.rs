//! `move-2`, `move-3` at the master: nobody uses an old copy of what leaves, whoever waits for something that leaves is sent
//! after it, and what comes is timed and opened like the rest.

use hasp_proto::crossing::{CrossOp, Need};
use hasp_proto::event::EventMask;
use hasp_proto::item::ItemKind::{Absence, Data, Listing, Lock};
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::node::NodeKind;
use hasp_proto::request::{Create, EndCause};

use super::*;

const ROUTER: u64 = 9;
const ADMIN: u64 = 3;
const P: &str = "/ls/dev/p";
const F: &str = "/ls/dev/p/f";
const MAP: &str = "/ls/dev/.hasp/partitions";

/// A master of `a` with a router, somebody who may write the map, and two clients. There is a file in the directory that is
/// about to move, and one beside it.
fn a() -> World {
    let mut world = World::serving();
    world.connect(ROUTER, hello(9, Role::Router));
    world.connect(ADMIN, Hello { principal: "admin".into(), ..hello(3, Role::Client) });
    world.client(1);
    world.client(2);
    make_directory(&mut world, P);
    world.open(1, F);
    world.open(1, "/ls/dev/q");
    world
}

fn make_directory(world: &mut World, text: &str) {
    let create = Create {
        must: true,
        kind: NodeKind::Directory,
        contents: Bytes::new(),
        ephemeral: false,
        acls: None,
    };
    world
        .call(1, Op::Open(Open { create: Some(create), ..Open::existing(name(text), Use::Read) }))
        .expect("new");
}

fn write_map(world: &mut World, text: String) {
    let open = Op::Open(Open::existing(name(MAP), Use::WriteAndLock));
    let Ok(Reply::Opened { handle, .. }) = world.call(ADMIN, open) else { panic!("opened") };
    let set = Op::SetContents { handle, contents: text.into(), if_generation: None };
    world.call(ADMIN, set).expect("a good map");
}

fn begin(world: &mut World) {
    let text = world.state.map().unchanged().to_text() + "next /ls/dev/p b\n";
    write_map(world, text);
}

fn cross(world: &mut World, op: CrossOp) -> Result<Reply, ErrorCode> {
    world.call(ROUTER, Op::Cross(op))
}

const PACK: Op = Op::Cross(CrossOp::Pack { version: 2 });

fn opened(world: &mut World, connection: u64, op: Op) -> HandleToken {
    match world.call(connection, op) {
        Ok(Reply::Opened { handle, .. }) => handle,
        other => panic!("{other:?}"),
    }
}

/// A client behind the router asks, under that number.
fn ask_behind(world: &mut World, number: u64, op: Op) -> Option<Result<Reply, ErrorCode>> {
    world.ask_for(ROUTER, 1_000 + number, on_behalf(5, number, 1), op);
    world.commit();
    world.answer(ROUTER, 1_000 + number)
}

fn open_behind(world: &mut World, number: u64, text: &str) -> HandleToken {
    match ask_behind(world, number, create(text)) {
        Some(Ok(Reply::Opened { handle, .. })) => handle,
        other => panic!("{other:?}"),
    }
}

/// All that was packed at `a`, at `b`.
fn carry(a: &World, b: &mut World) {
    cross(b, CrossOp::Adopt(a.state.map().clone())).expect("newer");
    let (data, parts) = a.state.export(2, &CellName::new("b"), 0).expect("packed");
    assert_eq!(parts, 1);
    let from = CellName::new("a");
    cross(b, CrossOp::Import { version: 2, from, part: 0, parts, data }).expect("good");
}

/// A master of `b` that has what has left `a`, where the change is done.
fn b(a: &mut World) -> World {
    let mut b = World::serving_in("b");
    b.connect(ROUTER, hello(9, Role::Router));
    carry(a, &mut b);
    cross(a, CrossOp::Finish { version: 2 }).expect("done");
    cross(&mut b, CrossOp::Adopt(a.state.map().clone())).expect("all is there");
    b
}

fn invalidated(world: &World, connection: u64) -> Vec<(Sequence, Vec<(String, ItemKind)>)> {
    let items = |(sequence, news)| match news {
        News::Invalidate { items, .. } => {
            let items = items.into_iter().map(|Item { name, kind }| (name.to_string(), kind)).collect();
            Some((sequence, items))
        }
        _ => None,
    };
    world.news(connection).into_iter().filter_map(items).collect()
}

#[test]
fn packing_waits_until_all_who_cache_what_leaves_have_dropped_it() {
    let mut world = a();
    begin(&mut world);
    (world.caches, world.acknowledges) = (true, false);
    let directory = opened(&mut world, 2, reading(P));
    world.call(2, Op::ReadDir(directory)).expect("read");
    assert_eq!(world.call(2, reading("/ls/dev/p/none")), Err(ErrorCode::NotFound));
    for text in [F, "/ls/dev/q"] {
        opened(&mut world, 2, reading(text));
    }
    opened(&mut world, 1, reading(F));

    let number = world.ask(ROUTER, PACK);
    world.commit();

    assert_eq!(world.answer(ROUTER, number), None);
    let told = [1, 2].map(|connection| invalidated(&world, connection));
    let [[(first, of_first)], [(second, of_second)]] = [&told[0][..], &told[1][..]] else {
        panic!("{told:?}")
    };
    assert_eq!(of_first, &[(F.to_owned(), Data), (F.to_owned(), Lock)]);
    let mut of_second = of_second.clone();
    of_second.sort();
    let mut expected = vec![(F, Data), (F, Lock), (P, Listing), ("/ls/dev/p/none", Absence)]
        .into_iter()
        .map(|(text, kind)| (text.to_owned(), kind))
        .collect::<Vec<_>>();
    expected.sort();
    assert_eq!(of_second, expected, "the directory's own node stays, and what is beside it");
    world.acknowledge(1, *first);
    world.commit();
    assert_eq!(world.answer(ROUTER, number), None, "not all");
    assert!(!world.state.has_packed());
    world.acknowledge(2, *second);
    world.commit();
    assert_eq!(world.answer(ROUTER, number), Some(Ok(Reply::Noted)));
    assert!(world.state.has_packed());
}

#[test]
fn packing_waits_for_copies_that_a_write_waits_for_already() {
    let mut world = a();
    begin(&mut world);
    let handle = world.open(1, F);
    (world.caches, world.acknowledges) = (true, false);
    opened(&mut world, 2, reading(F));
    let write = world.ask(1, set(&handle, "new"));

    let pack = world.ask(ROUTER, PACK);
    world.commit();

    let told = invalidated(&world, 2);
    let [(of_write, _), (of_pack, items)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(items, &[(F.to_owned(), Lock)], "of the data it was told");
    world.acknowledge(2, *of_pack);
    world.commit();
    assert_eq!(world.answer(ROUTER, pack), None, "it may read its copy of the data yet");
    world.acknowledge(2, *of_write);
    world.commit();
    assert_eq!(world.answer(ROUTER, pack), Some(Ok(Reply::Noted)));
    let written = world.answer(1, write).expect("answered");
    let is_elsewhere = written == Err(ErrorCode::WrongCell { map_version: 2 });
    assert!(is_elsewhere || matches!(written, Ok(Reply::Written { .. })), "{written:?}");
}

#[test]
fn packing_waits_for_copies_that_an_earlier_master_has_allowed() {
    let mut world = a();
    begin(&mut world);
    world.acknowledges = false;
    world.elect();
    world.commit();
    let known_since = Some(Claim(1));
    world.connect(ROUTER + 10, Hello { known_since, claim: Claim(2), ..hello(9, Role::Router) });

    let number = world.ask(ROUTER + 10, PACK);
    world.commit();

    assert_eq!(world.answer(ROUTER + 10, number), None, "fail-2");
    assert!(!world.state.has_packed());
    let (sequence, _) = world.news(ROUTER + 10)[0].clone();
    world.acknowledge(ROUTER + 10, sequence);
    world.commit();
    assert_eq!(world.answer(ROUTER + 10, number), None, "the clients have not");
    world.pass(Duration::from_secs(70));
    assert!(world.state.has_packed(), "their leases are over");
}

#[test]
fn nothing_that_leaves_is_cached_from_when_it_is_to_be_packed() {
    let mut world = a();
    begin(&mut world);
    world.open(1, "/ls/dev/p/g");
    let [f, g, q] = [F, "/ls/dev/p/g", "/ls/dev/q"].map(|text| world.open(1, text));
    (world.caches, world.acknowledges) = (true, false);
    let cachable = |world: &mut World, op: Op| {
        let number = world.ask(1, op);
        let kinds = world.cachable(1, number);
        kinds.into_iter().filter(|kind| *kind != ItemKind::Acl).collect::<Vec<_>>()
    };
    assert_eq!(cachable(&mut world, Op::GetStat(f.clone())), [Data, Lock], "the change alone is no reason");

    let pack = world.ask(ROUTER, PACK);

    assert_eq!(cachable(&mut world, Op::GetStat(g)), [], "nobody has it, so nobody is told");
    assert_eq!(cachable(&mut world, Op::GetStat(f)), []);
    assert_eq!(cachable(&mut world, reading("/ls/dev/p/none")), []);
    assert_eq!(cachable(&mut world, Op::GetStat(q)), [Data, Lock]);
    let (sequence, _) = invalidated(&world, 1).pop().expect("told");
    world.acknowledge(1, sequence);
    world.commit();
    assert_eq!(world.answer(ROUTER, pack), Some(Ok(Reply::Noted)));
}

#[test]
fn whoever_waits_for_a_lock_that_leaves_is_sent_after_it() {
    let mut world = a();
    let held = open_behind(&mut world, 7, F);
    assert!(matches!(ask_behind(&mut world, 8, LOCK(&held)), Some(Ok(Reply::Acquired { .. }))));
    let waiting = open_behind(&mut world, 1, F);
    let beside = world.open(1, "/ls/dev/q");
    world.call(1, LOCK(&beside)).expect("free");
    let waiting_beside = open_behind(&mut world, 2, "/ls/dev/q");
    let direct = world.open(2, F);
    let asked = world.ask(2, LOCK(&direct));
    assert_eq!(ask_behind(&mut world, 3, LOCK(&waiting)), None);
    assert_eq!(ask_behind(&mut world, 4, LOCK(&waiting_beside)), None);
    begin(&mut world);

    world.call(ROUTER, PACK).expect("packed");

    let gone =
        |answer: Option<Result<Reply, ErrorCode>>| matches!(answer, Some(Ok(Reply::Needs(Need::Map(2), _))));
    assert!(gone(world.answer(ROUTER, 1_003)));
    assert_eq!(
        world.answer(2, asked),
        Some(Err(ErrorCode::WrongCell { map_version: 2 })),
        "it has no router"
    );
    assert_eq!(world.answer(ROUTER, 1_004), None, "it waits on");
    assert!(gone(ask_behind(&mut world, 5, LOCK(&waiting))));
    for op in [Op::GetStat(waiting.clone()), Op::Close(waiting.clone()), reading(F), set(&waiting, "x")] {
        assert!(gone(ask_behind(&mut world, 6, op.clone())), "{op:?}");
    }
    world.call(1, Op::Release(beside)).expect("held");
    world.commit();
    assert!(matches!(world.answer(ROUTER, 1_004), Some(Ok(Reply::Acquired { .. }))));
}

#[test]
fn handles_and_sequencers_of_the_source_are_honoured_at_the_destination_and_those_of_strangers_are_not() {
    let mut a = a();
    let handle = open_behind(&mut a, 1, F);
    assert!(matches!(ask_behind(&mut a, 2, LOCK(&handle)), Some(Ok(Reply::Acquired { .. }))));
    let Some(Ok(Reply::Sequencer(sequencer))) = ask_behind(&mut a, 3, Op::GetSequencer(handle.clone()))
    else {
        panic!("a sequencer")
    };
    let mut stranger = World::serving_in("b");
    stranger.connect(ROUTER, hello(9, Role::Router));
    let nothing_came = ask_behind(&mut stranger, 4, Op::GetStat(handle.clone()));
    assert_eq!(
        nothing_came,
        Some(Err(ErrorCode::WrongCell { map_version: 1 })),
        "the handle may be good elsewhere"
    );
    begin(&mut a);
    a.call(ROUTER, PACK).expect("packed");
    let mut b = b(&mut a);

    assert!(matches!(ask_behind(&mut b, 4, Op::GetStat(handle.clone())), Some(Ok(Reply::Stat(_)))));
    let check = || Op::CheckSequencer(sequencer.clone());
    assert_eq!(ask_behind(&mut b, 5, check()), Some(Ok(Reply::SequencerStands)));
    let again = ask_behind(&mut b, 6, LOCK(&handle));
    assert!(matches!(again, Some(Ok(Reply::Acquired { .. }))), "held by that very handle: {again:?}");
    b.ask_for(ROUTER, 2_000, on_behalf(6, 7, 1), Op::GetStat(handle.clone()));
    assert_eq!(b.answer(ROUTER, 2_000), Some(Err(ErrorCode::StaleHandle)), "of another session");
    assert_eq!(ask_behind(&mut b, 7, Op::Close(handle)), Some(Ok(Reply::Closed)));
    assert_eq!(ask_behind(&mut b, 8, check()), Some(Err(ErrorCode::SequencerInvalid)));
    assert!(b.state.node(&name(F)).expect("there").lock.mode().is_none());

    let forged = hasp_proto::handle::HandleKey::new(Bytes::from_static(&[7; 32]));
    let body = hasp_proto::handle::HandleBody {
        cell: CellName::new("a"),
        ..open_behind(&mut b, 9, F).claimed_body().expect("a handle")
    };
    assert_eq!(
        ask_behind(&mut b, 10, Op::GetStat(forged.seal(&body))),
        Some(Err(ErrorCode::StaleHandle)),
        "that says it is of the source"
    );
}

#[test]
fn lock_delays_and_claim_windows_of_what_came_run_from_then_on() {
    let mut a = a();
    let handle = open_behind(&mut a, 1, F);
    ask_behind(&mut a, 2, LOCK(&handle)).expect("free").expect("free");
    let delayed = "/ls/dev/p/delayed";
    a.ask_for(ROUTER, 1, on_behalf(6, 1, 1), create(delayed));
    a.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = a.answer(ROUTER, 1) else { panic!("opened") };
    a.ask_for(ROUTER, 2, on_behalf(6, 2, 1), LOCK(&handle));
    a.ask_for(ROUTER, 3, on_behalf(6, 0, 1), Op::EndClient(EndCause::Failed));
    a.commit();
    a.numbers.insert(ROUTER, 3);
    let lock = |world: &World, text: &str| world.state.node(&name(text)).expect("there").lock.clone();
    assert!(lock(&a, delayed).is_delayed());
    begin(&mut a);
    a.call(ROUTER, PACK).expect("packed");
    let mut b = b(&mut a);

    assert!(lock(&b, delayed).is_delayed());
    let mut seconds = 0;
    let mut wait = |b: &mut World, until: u64| {
        while seconds < until {
            b.keep_alive(ROUTER);
            b.pass(Duration::from_secs(1));
            seconds += 1;
        }
    };
    wait(&mut b, 9);
    assert!(lock(&b, delayed).is_delayed());
    wait(&mut b, 10);
    assert!(!lock(&b, delayed).is_delayed(), "P-DELAY: 10 s");
    wait(&mut b, 59);
    assert!(lock(&b, F).mode().is_some(), "its client may still come");
    wait(&mut b, 60);
    assert!(lock(&b, F).mode().is_none() && lock(&b, F).is_delayed(), "nobody spoke for it");
    wait(&mut b, 70);
    assert!(!lock(&b, F).is_delayed());
}

#[test]
fn lock_delays_of_what_came_back_run_however_the_change_was_given_up() {
    let check = |give_up: fn(&mut World)| {
        let mut world = a();
        let handle = open_behind(&mut world, 1, F);
        ask_behind(&mut world, 2, LOCK(&handle)).expect("free").expect("free");
        world.ask_for(ROUTER, 1, on_behalf(5, 0, 1), Op::EndClient(EndCause::Failed));
        world.commit();
        world.numbers.insert(ROUTER, 1);
        begin(&mut world);
        world.call(ROUTER, PACK).expect("packed");

        give_up(&mut world);

        let is_delayed = |world: &World| world.state.node(&name(F)).expect("back").lock.is_delayed();
        assert!(is_delayed(&world));
        for _ in 0..11 {
            world.keep_alive(ROUTER);
            world.pass(Duration::from_secs(1));
        }
        assert!(!is_delayed(&world), "P-DELAY: 10 s");
    };

    check(|world| drop(cross(world, CrossOp::GiveUp { version: 2, why: "no".into() })));
    check(|world| {
        let text = world.state.map().unchanged().to_text();
        write_map(world, text);
    });
}

/// Somebody hears of the file and of its directory; somebody behind the router, too.
fn listened_to() -> (World, HandleToken) {
    let mut world = a();
    let hear = |at: &str| Op::Open(Open { events: EventMask::ALL, ..Open::existing(name(at), Use::Read) });
    opened(&mut world, 2, hear(F));
    opened(&mut world, 2, hear(P));
    assert!(matches!(ask_behind(&mut world, 1, hear(F)), Some(Ok(Reply::Opened { .. }))));
    let handle = world.open(1, F);
    begin(&mut world);
    world.sent.clear();
    (world, handle)
}

fn fail_overs(world: &World, connection: u64) -> usize {
    world.news(connection).iter().filter(|(_, news)| matches!(news, News::FailOver { .. })).count()
}

#[test]
fn who_listens_to_what_comes_back_hears_on() {
    let (mut world, handle) = listened_to();
    world.call(ROUTER, PACK).expect("packed");
    assert_eq!(world.call(1, set(&handle, "x")), Err(ErrorCode::WrongCell { map_version: 2 }));
    cross(&mut world, CrossOp::GiveUp { version: 2, why: "no".into() }).expect("not done yet");

    world.call(1, set(&handle, "y")).expect("back");

    assert_eq!(world.events(2), ["contents-modified /ls/dev/p/f", "child-modified /ls/dev/p f"]);
    assert_eq!(world.events(ROUTER), ["contents-modified /ls/dev/p/f"]);
    assert_eq!((fail_overs(&world, 2), fail_overs(&world, ROUTER)), (0, 0), "nobody missed anything");
}

#[test]
fn who_listens_alone_to_what_has_gone_is_told_when_it_is_decided_and_not_before() {
    let (mut world, _) = listened_to();
    world.call(ROUTER, PACK).expect("packed");
    assert_eq!(fail_overs(&world, 2), 0);

    let _b = b(&mut world);

    assert_eq!(fail_overs(&world, 2), 1);
    assert_eq!(fail_overs(&world, ROUTER), 0, "it tells its clients itself");
    assert_eq!(fail_overs(&world, 1), 0);
}

/// What was proposed is applied, and so is that the node is packed, before the master hears of the first.
fn hears_with_all_packed(world: &mut World) {
    let (batch, entry) = world.log.pop_front().expect("proposed");
    let outcomes = world.state.apply(&entry);
    let commands = vec![Command::Cross(CrossOp::Pack { version: 2 })];
    world.state.apply(&LogEntry { epoch: Epoch(1), commands });
    assert!(world.state.has_packed());
    world.input(Input::Applied(batch, outcomes, world.state.clone()));
}

#[test]
fn what_was_done_before_all_was_packed_is_told_if_the_state_is_ahead() {
    let check = |done: fn(&HandleToken) -> Op, told: &[&str]| {
        let (mut world, handle) = listened_to();
        make_directory(&mut world, "/ls/dev/p/d");
        let hear = Open { events: EventMask::ALL, ..Open::existing(name("/ls/dev/p/d"), Use::Read) };
        opened(&mut world, 2, Op::Open(hear));
        world.sent.clear();
        world.ask(1, done(&handle));
        hears_with_all_packed(&mut world);
        assert_eq!(world.events(2), told);
    };

    check(|file| set(file, "x"), &["contents-modified /ls/dev/p/f", "child-modified /ls/dev/p f"]);
    check(|_| create("/ls/dev/p/d/f"), &["child-added /ls/dev/p/d f"]);
}

#[test]
fn whoever_waits_is_not_told_of_a_deletion_if_the_state_is_ahead_and_the_node_packed_in_it() {
    let mut world = a();
    let waiting = open_behind(&mut world, 1, F);
    world.ask_for(ROUTER, 1, on_behalf(6, 1, 1), create(F));
    world.commit();
    let Some(Ok(Reply::Opened { handle: held, .. })) = world.answer(ROUTER, 1) else { panic!("opened") };
    world.ask_for(ROUTER, 2, on_behalf(6, 2, 1), LOCK(&held));
    world.commit();
    world.numbers.insert(ROUTER, 2);
    begin(&mut world);
    assert_eq!(ask_behind(&mut world, 2, LOCK(&waiting)), None, "it waits");
    world.ask_for(ROUTER, 1_009, on_behalf(6, 0, 1), Op::EndClient(EndCause::Failed));

    hears_with_all_packed(&mut world);

    let answer = world.answer(ROUTER, 1_002);
    assert!(matches!(answer, Some(Ok(Reply::Needs(Need::Map(2), _)))), "{answer:?}");
}

#[test]
fn load_is_measured_anew_once_a_move_is_done() {
    let mut a = a();
    let measured = |world: &World| world.core.load(world.now).directories.get(P).copied();
    assert!(measured(&a).is_some());
    begin(&mut a);
    a.call(ROUTER, PACK).expect("packed");
    assert!(measured(&a).is_some(), "it may come back");

    let b = b(&mut a);

    assert_eq!(measured(&a), None, "the other cell bears it");
    assert_eq!(b.core.load(b.now), Measured::default(), "what is known of the time before is not all");
}
