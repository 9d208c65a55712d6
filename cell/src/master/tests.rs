//! The master, input by input, over a log that commits when it is told to.

mod caching;
mod contract;
mod crossing;
mod events;
mod load;
mod locks;
mod moves;
mod moving;
mod stepping_down;
mod world;

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Claim, Generation, Sequence};
use hasp_proto::limits::CLAIM_WINDOW;
use hasp_proto::node::LockMode;
use hasp_proto::request::{Op, Open, Reply, Use};
use hasp_proto::stream::Role;

use super::*;
use world::*;

#[test]
fn nothing_is_served_before_the_epoch_is_applied() {
    let mut world = World::following();
    world.input(Input::Deposed(Some(2)));
    world.client(1);
    assert_eq!(world.refusal(1), Some(&ErrorCode::NotMaster { hint: Some("h2:1".into()) }));

    world.elect();
    world.input(Input::Connected(ConnectionId(2)));
    world.input(Input::Received(ConnectionId(2), vec![Up::Hello(hello(2, Role::Client))]));
    assert!(matches!(world.refusal(2), Some(ErrorCode::NotMaster { .. })), "elected, but not begun");

    world.commit();
    world.client(3);
    assert!(world.sent.iter().any(|(to, down)| to.0 == 3 && matches!(down, Down::Welcome(_))));
    assert_eq!(world.core.epoch(), Epoch(1));
}

#[test]
fn a_write_is_answered_when_it_is_applied_with_its_own_position() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");

    let number = world.ask(1, set(&handle, "x"));
    assert_eq!(world.answer(1, number), None, "not before");
    world.commit();

    let positions: Vec<_> = world
        .sent
        .iter()
        .filter_map(|(_, down)| match down {
            Down::Answer(answer) => answer.position.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(positions.last().expect("answered").index, world.state.index());
    assert!(positions.windows(2).all(|pair| pair[0].index < pair[1].index), "{positions:?}");
}

#[test]
fn a_read_waits_for_the_master_lease() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.now = t(1_350); // 1.5 s less a tenth after the last acknowledgement.

    let number = world.ask(1, Op::GetStat(handle));
    assert_eq!(world.answer(1, number), None);

    world.input(Input::QuorumAcknowledged(t(1_340)));
    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Stat(_)))));
}

#[test]
fn a_batch_says_which_of_its_requests_are_followed() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let trace = TraceContext::new([1; 16], [2; 8], 1);
    world.call(1, set(&handle, "x")).expect("written");
    assert_eq!(world.traced, [], "nobody is followed");

    world.trace = Some(trace.clone());
    world.ask(1, set(&handle, "y"));
    let written = world.log.back().expect("proposed").0;
    world.commit();
    world.call(1, Op::GetStat(handle.clone())).expect("read");
    world.ask(1, LOCK(&handle));
    let locked = world.log.back().expect("proposed").0;

    assert_eq!(world.traced, [(written, vec![trace.clone()]), (locked, vec![trace])]);
}

#[test]
fn a_write_asked_again_takes_effect_once_and_gets_its_first_answer() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let op = set(&handle, "x");
    let number = world.ask(1, op.clone());
    world.commit();
    let first = world.answer(1, number);
    let index = world.state.index();

    world.sent.clear();
    world.ask_again(1, number, op);
    world.commit();

    assert_eq!(world.answer(1, number), first);
    assert_eq!(world.state.index(), index, "nothing went into the log");
}

#[test]
fn a_write_asked_again_is_answered_with_the_position_at_which_it_took_effect() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let ops = [set(&handle, "x"), LOCK(&handle), Op::Release(handle.clone())];
    let firsts = ops.map(|op| {
        let number = world.ask(1, op.clone());
        world.commit();
        (number, op, world.answered_at(1, number))
    });
    world.call(1, set(&handle, "y")).expect("written");
    world.elect();
    world.commit();
    world.connect(
        2,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(1, Role::Client)
        },
    );

    for (number, op, first) in firsts {
        world.ask_again(2, number, op);

        assert_eq!(world.answered_at(2, number), first);
        assert_eq!(first.0, 1, "the epoch in which it took effect, and not {}", world.core.epoch());
    }
}

