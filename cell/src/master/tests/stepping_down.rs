//! A master that hands its mastership over: what it still does, and what not any more.

use super::*;

#[test]
fn a_master_that_steps_down_answers_no_read_whatever_a_quorum_says() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let before = world.ask(1, Op::GetStat(handle.clone()));
    assert!(matches!(world.answer(1, before), Some(Ok(Reply::Stat(_)))));

    world.input(Input::StepDown);

    assert!(!world.core.is_serving());
    assert_eq!(world.core.master_address(), None);
    let after = world.ask(1, Op::GetStat(handle));
    world.input(Input::QuorumAcknowledged(world.now));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.answer(1, after), None);
}

#[test]
fn a_read_that_waited_for_the_lease_is_not_answered_after_stepping_down() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.now = t(1_350);
    let number = world.ask(1, Op::GetStat(handle));

    world.input(Input::StepDown);
    world.input(Input::QuorumAcknowledged(t(1_349)));

    assert_eq!(world.answer(1, number), None);
}

#[test]
fn what_was_proposed_before_stepping_down_is_answered_and_nothing_else_is_begun() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let before = world.ask(1, set(&handle, "before"));

    world.input(Input::StepDown);
    let after = world.ask(1, set(&handle, "after"));

    assert!(!world.core.has_nothing_proposed());
    world.commit();
    assert!(world.core.has_nothing_proposed());
    assert!(matches!(world.answer(1, before), Some(Ok(Reply::Written { .. }))));
    assert_eq!(world.answer(1, after), None);
}

#[test]
fn clients_are_sent_to_the_successor_once_it_is_known() {
    let mut world = World::serving();
    world.client(1);
    world.input(Input::StepDown);
    assert_eq!(world.refusal(1), None, "they wait");
    world.client(2);
    assert_eq!(world.refusal(2), Some(&ErrorCode::NotMaster { hint: None }), "and nobody new is let in");

    world.input(Input::Deposed(Some(2)));

    assert_eq!(world.refusal(1), Some(&ErrorCode::NotMaster { hint: Some("h2:1".into()) }));
    assert!(world.core.has_nothing_proposed());
}

#[test]
fn no_lease_is_granted_and_no_session_runs_out_while_stepping_down() {
    let mut world = World::serving();
    world.client(1);
    world.input(Input::Received(
        ConnectionId(1),
        vec![Up::KeepAlive(hasp_proto::stream::KeepAlive { number: 1, settled_below: RequestNumber(0) })],
    ));
    world.input(Input::StepDown);
    world.sent.clear();

    world.pass(Duration::from_secs(120));
    world.core.handle_timeout(world.now);
    world.drain();

    assert_eq!(world.sent, []);
    assert_eq!(world.core.session_count(), 1);
    assert!(world.log.is_empty(), "nobody is ended: {:?}", world.log);
}

#[test]
fn who_has_not_begun_to_serve_has_nothing_to_step_down_from() {
    let mut world = World::following();
    world.input(Input::StepDown);
    world.input(Input::Deposed(Some(2)));
    assert_eq!(world.core.master_address().as_deref(), Some("h2:1"));

    world.elect();
    world.input(Input::StepDown);
    world.commit();

    assert!(!world.core.is_serving() && !world.core.is_beginning());
}
