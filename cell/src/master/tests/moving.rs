//! Clients that come from elsewhere: from another proxy, or from an earlier master (`proxy-1`, `proxy-4`, `fail-2`).

use super::*;

#[test]
fn a_client_that_moved_to_another_proxy_is_not_ended_by_its_old_one() {
    let mut world = World::serving();
    world.connect(8, hello(8, Role::Proxy));
    world.connect(9, hello(9, Role::Proxy));
    world.ask_for(8, 1, on_behalf(1, 1, 1), create("/ls/dev/lock"));
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(8, 1) else { panic!("opened") };
    world.ask_for(8, 2, on_behalf(1, 2, 1), LOCK(&handle));
    world.commit();

    world.ask_for(9, 1, on_behalf(1, 0, 2), Op::Claim); // It moved, and says nothing else.
    world.commit();
    assert_eq!(world.answer(9, 1), Some(Ok(Reply::Noted)));
    world.ask_for(8, 3, on_behalf(1, 0, 1), Op::EndClient(EndCause::Failed));
    world.commit();

    assert_eq!(world.answer(8, 3), Some(Err(ErrorCode::SessionMoved)));
    let lock = &world.state.node(&Name::parse("/ls/dev/lock").expect("good")).expect("there").lock;
    assert_eq!((lock.mode(), lock.is_delayed()), (Some(LockMode::Exclusive), false));
}

#[test]
fn a_claim_of_a_client_that_is_not_known_is_noted_too_and_forgotten_in_time() {
    let mut world = World::serving();
    world.connect(9, hello(9, Role::Proxy));

    world.ask_for(9, 1, on_behalf(1, 0, 2), Op::Claim);
    world.commit();

    assert_eq!(world.answer(9, 1), Some(Ok(Reply::Noted)));
    assert!(world.state.client(key(1).id()).is_some());
    for _ in 0..14 {
        world.keep_alive(9);
        world.pass(Duration::from_secs(5));
    }
    assert!(world.state.client(key(1).id()).is_some(), "it came after the clock began to run");
    for _ in 0..14 {
        world.keep_alive(9);
        world.pass(Duration::from_secs(5));
    }
    assert!(world.state.client(key(1).id()).is_none());
}

#[test]
fn a_subscription_does_not_go_back_to_an_outdated_proxy() {
    let mut world = World::serving();
    world.client(1);
    let writer = world.open(1, "/ls/dev/f");
    for proxy in [8, 9] {
        world.connect(proxy, hello(proxy as u8, Role::Proxy));
    }
    let events = hasp_proto::event::EventMask::ALL;
    let open = Op::Open(Open { events, ..Open::existing(name("/ls/dev/f"), Use::Read) });
    world.ask_for(8, 1, on_behalf(5, 1, 1), open);
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(8, 1) else { panic!("opened") };
    world.ask_for(9, 1, on_behalf(5, 0, 2), Op::Claim);
    world.commit();
    world.ask_for(9, 2, on_behalf(5, 2, 2), Op::Refresh(handle.clone()));
    assert!(matches!(world.answer(9, 2), Some(Ok(Reply::Stat(_)))));

    world.ask_for(8, 2, on_behalf(5, 2, 1), Op::Refresh(handle)); // It was on its way when the client left.
    world.call(1, set(&writer, "x")).expect("written");

    assert_eq!(world.answer(8, 2), Some(Err(ErrorCode::SessionMoved)));
    assert_eq!((world.events(8).len(), world.events(9).len()), (0, 1));
}

#[test]
fn the_word_of_an_outdated_proxy_takes_nothing_from_a_client_that_moved() {
    let mut world = World::serving();
    world.client(1);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    for proxy in [8, 9] {
        world.connect(proxy, hello(proxy as u8, Role::Proxy));
    }
    let open = Op::Open(Open {
        events: hasp_proto::event::EventMask::ALL,
        ..Open::existing(name("/ls/dev/lock"), Use::WriteAndLock)
    });
    world.ask_for(9, 1, on_behalf(5, 1, 2), open);
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(9, 1) else { panic!("opened") };
    world.ask_for(9, 2, on_behalf(5, 0, 2), Op::Claim);
    world.commit();
    world.ask_for(9, 3, on_behalf(5, 2, 2), Op::Acquire(handle, LockMode::Exclusive));

    world.ask_for(8, 1, on_behalf(5, 0, 1), Op::EndClient(EndCause::Failed));
    world.commit();
    assert_eq!(world.answer(8, 1), Some(Err(ErrorCode::SessionMoved)));
    assert_eq!(world.answer(9, 3), None, "it waits on");
    world.call(1, Op::Release(held)).expect("held");
    world.commit();

    assert!(matches!(world.answer(9, 3), Some(Ok(Reply::Acquired { .. }))));
    assert!(world.events(9).iter().any(|event| event.starts_with("lock-acquired")), "{:?}", world.events(9));
}

