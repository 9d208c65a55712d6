//! Who gets a lock when, and what becomes of who waits for it.

use super::*;

#[test]
fn waiters_get_the_lock_first_come_first_served() {
    let mut world = World::serving();
    let handles: Vec<_> = (1..=4)
        .map(|connection| {
            world.client(connection);
            world.open(connection, "/ls/dev/lock")
        })
        .collect();
    let numbers: Vec<_> =
        (1u64..).zip(&handles).map(|(connection, handle)| world.ask(connection, LOCK(handle))).collect();
    world.commit();

    let mut generations = Vec::new();
    for (place, connection) in (1u64..=4).enumerate() {
        let Some(Ok(Reply::Acquired { lock_generation })) = world.answer(connection, numbers[place]) else {
            panic!("{connection} should hold the lock")
        };
        generations.push(lock_generation);
        for (later, number) in (1u64..).zip(&numbers).skip(place + 1) {
            assert_eq!(world.answer(later, *number), None, "{later} waits");
        }
        assert_eq!(world.call(connection, Op::Release(handles[place].clone())), Ok(Reply::Released));
    }
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
}

#[test]
fn a_lock_is_handed_over_in_the_entry_that_gives_it_back() {
    let mut world = World::serving();
    (1..=3).for_each(|connection| world.client(connection));
    let handles: Vec<_> = (1..=3).map(|connection| world.open(connection, "/ls/dev/f")).collect();
    world.call(1, LOCK(&handles[0])).expect("free");
    let waiting = [2, 3].map(|connection| world.ask(connection, LOCK(&handles[connection as usize - 1])));
    world.commit();

    world.ask(1, Op::Release(handles[0].clone()));
    assert_eq!(world.log.len(), 1);
    assert_eq!(world.log[0].1.commands.len(), 2, "and the next one's try with it");
    world.commit();

    assert!(matches!(world.answer(2, waiting[0]), Some(Ok(Reply::Acquired { .. }))));
    assert_eq!(world.answer(3, waiting[1]), None);
    let index = world.state.index();
    world.call(2, Op::Close(handles[1].clone())).expect("closed");
    assert!(matches!(world.answer(3, waiting[1]), Some(Ok(Reply::Acquired { .. }))), "with a Close too");
    assert_eq!(world.state.index(), index + 2, "and nobody tried in vain");
}

#[test]
fn a_release_that_comes_to_nothing_leaves_the_waiters_in_their_order() {
    let mut world = World::serving();
    (1..=3).for_each(|connection| world.client(connection));
    let handles: Vec<_> = (1..=3).map(|connection| world.open(connection, "/ls/dev/f")).collect();
    world.call(1, LOCK(&handles[0])).expect("free");
    let waiting = [2, 3].map(|connection| world.ask(connection, LOCK(&handles[connection as usize - 1])));
    world.commit();

    // Given back twice and taken again by others in between: of two releases one fails.
    world.ask(1, Op::Release(handles[0].clone()));
    world.ask(1, Op::Release(handles[0].clone()));
    world.commit();

    assert!(matches!(world.answer(2, waiting[0]), Some(Ok(Reply::Acquired { .. }))));
    assert_eq!(world.answer(3, waiting[1]), None);
    world.call(2, Op::Release(handles[1].clone())).expect("released");
    assert!(matches!(world.answer(3, waiting[1]), Some(Ok(Reply::Acquired { .. }))));
}

