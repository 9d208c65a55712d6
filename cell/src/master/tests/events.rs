//! What sessions hear of the nodes they subscribed to (P-EVENT, paper §2.5).

use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::limits::EVENTS_PER_SESSION;
use hasp_proto::request::EndCause;

use super::*;

fn subscribing(at: &str, r#use: Use) -> Op {
    Op::Open(Open { events: EventMask::ALL, ..Open::existing(name(at), r#use) })
}

fn subscribed(world: &mut World, connection: u64, at: &str) -> HandleToken {
    match world.call(connection, subscribing(at, Use::WriteAndLock)) {
        Ok(Reply::Opened { handle, .. }) => handle,
        other => panic!("{other:?}"),
    }
}

/// Client 1 has a handle on a file, client 2 hears of it and of its directory.
fn world() -> (World, HandleToken) {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let handle = world.open(1, "/ls/dev/f");
    subscribed(&mut world, 2, "/ls/dev/f");
    subscribed(&mut world, 2, "/ls/dev");
    (world, handle)
}

#[test]
fn each_change_is_told_after_it_was_done_in_its_order() {
    let (mut world, handle) = world();

    world.call(1, set(&handle, "x")).expect("written");
    world.open(1, "/ls/dev/g");
    world.call(1, LOCK(&handle)).expect("locked");
    world.call(1, Op::Delete(handle)).expect("deleted");

    assert_eq!(
        world.events(2),
        [
            "contents-modified /ls/dev/f",
            "child-modified /ls/dev f",
            "child-added /ls/dev g",
            "lock-acquired /ls/dev/f",
            "handle-invalid /ls/dev/f",
            "child-removed /ls/dev f",
        ]
    );
    assert_eq!(world.events(1), [""; 0], "who did not subscribe is not told");
}

#[test]
fn an_event_carries_the_position_of_its_action_and_is_not_told_before() {
    let (mut world, handle) = world();

    let number = world.ask(1, set(&handle, "x"));
    assert_eq!(world.events(2), [""; 0], "not committed");
    world.commit();

    let place = world.answered_at(1, number);
    let told = world.news(2).into_iter().find_map(|(_, news)| match news {
        News::Event(event) => Some((event.position.epoch.0, event.position.index)),
        _ => None,
    });
    assert_eq!(told, Some(place));
}

#[test]
fn a_closed_handle_hears_nothing_more() {
    let (mut world, handle) = world();
    world.client(3);
    let listening = subscribed(&mut world, 3, "/ls/dev/f");

    world.call(3, Op::Close(listening)).expect("closed");
    world.call(1, set(&handle, "x")).expect("written");

    assert_eq!(world.events(3), [""; 0]);
}

#[test]
fn the_holder_of_a_lock_hears_who_else_wants_it_and_nobody_else_does() {
    let (mut world, other) = world();
    world.client(3);
    let holder = subscribed(&mut world, 3, "/ls/dev/f");
    world.call(3, LOCK(&holder)).expect("locked");
    world.sent.clear();

    assert_eq!(world.call(1, TRY(&other)), Err(ErrorCode::LockHeld));
    let number = world.ask(1, LOCK(&other));
    world.commit();

    assert_eq!(world.answer(1, number), None, "it waits");
    assert_eq!(world.events(3), ["lock-conflict /ls/dev/f to 1", "lock-conflict /ls/dev/f to 1"]);
    assert_eq!(world.events(2), [""; 0]);
}

#[test]
fn a_new_holder_with_others_behind_it_hears_of_them_at_once() {
    let (mut world, first) = world();
    world.client(3);
    world.client(4);
    world.call(1, LOCK(&first)).expect("locked");
    let second = subscribed(&mut world, 3, "/ls/dev/f");
    let third = world.open(4, "/ls/dev/f");
    world.ask(3, LOCK(&second));
    world.commit();
    world.ask(4, LOCK(&third));
    world.commit();

    world.call(1, Op::Release(first)).expect("released");

    assert_eq!(world.events(3), ["lock-acquired /ls/dev/f", "lock-conflict /ls/dev/f to 1"]);
}

#[test]
fn a_slow_reader_is_told_that_it_missed_some_and_nothing_more_until_it_acknowledges() {
    let (mut world, handle) = world();
    world.acknowledges = false;
    for _ in 0..EVENTS_PER_SESSION {
        world.call(1, set(&handle, "x")).expect("written, however slow others are");
    }

    let news = world.news(2);

    assert_eq!(news.len(), EVENTS_PER_SESSION + 1);
    let (last, News::EventsLost { .. }) = news[EVENTS_PER_SESSION].clone() else {
        panic!("{:?}", news.last())
    };
    news.iter().take(10).for_each(|(sequence, _)| world.acknowledge(2, *sequence));
    world.acknowledge(2, last);
    world.call(1, set(&handle, "y")).expect("written");
    assert!(matches!(world.news(2).last(), Some((_, News::Event(_)))), "told again");
}

#[test]
fn what_is_asked_again_while_it_is_done_is_told_once() {
    let (mut world, handle) = world();
    world.connect(9, hello(9, Role::Proxy));
    world.connect(8, hello(8, Role::Proxy));
    let open = Op::Open(Open::existing(name("/ls/dev/f"), Use::WriteAndLock));
    world.ask_for(9, 1, on_behalf(5, 1, 1), open);
    world.commit();
    let Some(Ok(Reply::Opened { handle: moving, .. })) = world.answer(9, 1) else { panic!("opened") };
    world.sent.clear();

    // The client moves from one proxy to the other while its write is in the log, and another write is behind it.
    world.ask_for(9, 2, on_behalf(5, 2, 1), set(&moving, "x"));
    world.ask_for(8, 2, on_behalf(5, 2, 2), set(&moving, "x"));
    world.ask(1, set(&handle, "y"));
    world.commit();

    assert!(matches!(world.answer(8, 2), Some(Ok(Reply::Written { .. }))));
    let written = world.events(2).into_iter().filter(|event| event == "contents-modified /ls/dev/f").count();
    assert_eq!(written, 2, "{:?}", world.events(2));
}

#[test]
fn who_hears_late_that_it_opened_a_node_hears_also_that_it_is_gone() {
    let (mut world, _) = world();
    let Op::Open(open) = create("/ls/dev/g") else { unreachable!() };
    let open = Op::Open(Open { events: EventMask::ALL, ..open });
    let number = world.ask(1, open.clone());
    world.commit();
    let other = world.open(2, "/ls/dev/g");
    world.call(2, Op::Delete(other)).expect("deleted");
    world.sent.clear();

    world.ask_again(1, number, open);

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Opened { created: true, .. }))));
    assert_eq!(world.events(1), ["handle-invalid /ls/dev/g to 2"]);
}