#[test]
fn a_write_that_was_under_way_when_it_was_asked_again_is_answered_with_its_first_position() {
    let mut world = World::serving();
    world.connect(9, hello(9, Role::Proxy));
    world.connect(8, hello(8, Role::Proxy));
    // The client moves from one proxy to the other while its write is in the log.
    world.ask_for(9, 1, on_behalf(7, 1, 1), create("/ls/dev/f"));
    world.ask_for(8, 1, on_behalf(7, 1, 2), create("/ls/dev/f"));

    world.commit();

    assert!(matches!(world.answer(8, 1), Some(Ok(Reply::Opened { created: true, .. }))));
    assert_eq!(world.answered_at(8, 1), world.answered_at(9, 1));
    assert!(world.answered_at(8, 1).1 < world.state.index());
}

#[test]
fn a_write_applied_just_before_another_epoch_began_is_answered_with_its_own_epoch() {
    let mut world = World::serving();
    world.client(1);
    let number = world.ask(1, create("/ls/dev/f"));
    let (batch, entry) = world.log.pop_front().expect("proposed");
    let outcomes = world.state.apply(&entry);
    let index = world.state.index();
    let commands = vec![Command::MasterEpoch { replica: 2, genesis: None }];
    world.state.apply(&LogEntry { epoch: Epoch(1), commands });

    world.input(Input::Applied(batch, outcomes, world.state.clone()));

    assert_eq!(world.answered_at(1, number), (1, index));
}

#[test]
fn an_open_that_created_says_so_again_whatever_became_of_the_node() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let number = world.ask(1, create("/ls/dev/f"));
    world.commit();
    let first = (world.answer(1, number), world.answered_at(1, number));
    assert!(matches!(first.0, Some(Ok(Reply::Opened { created: true, .. }))));
    let check = |world: &mut World| {
        world.sent.clear();
        world.ask_again(1, number, create("/ls/dev/f"));
        assert_eq!((world.answer(1, number), world.answered_at(1, number)), first);
    };

    let other = world.open(2, "/ls/dev/f");
    world.call(2, set(&other, "x")).expect("written");
    check(&mut world);
    world.call(2, Op::Delete(other)).expect("deleted");
    check(&mut world);
}

#[test]
fn a_write_whose_outcome_is_unknown_is_unavailable_and_safe_to_repeat() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let op = set(&handle, "x");
    let number = world.ask(1, op.clone());
    let (batch, entry) = world.log.pop_front().expect("proposed");

    world.input(Input::Unknown(batch));
    assert_eq!(world.answer(1, number), Some(Err(ErrorCode::Unavailable)));
    world.state.apply(&entry); // It was applied after all.
    world.ask_again(1, number, op);
    world.commit();

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Written { .. }))));
    let node = world.state.node(&Name::parse("/ls/dev/f").expect("good")).expect("there").clone();
    assert_eq!(node.content_generation, Generation(node.instance.0 + 1), "written once");
}

#[test]
fn a_batch_that_the_log_did_not_take_is_proposed_again_after_a_pause() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let number = world.ask(1, set(&handle, "x"));
    let (batch, _) = world.log.pop_front().expect("proposed");

    world.input(Input::NotProposed(batch));
    assert!(world.log.is_empty());
    world.pass(Duration::from_millis(20));

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Written { .. }))));
}

#[test]
fn what_comes_in_one_message_goes_into_one_entry() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let ups = (10..20)
        .map(|number| {
            let number = RequestNumber(number);
            let settled_below = RequestNumber(0);
            let op = set(&handle, "x");
            Up::Request(Request {
                number,
                settled_below,
                on_behalf: None,
                guard: None,
                caches: false,
                trace: None,
                op,
            })
        })
        .collect();

    world.input(Input::Received(ConnectionId(1), ups));

    assert_eq!(world.log.len(), 1);
    assert_eq!(world.log[0].1.commands.len(), 10);
}

#[test]
fn the_clients_of_a_lost_proxy_keep_their_locks_for_the_claim_window() {
    let mut world = World::serving();
    world.connect(9, hello(9, Role::Proxy));
    world.ask_for(9, 1, on_behalf(1, 1, 1), create("/ls/dev/lock"));
    world.commit();
    let Some(Ok(Reply::Opened { handle, .. })) = world.answer(9, 1) else { panic!("opened") };
    world.ask_for(9, 2, on_behalf(1, 2, 1), LOCK(&handle));
    world.commit();
    let name = Name::parse("/ls/dev/lock").expect("good");
    let is_held = |world: &World| world.state.node(&name).expect("there").lock.mode().is_some();

    world.pass(Duration::from_secs(12)); // The proxy's session runs out.
    assert_eq!(world.core.session_count(), 0);
    world.pass(CLAIM_WINDOW - Duration::from_secs(1));
    assert!(is_held(&world), "orphaned, not released (proxy-3)");

    world.pass(Duration::from_secs(2));
    assert!(!is_held(&world));
    assert!(world.state.node(&name).expect("there").lock.is_delayed(), "lost by failure");
}