#[test]
fn shared_holders_come_in_together_but_do_not_overtake_a_writer() {
    let mut world = World::serving();
    let shared = |handle: &HandleToken| Op::Acquire(handle.clone(), LockMode::Shared);
    let handles: Vec<_> = (1..=5)
        .map(|connection| {
            world.client(connection);
            world.open(connection, "/ls/dev/lock")
        })
        .collect();
    world.call(1, shared(&handles[0])).expect("free");
    let writer = world.ask(2, LOCK(&handles[1]));
    world.commit();
    let late = [world.ask(3, shared(&handles[2])), world.ask(4, shared(&handles[3]))];
    world.commit();
    assert_eq!(world.answer(3, late[0]), None, "behind the writer");

    world.call(1, Op::Release(handles[0].clone())).expect("held");
    assert!(world.answer(2, writer).is_some());
    world.call(2, Op::Release(handles[1].clone())).expect("held");

    assert!(world.answer(3, late[0]).is_some() && world.answer(4, late[1]).is_some(), "both at once");
}

#[test]
fn try_acquire_does_not_wait_and_does_not_overtake() {
    let mut world = World::serving();
    let handles: Vec<_> = (1..=3)
        .map(|connection| {
            world.client(connection);
            world.open(connection, "/ls/dev/lock")
        })
        .collect();
    world.call(1, LOCK(&handles[0])).expect("free");

    assert_eq!(world.call(2, TRY(&handles[1])), Err(ErrorCode::LockHeld));

    world.ask(2, LOCK(&handles[1]));
    world.commit();
    world.ask(1, Op::Release(handles[0].clone()));
    let number = world.ask(3, TRY(&handles[2]));
    world.commit();
    assert_eq!(world.answer(3, number), Some(Err(ErrorCode::LockHeld)));
}

#[test]
fn a_waiter_that_moved_is_answered_when_its_first_request_was_granted_through_the_old_proxy() {
    let mut world = World::serving();
    world.connect(8, hello(8, Role::Proxy));
    world.connect(9, hello(9, Role::Proxy));
    world.client(1);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    world.ask_for(8, 1, on_behalf(2, 1, 1), create("/ls/dev/lock"));
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(8, 1) else { panic!("opened") };
    world.ask_for(8, 2, on_behalf(2, 2, 1), LOCK(&handle)); // Through the proxy that it then leaves.
    world.ask_for(9, 1, on_behalf(2, 2, 2), LOCK(&handle));
    world.commit();

    world.call(1, Op::Release(held)).expect("held");

    assert!(matches!(world.answer(9, 1), Some(Ok(Reply::Acquired { .. }))));
    let record = world.state.client(key(2).id()).expect("it holds the lock");
    assert_eq!((record.via, record.claim), (Some(key(9).id()), Claim(2)), "and speaks where it is");
}

#[test]
fn a_cancelled_waiter_is_answered_and_passed_over() {
    let mut world = World::serving();
    let handles: Vec<_> = (1..=3)
        .map(|connection| {
            world.client(connection);
            world.open(connection, "/ls/dev/lock")
        })
        .collect();
    world.call(1, LOCK(&handles[0])).expect("free");
    let second = world.ask(2, LOCK(&handles[1]));
    let third = world.ask(3, LOCK(&handles[2]));
    world.commit();

    world.input(Input::Received(ConnectionId(2), vec![Up::Cancel(RequestNumber(second))]));
    assert_eq!(world.answer(2, second), Some(Err(ErrorCode::Cancelled)));
    world.call(1, Op::Close(handles[0].clone())).expect("closing never fails");

    assert!(matches!(world.answer(3, third), Some(Ok(Reply::Acquired { .. }))), "closing frees the lock");
}

#[test]
fn closing_a_handle_cancels_its_waiting_acquire() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    let waiting = world.open(2, "/ls/dev/lock");
    let number = world.ask(2, LOCK(&waiting));
    world.commit();

    assert_eq!(world.call(2, Op::Close(waiting)), Ok(Reply::Closed));

    assert_eq!(world.answer(2, number), Some(Err(ErrorCode::Cancelled)));
}

