//! Rules `cache-1` and `cache-2` at the master: who may cache what, and what a change waits for.

use hasp_proto::item::ItemKind::{Absence, Acl, Data, Listing, Lock};
use hasp_proto::item::{Item, ItemKind};

use super::*;

/// Clients 1 and 2 with a handle each on one file; they ask as holders of a cache do.
fn two_readers() -> (World, [HandleToken; 2]) {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let handles = [world.open(1, "/ls/dev/f"), world.open(2, "/ls/dev/f")];
    world.caches = true;
    world.acknowledges = false;
    (world, handles)
}

fn invalidations(world: &World, connection: u64) -> Vec<(Sequence, Vec<Item>)> {
    let items = |(sequence, news)| match news {
        News::Invalidate { items, .. } => Some((sequence, items)),
        _ => None,
    };
    world.news(connection).into_iter().filter_map(items).collect()
}

#[test]
fn who_asks_to_cache_may_cache_what_the_answer_shows_and_nobody_else() {
    let (mut world, [handle, _]) = two_readers();
    world.acknowledges = true;
    let check = |world: &mut World, op: Op, kinds: &[ItemKind]| {
        let number = world.ask(1, op.clone());
        world.commit();
        assert_eq!(world.cachable(1, number), kinds, "{op:?}");
    };

    check(&mut world, Op::GetStat(handle.clone()), &[Data, Lock, Acl]);
    check(&mut world, Op::GetContentsAndStat(handle.clone()), &[Data, Lock, Acl]);
    check(&mut world, reading("/ls/dev/f"), &[Data, Lock, Acl]);
    check(&mut world, reading("/ls/dev/absent"), &[Absence]);
    let Ok(Reply::Opened { handle: root, .. }) = world.call(1, reading("/ls/dev")) else { panic!() };
    check(&mut world, Op::ReadDir(root), &[Listing, Acl]);
    check(&mut world, set(&handle, "x"), &[]);
    world.caches = false;
    check(&mut world, Op::GetStat(handle), &[]);
}