#[test]
fn a_new_master_tells_of_nothing_until_the_handle_is_shown_to_it() {
    let (mut world, handle) = world();
    let listening = subscribed(&mut world, 2, "/ls/dev/f");
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
    world.numbers.extend([(11, 100), (12, 100)]);
    world.call(11, set(&handle, "x")).expect("written");
    assert_eq!(world.events(12), [""; 0]);

    assert!(matches!(world.call(12, Op::Refresh(listening)), Ok(Reply::Stat(_))));
    world.call(11, set(&handle, "y")).expect("written");

    assert_eq!(world.events(12), ["contents-modified /ls/dev/f"]);
}

#[test]
fn a_proxy_hears_each_event_once_for_all_its_clients() {
    let (mut world, handle) = world();
    world.connect(9, hello(9, Role::Proxy));
    for client in 21..24 {
        world.ask_for(9, u64::from(client), on_behalf(client, 1, 1), subscribing("/ls/dev/f", Use::Read));
    }
    world.commit();

    world.call(1, set(&handle, "x")).expect("written");

    assert_eq!(world.events(9), ["contents-modified /ls/dev/f"]);
    let gone = Op::EndClient(EndCause::Closed);
    for client in 21..24 {
        world.ask_for(9, 100 + u64::from(client), on_behalf(client, 2, 1), gone.clone());
    }
    world.commit();
    world.call(1, set(&handle, "y")).expect("written");
    assert_eq!(world.events(9).len(), 1, "its clients are gone");
}