#[test]
fn a_proxy_that_loses_a_client_says_how() {
    let mut world = World::serving();
    world.connect(9, hello(9, Role::Proxy));
    let mut number = 0;
    for (byte, cause, is_delayed) in [(1, EndCause::Closed, false), (2, EndCause::Failed, true)] {
        let name = format!("/ls/dev/lock{byte}");
        world.ask_for(9, number + 1, on_behalf(byte, 1, 1), create(&name));
        world.commit();
        let Some(Ok(Reply::Opened { handle, .. })) = world.answer(9, number + 1) else { panic!("opened") };
        world.ask_for(9, number + 2, on_behalf(byte, 2, 1), LOCK(&handle));
        world.ask_for(9, number + 3, on_behalf(byte, 3, 1), Op::EndClient(cause));
        world.commit();
        number += 3;

        assert_eq!(world.answer(9, number), Some(Ok(Reply::Noted)));
        let lock = &world.state.node(&Name::parse(&name).expect("good")).expect("there").lock;
        assert_eq!((lock.mode(), lock.is_delayed()), (None, is_delayed), "{cause:?}");
    }
}

#[test]
fn a_session_ended_by_its_own_wish_is_closed_even_if_the_first_try_was_lost() {
    let mut world = World::serving();
    world.client(1);
    let held = world.open(1, "/ls/dev/lock");
    world.call(1, LOCK(&held)).expect("free");
    world.input(Input::Received(ConnectionId(1), vec![Up::EndSession]));
    let (batch, _) = world.log.pop_front().expect("proposed");

    world.input(Input::Unknown(batch));
    world.commit();

    let lock = &world.state.node(&Name::parse("/ls/dev/lock").expect("good")).expect("there").lock;
    assert_eq!((lock.mode(), lock.is_delayed()), (None, false));
}

#[test]
fn a_second_election_without_a_word_of_the_first_ones_end_begins_anew() {
    let mut world = World::serving();
    world.client(1);

    world.elect();
    world.commit();

    assert_eq!(world.core.epoch(), Epoch(2));
    assert!(matches!(world.refusal(1), Some(ErrorCode::NotMaster { .. })), "it must come back");
    assert_eq!(world.core.session_count(), 1);
}

#[test]
fn only_proxies_and_routers_speak_for_others() {
    let mut world = World::serving();
    world.client(1);
    world.ask_for(1, 1, on_behalf(2, 1, 1), create("/ls/dev/f"));
    world.ask_for(1, 2, None, Op::Settle(vec![]));

    assert_eq!(world.answer(1, 1), Some(Err(ErrorCode::PermissionDenied)));
    assert_eq!(world.answer(1, 2), Some(Err(ErrorCode::PermissionDenied)));
}

#[test]
fn settled_answers_are_forgotten_in_one_entry_a_second_later() {
    let mut world = World::serving();
    world.connect(9, hello(9, Role::Proxy));
    for byte in 1..=3 {
        world.ask_for(9, u64::from(byte), on_behalf(byte, 1, 1), create("/ls/dev/f"));
    }
    world.commit();
    assert!(world.state.client(key(1).id()).is_some());

    let marks = (1..=3).map(|byte| (key(byte).id(), RequestNumber(2))).collect();
    world.ask_for(9, 4, None, Op::Settle(marks));
    assert!(world.log.is_empty(), "they wait for company");
    let index = world.state.index();
    world.keep_alive(9);
    world.pass(Duration::from_secs(2));

    assert_eq!(world.state.index(), index + 1);
    let record = world.state.client(key(1).id()).expect("lingers");
    assert!(record.is_idle() && record.lingers_since.is_some(), "the state does not grow with the clients");
}

#[test]
fn a_new_master_keeps_sessions_locks_and_handles_and_tells_of_the_fail_over() {
    let mut old = World::serving();
    old.client(1);
    let handle = old.open(1, "/ls/dev/lock");
    old.call(1, LOCK(&handle)).expect("free");
    let mut world = World::following();
    world.state = old.state.clone();
    world.elect();
    world.commit();
    assert_eq!(world.core.epoch(), Epoch(2));

    world.connect(
        1,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(1, Role::Client)
        },
    );

    assert!(world.sent.iter().any(|(_, down)| matches!(down, Down::Welcome(welcome) if welcome.resumed)));
    let news = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    assert!(world.sent.iter().any(|(_, down)| matches!(down, Down::News { item, .. } if *item == news)));
    world.numbers.insert(1, 10);
    assert!(matches!(world.call(1, LOCK(&handle)), Ok(Reply::Acquired { .. })), "it holds it already");
    assert_eq!(world.call(1, Op::Release(handle)), Ok(Reply::Released));
}