#[test]
fn what_was_done_before_is_answered_to_a_new_speaker_when_nobody_else_can_undo_it() {
    let mut world = World::serving();
    for proxy in [8, 9] {
        world.connect(proxy, hello(proxy as u8, Role::Proxy));
    }
    world.ask_for(8, 1, on_behalf(5, 1, 1), create("/ls/dev/lock"));
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(8, 1) else { panic!("opened") };
    world.ask_for(8, 2, on_behalf(5, 2, 1), LOCK(&handle));
    world.commit();

    world.ask_for(9, 1, on_behalf(5, 2, 2), LOCK(&handle)); // Its answer was lost with the old proxy.
    assert_eq!(world.answer(9, 1), None, "the old proxy can still end it");
    world.commit();
    world.ask_for(8, 3, on_behalf(5, 0, 1), Op::EndClient(EndCause::Failed));
    world.commit();

    assert!(matches!(world.answer(9, 1), Some(Ok(Reply::Acquired { .. }))));
    assert!(world.state.node(&name("/ls/dev/lock")).expect("there").lock.mode().is_some());
}

#[test]
fn handles_of_an_earlier_master_are_honoured_whatever_is_asked_first() {
    let mut world = World::serving();
    world.client(1);
    let waiting = world.open(1, "/ls/dev/lock");
    world.client(2);
    let held = world.open(2, "/ls/dev/lock");
    world.call(2, LOCK(&held)).expect("free");
    let asked = world.ask(1, Op::Acquire(waiting.clone(), LockMode::Exclusive));
    let later = world.open(1, "/ls/dev/f");
    world.elect();
    world.commit();
    let next_request = RequestNumber(world.numbers[&1] + 1);
    let resumed =
        Hello { known_since: Some(Claim(1)), claim: Claim(2), next_request, ..hello(1, Role::Client) };
    world.connect(11, resumed);
    world.numbers.insert(11, next_request.0 - 1);
    let other = Hello { known_since: Some(Claim(1)), claim: Claim(2), ..hello(2, Role::Client) };
    world.connect(12, other); // Writes wait until it knows of the fail-over.

    world.ask_again(11, asked, Op::Acquire(waiting, LockMode::Exclusive));

    assert!(
        matches!(world.call(11, set(&later, "x")), Ok(Reply::Written { .. })),
        "made after what is asked again"
    );
    assert_eq!(world.call(11, Op::Close(later.clone())), Ok(Reply::Closed));
    assert_eq!(world.call(11, set(&later, "y")), Err(ErrorCode::StaleHandle));
}

/// A client comes back to its master after it tried elsewhere, and asks again what was not answered.
fn come_back(world: &mut World, client: u64, unanswered: Vec<(u64, Op)>) {
    let byte = u8::try_from(client).expect("few");
    let next_request = RequestNumber(world.numbers[&client] + 1);
    let again =
        Hello { known_since: Some(Claim(1)), claim: Claim(3), next_request, ..hello(byte, Role::Client) };
    world.connect(client + 10, again);
    for (number, op) in unanswered {
        world.ask_again(client + 10, number, op);
    }
}

#[test]
fn a_write_that_waited_while_its_client_was_elsewhere_is_done_when_it_asks_again() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let [file, same] = [1, 2].map(|client| world.open(client, "/ls/dev/f"));
    (world.caches, world.acknowledges) = (true, false);
    world.call(2, Op::GetContentsAndStat(same)).expect("read");
    let write = set(&file, "x");
    let number = world.ask(1, write.clone());
    come_back(&mut world, 1, vec![(number, write.clone())]);
    let (sequence, _) = world.news(2).pop().expect("an invalidation");

    world.acknowledge(2, sequence);
    world.commit();

    assert_eq!(world.answer(11, number), Some(Err(ErrorCode::Unavailable)), "it may ask again");
    world.ask_again(11, number, write);
    for (sequence, _) in world.news(2) {
        world.acknowledge(2, sequence);
    }
    world.commit();
    assert!(matches!(world.answer(11, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn a_lock_that_was_waited_for_from_an_earlier_connection_is_had_when_asked_for_again() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let [waiting, held] = [1, 2].map(|client| world.open(client, "/ls/dev/lock"));
    world.call(2, LOCK(&held)).expect("free");
    let number = world.ask(1, LOCK(&waiting));
    come_back(&mut world, 1, vec![(number, LOCK(&waiting))]);

    world.call(2, Op::Release(held)).expect("held");

    assert_eq!(world.answer(11, number), Some(Err(ErrorCode::Unavailable)), "it may ask again");
    world.ask_again(11, number, LOCK(&waiting));
    world.commit();
    assert!(matches!(world.answer(11, number), Some(Ok(Reply::Acquired { .. }))));
}