/// One holds the lock, two ask for it; the try of the first of these is in the log.
fn held_and_tried() -> (World, [HandleToken; 3], [u64; 2]) {
    let mut world = World::serving();
    let handles = [1, 2, 3].map(|connection| {
        world.client(connection);
        world.open(connection, "/ls/dev/lock")
    });
    world.call(1, LOCK(&handles[0])).expect("free");
    let second = world.ask(2, LOCK(&handles[1]));
    let third = world.ask(3, LOCK(&handles[2]));
    assert_eq!((world.answer(2, second), world.answer(3, third)), (None, None));
    (world, handles, [second, third])
}

#[test]
fn a_request_cancelled_on_its_way_through_the_log_joins_no_queue() {
    let (mut world, [held, ..], [second, third]) = held_and_tried();

    world.input(Input::Received(ConnectionId(2), vec![Up::Cancel(RequestNumber(second))]));
    assert_eq!(world.answer(2, second), None, "it may get the lock yet");
    world.commit();

    assert_eq!(world.answer(2, second), Some(Err(ErrorCode::Cancelled)));
    world.call(1, Op::Release(held)).expect("held");
    assert!(matches!(world.answer(3, third), Some(Ok(Reply::Acquired { .. }))), "nobody is before it");
}

#[test]
fn a_request_cancelled_while_it_is_granted_says_so() {
    let (mut world, [held, second_handle, _], [second, third]) = held_and_tried();
    world.commit();
    let release = world.ask(1, Op::Release(held));

    world.input(Input::Received(ConnectionId(2), vec![Up::Cancel(RequestNumber(second))]));
    world.commit();

    assert!(matches!(world.answer(1, release), Some(Ok(_))));
    assert!(
        matches!(world.answer(2, second), Some(Ok(Reply::Acquired { .. }))),
        "its try went with the release"
    );
    assert_eq!(world.answer(3, third), None);
    world.call(2, Op::Release(second_handle)).expect("held");
    assert!(matches!(world.answer(3, third), Some(Ok(Reply::Acquired { .. }))));
}

#[test]
fn closing_a_handle_cancels_its_acquire_on_its_way_through_the_log() {
    let (mut world, [held, second_handle, _], [second, third]) = held_and_tried();

    assert_eq!(world.call(2, Op::Close(second_handle)), Ok(Reply::Closed));

    assert_eq!(world.answer(2, second), Some(Err(ErrorCode::Cancelled)));
    world.call(1, Op::Release(held)).expect("held");
    assert!(
        matches!(world.answer(3, third), Some(Ok(Reply::Acquired { .. }))),
        "no closed handle is before it"
    );
}

#[test]
fn waiters_on_a_deleted_node_are_told() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    let waiting = world.open(2, "/ls/dev/lock");
    let number = world.ask(2, LOCK(&waiting));
    world.commit();

    world.call(1, Op::Delete(held)).expect("empty");

    assert_eq!(world.answer(2, number), Some(Err(ErrorCode::StaleHandle)));
}

#[test]
fn a_lock_lost_by_expiry_is_granted_after_its_lock_delay() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    let waiting = world.open(2, "/ls/dev/lock");
    let number = world.ask(2, LOCK(&waiting));
    world.commit();

    for _ in 0..10 {
        world.keep_alive(2);
        world.pass(Duration::from_secs(2)); // The first says nothing and runs out after 12 s.
        assert_eq!(world.answer(2, number), None, "at {:?}", world.now);
    }
    world.keep_alive(2);
    world.pass(Duration::from_secs(4));

    assert!(matches!(world.answer(2, number), Some(Ok(Reply::Acquired { .. }))), "12 s + 10 s");
    assert_eq!(world.core.session_count(), 1);
}

#[test]
fn a_session_that_ends_by_its_own_wish_frees_its_lock_at_once() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    let waiting = world.open(2, "/ls/dev/lock");
    let number = world.ask(2, LOCK(&waiting));
    world.commit();

    world.input(Input::Received(ConnectionId(1), vec![Up::EndSession]));
    world.commit();

    assert!(matches!(world.answer(2, number), Some(Ok(Reply::Acquired { .. }))));
}