#[test]
fn who_may_not_read_a_node_any_more_hears_nothing_of_it() {
    let (mut world, handle) = world();
    let mut admin = hello(3, Role::Client);
    admin.principal = "admin".into();
    world.connect(3, admin);
    let Ok(Reply::Opened { handle: changing, .. }) =
        world.call(3, Op::Open(Open::existing(name("/ls/dev/f"), Use::ChangeAcl)))
    else {
        panic!("admin may")
    };
    let acls = hasp_proto::node::AclNames { read: "admin".into(), ..Default::default() };
    world.call(3, Op::SetAcl { handle: changing, acls, if_generation: None }).expect("changed");
    world.sent.clear();

    world.call(1, set(&handle, "x")).expect("written");

    assert_eq!(world.events(2), ["child-modified /ls/dev f"], "of the directory, which it may read");
}

#[test]
fn every_kind_of_event_has_a_name_of_its_own() {
    let names: BTreeSet<_> = EventKind::ALL.map(EventKind::name).into();
    assert_eq!(names.len(), EventKind::ALL.len());
}

#[test]
fn a_client_that_speaks_through_another_by_now_hears_on_when_the_earlier_one_says_that_it_is_gone() {
    let (mut world, handle) = world();
    world.connect(9, hello(9, Role::Proxy));
    world.connect(8, hello(8, Role::Proxy));
    world.ask_for(9, 1, on_behalf(5, 1, 1), subscribing("/ls/dev/f", Use::Read));
    world.ask_for(9, 2, on_behalf(5, 2, 1), create("/ls/dev/g"));
    world.commit();
    world.ask_for(8, 1, on_behalf(5, 3, 2), subscribing("/ls/dev/f", Use::Read));
    world.commit();
    world.ask_for(9, 3, on_behalf(5, 0, 1), Op::EndClient(EndCause::Failed));
    world.commit();
    assert_eq!(
        world.answer(9, 3),
        Some(Ok(Reply::Noted)),
        "nothing in the log says that it speaks through another"
    );
    world.sent.clear();

    world.call(1, set(&handle, "x")).expect("written");

    assert_eq!(world.events(8), ["contents-modified /ls/dev/f"]);
    assert_eq!(world.events(9), [""; 0], "what it had before is over");
}

/// Proposes all that is asked, and hands the outcomes of the first batch in with a state that has applied the others too.
fn commit_with_the_state_ahead(world: &mut World) {
    let mut applied = Vec::new();
    while let Some((batch, entry)) = world.log.pop_front() {
        applied.push((batch, world.state.apply(&entry)));
    }
    assert!(applied.len() > 1, "only one batch was proposed");
    for (batch, outcomes) in applied {
        world.input(Input::Applied(batch, outcomes, world.state.clone()));
    }
    world.commit();
}

#[test]
fn who_opens_a_node_that_is_gone_in_a_state_ahead_leaves_others_what_they_are_to_hear() {
    let mut world = World::serving();
    for client in [1, 2, 3] {
        world.client(client);
    }
    let Op::Open(mut ephemeral) = create("/ls/dev/e") else { unreachable!() };
    ephemeral.create.as_mut().expect("creates").ephemeral = true;
    let Ok(Reply::Opened { handle, .. }) = world.call(1, Op::Open(ephemeral)) else { panic!("created") };
    let other = world.open(1, "/ls/dev/f");
    subscribed(&mut world, 2, "/ls/dev/e");
    world.sent.clear();

    let late = world.ask(3, subscribing("/ls/dev/e", Use::WriteAndLock));
    world.ask(1, set(&handle, "x"));
    world.ask(1, Op::Delete(handle));
    for _ in 0..20 {
        world.ask(1, set(&other, "company for these, so that they are proposed at once"));
    }
    commit_with_the_state_ahead(&mut world);

    assert!(matches!(world.answer(3, late), Some(Ok(Reply::Opened { .. }))));
    assert_eq!(world.events(2), ["contents-modified /ls/dev/e", "handle-invalid /ls/dev/e"]);
    assert_eq!(world.events(3).first().map(String::as_str), Some("handle-invalid /ls/dev/e to 1"));
}
