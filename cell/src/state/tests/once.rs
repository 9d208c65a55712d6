//! P-ONCE: a write that is asked again is not done again, and hears its first answer.

use hasp_proto::limits::ANSWERS_KEPT_PER_CLIENT;

use super::*;

fn world() -> World {
    let mut world = World::new();
    for session in [1, 2] {
        world.session(session, Role::Client);
    }
    world.file(2, FILE);
    world
}

#[test]
fn a_write_asked_again_is_not_done_again() {
    let mut world = world();
    let write = |world: &World, contents| set(world.handle(FILE, 1), contents);

    let first = world.write_as(own(1), 5, 0, write(&world, "one"));
    let index = world.state.index();
    let between = world.write_as(own(2), 9, 0, write(&world, "two"));
    let again = world.write_as(own(1), 5, 0, write(&world, "one"));

    assert!(matches!(between, Outcome::Written { .. }));
    assert_eq!(again, first);
    assert_eq!(world.node(FILE).contents, "two");
    assert_eq!(world.kept(1, 5), Some((index, first)));
}

#[test]
fn a_write_asked_again_keeps_the_position_and_epoch_at_which_it_took_effect() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "one");
    let refused = create("/ls/dev/d/f", NodeKind::File);
    let commands =
        vec![client_write(own(1), 5, 0, write.clone()), client_write(own(1), 6, 0, refused.clone())];
    let first = world.state.apply(&LogEntry { epoch: Epoch(1), commands: commands.clone() });
    let last = world.state.position();
    world.run(Command::MasterEpoch { replica: 2, genesis: None });

    let mut restored = State::from_snapshot(world.state.write_snapshot().into_iter()).expect("good");
    for state in [&mut world.state, &mut restored] {
        let again = state.apply(&LogEntry { epoch: Epoch(2), commands: commands.clone() });

        assert_eq!(again, first);
        assert_eq!(again[1].position, last);
        assert_eq!(again[0].position, Position { index: last.index - 1, ..last.clone() });
        assert_eq!(state.index(), last.index + 3, "the repetitions count all the same");
    }
}

#[test]
fn a_try_that_is_not_kept_has_the_position_of_each_try() {
    let mut world = world();
    assert_acquired(&world.acquire(own(2), FILE, 1, LockMode::Exclusive));
    let write = Write::Acquire { holder: world.handle(FILE, 1), mode: LockMode::Exclusive };
    let entry = LogEntry { epoch: Epoch(1), commands: vec![client_write(own(1), 5, 0, write)] };

    for _ in 0..2 {
        let held = world.state.apply(&entry);

        let position = world.state.position();
        assert_eq!(held, [AppliedOutcome { position, outcome: Outcome::LockHeld }]);
    }
}

#[test]
fn a_refusal_is_kept_too() {
    let mut world = world();
    let create = create("/ls/dev/d/f", NodeKind::File);
    let first = world.write_as(own(1), 5, 0, create.clone());
    world.directory(2, "/ls/dev/d");

    let again = world.write_as(own(1), 5, 0, create.clone());

    assert_failed(&first, &ErrorCode::NotFound, "parent");
    assert_eq!(again, first);
    created(&world.write_as(own(1), 6, 0, create));
}

#[test]
fn a_lock_that_was_not_to_be_had_may_be_asked_for_again_under_the_same_number() {
    let mut world = world();
    assert_acquired(&world.acquire(own(2), FILE, 1, LockMode::Exclusive));
    let write = Write::Acquire { holder: world.handle(FILE, 1), mode: LockMode::Exclusive };

    assert_eq!(world.write_as(own(1), 5, 0, write.clone()), Outcome::LockHeld);
    world.end(2, EndCause::Failed);
    let began = world.state.index();
    assert_eq!(world.write_as(own(1), 5, 0, write.clone()), Outcome::LockDelayed { longest: DELAY });
    assert_eq!(world.state.answered(id(1), RequestNumber(5)), None);
    let instance = world.node(FILE).instance;
    world.run(Command::EndLockDelay { name: name(FILE), instance, began });

    let generation = assert_acquired(&world.write_as(own(1), 5, 0, write.clone()));
    let holder = world.handle(FILE, 1);
    world.write_as(own(1), 6, 0, Write::Release { holder });
    assert_eq!(
        assert_acquired(&world.write_as(own(1), 5, 0, write)),
        generation,
        "asked again, not taken again"
    );
    assert_eq!(world.node(FILE).lock.mode(), None);
}

#[test]
fn what_is_settled_is_forgotten_and_its_number_refused() {
    let mut world = world();
    let write = |world: &World| set(world.handle(FILE, 1), "x");
    for number in 1..=4 {
        world.write_as(own(1), number, 0, write(&world));
    }

    world.write_as(own(1), 5, 3, write(&world));
    let kept = |world: &World| -> Vec<u64> {
        world.state.client(id(1)).expect("there").answers().map(|(number, _)| number.0).collect()
    };
    assert_eq!(kept(&world), [3, 4, 5]);
    assert_eq!(world.run(Command::Settle(vec![(id(1), RequestNumber(5))])), Outcome::Noted);
    assert_eq!(kept(&world), [5]);

    let before = world.node(FILE).content_generation;
    assert_failed(&world.write_as(own(1), 4, 0, write(&world)), &ErrorCode::InvalidArgument, "settled");
    assert_failed(&world.write_as(own(1), 9, 10, write(&world)), &ErrorCode::InvalidArgument, "settled");
    assert_eq!(world.node(FILE).content_generation, before);
}

#[test]
fn answers_of_one_client_have_a_limit() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "x");
    let most = ANSWERS_KEPT_PER_CLIENT as u64;
    for number in 1..=most {
        let outcome = world.state.apply(&LogEntry {
            epoch: Epoch(1),
            commands: vec![client_write(own(1), number, 0, write.clone())],
        });
        assert!(matches!(only_outcomes(outcome)[..], [Outcome::Written { .. }]));
    }

    let refused = world.write_as(own(1), most + 1, 0, write.clone());
    let Outcome::Failed(error) = refused else { panic!("{refused:?}") };
    assert!(matches!(error.code, ErrorCode::RateLimited { .. }));
    assert!(
        matches!(world.write_as(own(1), most, 0, write.clone()), Outcome::Written { .. }),
        "old answers stay"
    );
    assert!(
        matches!(world.write_as(own(1), most + 1, 2, write), Outcome::Written { .. }),
        "once one is settled"
    );
}