#[test]
fn a_write_waits_until_every_cacher_has_acknowledged() {
    let (mut world, [first, second]) = two_readers();
    for (connection, handle) in [(1, &first), (2, &second)] {
        world.call(connection, Op::GetContentsAndStat(handle.clone())).expect("read");
    }

    let number = world.ask(1, set(&first, "new"));
    world.commit();

    assert_eq!(world.answer(1, number), None, "nothing is committed");
    let data = Item::new(name("/ls/dev/f"), Data);
    let told: Vec<_> = [1, 2].map(|connection| invalidations(&world, connection)).into();
    for (connection, told) in told.iter().enumerate() {
        assert_eq!(told.len(), 1, "one message to {connection}");
        assert_eq!(told[0].1, vec![data.clone()], "the listing was read by nobody");
    }
    world.acknowledge(1, told[0][0].0);
    world.commit();
    assert_eq!(world.answer(1, number), None, "the writer itself is not enough");

    world.acknowledge(2, told[1][0].0);
    world.commit();

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn reads_go_on_while_a_write_waits_and_are_not_cached() {
    let (mut world, [first, second]) = two_readers();
    world.call(2, Op::GetContentsAndStat(second.clone())).expect("read");
    world.ask(1, set(&first, "new"));

    let number = world.ask(2, Op::GetContentsAndStat(second.clone()));

    let Some(Ok(Reply::Contents { contents, .. })) = world.answer(2, number) else { panic!("not delayed") };
    assert_eq!(contents, "");
    assert!(!world.cachable(2, number).contains(&Data));

    let (sequence, _) = invalidations(&world, 2)[0].clone();
    world.acknowledge(2, sequence);
    let number = world.ask(2, Op::GetContentsAndStat(second.clone()));
    assert!(!world.cachable(2, number).contains(&Data), "acknowledged, but not committed");
    world.commit();
    let number = world.ask(2, Op::GetContentsAndStat(second));
    assert!(world.cachable(2, number).contains(&Data), "committed");
}

#[test]
fn a_write_waits_for_a_silent_cacher_no_longer_than_its_cache_lease() {
    let (mut world, [first, second]) = two_readers();
    world.call(2, Op::GetContentsAndStat(second)).expect("read");
    let number = world.ask(1, set(&first, "new"));

    world.keep_alive(1);
    world.pass(Duration::from_millis(8_500));
    world.keep_alive(1);
    world.pass(Duration::from_millis(3_400));
    assert_eq!(world.answer(1, number), None);
    world.pass(Duration::from_millis(200));

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn a_change_voids_what_it_changes_and_nothing_else() {
    let check = |op: &dyn Fn(&mut World, &HandleToken) -> Op, voids: &[(&str, ItemKind)]| {
        let mut world = World::serving();
        world.client(1);
        world.client(2);
        let mut admin = hello(3, Role::Client);
        admin.principal = "admin".into();
        world.connect(3, admin);
        let writer = world.open(1, "/ls/dev/f");
        world.caches = true;
        for read in ["/ls/dev/f", "/ls/dev/g", "/ls/dev/new"] {
            drop(world.call(2, reading(read)));
        }
        for directory in ["/ls/dev", "/ls/dev/acl"] {
            let Ok(Reply::Opened { handle, .. }) = world.call(2, reading(directory)) else { panic!() };
            world.call(2, Op::ReadDir(handle)).expect("listed");
        }
        let op = op(&mut world, &writer);
        world.sent.clear();
        let connection =
            if matches!(&op, Op::SetContents { handle, .. } if *handle != writer) { 3 } else { 1 };
        world.call(connection, op.clone()).expect("done");
        let mut told: Vec<_> = invalidations(&world, 2).into_iter().flat_map(|(_, items)| items).collect();
        told.sort();
        let mut expected: Vec<_> = voids.iter().map(|(at, kind)| Item::new(name(at), *kind)).collect();
        expected.sort();
        assert_eq!(told, expected, "{op:?}");
    };
    let (f, dev) = ("/ls/dev/f", "/ls/dev");

    check(&|_, handle| set(handle, "x"), &[(f, Data), (dev, Listing)]);
    check(&|_, handle| LOCK(handle), &[(f, Lock)]);
    check(&|_, handle| Op::Delete(handle.clone()), &[(f, Data), (f, Lock), (dev, Listing)]);
    check(&|_, _| create("/ls/dev/new"), &[("/ls/dev/new", Absence), (dev, Listing)]);
    check(&|_, handle| Op::Close(handle.clone()), &[]);
    let everyone = "/ls/dev/acl/everyone";
    let rewrite_acl = |world: &mut World, _: &HandleToken| {
        let open = Open::existing(name(everyone), Use::WriteAndLock);
        let Ok(Reply::Opened { handle, .. }) = world.call(3, Op::Open(open)) else { panic!("admin may") };
        set(&handle, "*\nalice\n")
    };
    check(&rewrite_acl, &[(everyone, Acl), ("/ls/dev/acl", Listing)]);
}

#[test]
fn after_a_fail_over_writes_wait_until_every_session_has_flushed() {
    let (mut world, [handle, _]) = two_readers();
    world.elect();
    world.commit();
    world.connect(
        11,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(1, Role::Client)
        },
    );
    world.connect(
        12,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(2, Role::Client)
        },
    );

    world.numbers.insert(11, 100);
    let number = world.ask(11, set(&handle, "x"));
    world.commit();
    assert!(world.call(11, Op::GetStat(handle.clone())).is_ok(), "reads are answered");
    assert_eq!(world.answer(11, number), None);
    for connection in [11, 12] {
        assert_eq!(world.answer(11, number), None, "before {connection} has acknowledged");
        let [(sequence, News::FailOver { .. })] = world.news(connection)[..] else { panic!() };
        world.acknowledge(connection, sequence);
        world.commit();
    }

    assert!(matches!(world.answer(11, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn a_session_that_does_not_come_back_after_a_fail_over_holds_writes_up_for_one_lease() {
    let (mut world, [handle, _]) = two_readers();
    world.acknowledges = true;
    world.elect();
    world.commit();
    world.connect(
        11,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(1, Role::Client)
        },
    );
    world.numbers.insert(11, 100);
    let number = world.ask(11, set(&handle, "x"));

    world.keep_alive(11);
    world.pass(Duration::from_millis(8_500));
    world.keep_alive(11);
    world.pass(Duration::from_millis(3_400));
    assert_eq!(world.answer(11, number), None, "session 2 may read what it had cached");
    world.pass(Duration::from_millis(200));

    assert!(matches!(world.answer(11, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn a_session_without_cache_lease_caches_nothing_until_it_has_acknowledged() {
    let (mut world, [first, second]) = two_readers();
    world.call(2, Op::GetContentsAndStat(second.clone())).expect("read");
    world.ask(1, set(&first, "new"));
    world.keep_alive(2);
    world.pass(Duration::from_millis(9_000));
    world.keep_alive(2);
    world.pass(Duration::from_millis(5_000));

    let number = world.ask(2, Op::GetContentsAndStat(second.clone()));
    assert_eq!(world.cachable(2, number), [], "it may still read the old contents somewhere");
    let (sequence, _) = invalidations(&world, 2)[0].clone();
    world.acknowledge(2, sequence);
    world.pass(Duration::from_millis(4_000));
    world.keep_alive(2);
    world.pass(Duration::from_millis(4_000));

    let number = world.ask(2, Op::GetContentsAndStat(second));
    assert_eq!(world.cachable(2, number), [Data, Lock, Acl]);
}

#[test]
fn longer_leases_are_granted_only_once_the_log_knows_of_them() {
    let mut world = World::serving();
    world.client(1);
    assert_eq!(world.state.lease_max(), Duration::from_secs(12));

    world.keep_alive(1);
    world.now = t(14_000); // Nothing was done for six seconds after it was due.
    world.input(Input::QuorumAcknowledged(world.now));
    world.core.handle_timeout(t(14_000));
    world.drain();
    world.client(2);
    let granted = |world: &World, connection: u64| {
        world.sent.iter().rev().find_map(|(to, down)| match down {
            Down::Welcome(welcome) if to.0 == connection => Some(welcome.grant.session),
            _ => None,
        })
    };
    world.commit();
    world.client(3);

    assert_eq!(granted(&world, 2), Some(Duration::from_secs(12)));
    assert_eq!(world.state.lease_max(), Duration::from_secs(24));
    assert_eq!(granted(&world, 3), Some(Duration::from_secs(24)));
}

#[test]
fn what_a_session_cached_that_was_ended_for_its_news_counts_until_its_cache_lease_ends() {
    let (mut world, [first, second]) = two_readers();
    world.call(2, Op::GetContentsAndStat(second)).expect("read");
    while world.core.server.tell(world.now, key(2).id(), News::EventsLost { cell: None }).is_some() {}
    world.drain();
    world.commit();

    let number = world.ask(1, set(&first, "new"));
    world.commit();
    assert_eq!(world.answer(1, number), None, "it may read what it had cached");
    world.keep_alive(1);
    world.pass(Duration::from_millis(8_500));
    world.keep_alive(1);
    world.pass(Duration::from_millis(3_400));
    assert_eq!(world.answer(1, number), None);
    world.pass(Duration::from_millis(200));

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Written { .. }))));
}