#[test]
fn a_session_that_does_not_come_back_is_ended_after_the_longest_lease_that_may_have_been_granted() {
    let mut old = World::serving();
    old.client(1);
    let mut world = World::following();
    world.state = old.state.clone();
    world.elect();
    world.commit();

    world.pass(world.state.lease_max() - Duration::from_millis(1));
    assert_eq!(world.core.session_count(), 1);
    world.pass(Duration::from_millis(2));
    assert_eq!(world.core.session_count(), 0);
    assert!(world.state.session(key(1).id()).is_none());
}

#[test]
fn a_session_the_cell_does_not_know_cannot_be_resumed() {
    let mut world = World::serving();

    world.connect(1, Hello { known_since: Some(Claim(1)), ..hello(1, Role::Client) });

    assert_eq!(world.refusal(1), Some(&ErrorCode::SessionExpired));
}

#[test]
fn a_session_whose_connection_was_lost_while_it_was_created_runs_out() {
    let mut world = World::serving();
    world.input(Input::Connected(ConnectionId(1)));
    world.input(Input::Received(ConnectionId(1), vec![Up::Hello(hello(1, Role::Client))]));
    world.input(Input::Disconnected(ConnectionId(1)));
    world.commit();
    assert!(world.state.session(key(1).id()).is_some());

    world.pass(Duration::from_secs(13));

    assert!(world.state.session(key(1).id()).is_none());
}

#[test]
fn a_deposed_master_says_so_and_serves_nobody() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let number = world.ask(1, set(&handle, "x"));

    world.input(Input::Deposed(Some(2)));

    assert_eq!(world.refusal(1), Some(&ErrorCode::NotMaster { hint: Some("h2:1".into()) }));
    world.commit(); // The entry is applied nevertheless, and nobody is told (`fail-3`).
    assert_eq!(world.answer(1, number), None);
}

#[test]
fn an_entry_of_an_epoch_that_is_over_makes_the_master_begin_anew() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.ask(1, set(&handle, "x"));
    // Another mastership began before the entry was applied.
    let other =
        LogEntry { epoch: Epoch(1), commands: vec![Command::MasterEpoch { replica: 2, genesis: None }] };
    world.state.apply(&other);

    world.commit();

    assert_eq!(world.core.epoch(), Epoch(3), "its own, after the other's");
    assert!(world.core.is_serving());
    assert!(matches!(world.refusal(1), Some(ErrorCode::NotMaster { .. })));
}

#[test]
fn names_of_other_cells_and_namespaces_are_refused() {
    let mut world = World::serving();
    world.client(1);

    assert_eq!(world.call(1, create("/ls/dev/b/f")), Err(ErrorCode::WrongCell { map_version: 1 }));
    assert_eq!(world.call(1, create("/ls/prod/f")), Err(ErrorCode::NotFound));
}

#[test]
fn handles_are_good_for_their_session_use_and_node_only() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let handle = world.open(1, "/ls/dev/f");
    let reading = Op::Open(Open::existing(Name::parse("/ls/dev/f").expect("good"), Use::Read));
    let Ok(Reply::Opened { handle: reader, created: false, .. }) = world.call(1, reading) else {
        panic!("opened")
    };

    assert_eq!(world.call(1, set(&reader, "x")), Err(ErrorCode::PermissionDenied));
    assert_eq!(
        world.call(1, LOCK(&reader)),
        Err(ErrorCode::PermissionDenied),
        "both modes need write permission"
    );
    assert_eq!(world.call(2, Op::GetStat(handle.clone())), Err(ErrorCode::StaleHandle), "another's handle");
    let nonsense = HandleToken::new(Bytes::from_static(b"nonsense"));
    assert_eq!(world.call(1, Op::GetStat(nonsense)), Err(ErrorCode::StaleHandle));
    world.call(1, Op::Delete(handle.clone())).expect("empty");
    assert_eq!(world.call(1, Op::GetStat(handle)), Err(ErrorCode::StaleHandle));
}

#[test]
fn contents_beyond_the_limit_are_refused_and_at_the_limit_taken() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let set = |bytes: usize| Op::SetContents {
        handle: handle.clone(),
        contents: vec![0; bytes].into(),
        if_generation: None,
    };

    assert!(world.call(1, set(262_144)).is_ok());
    assert_eq!(world.call(1, set(262_145)), Err(ErrorCode::TooLarge));
}
