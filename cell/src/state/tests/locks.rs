//! P-LOCK, P-SEQ, P-DELAY: `lock-1` to `lock-4`, traps 7 to 14 and 18.

use LockMode::{Exclusive, Shared};

use super::*;

/// Three direct clients and a file.
fn world() -> World {
    let mut world = World::new();
    for session in [1, 2, 3] {
        world.session(session, Role::Client);
    }
    world.file(1, FILE);
    world
}

fn holders(world: &World) -> Vec<u8> {
    world.node(FILE).lock.holders().map(|(holder, _)| holder.session.0[0]).collect()
}

fn end_delay(world: &mut World, began: u64) {
    let instance = world.node(FILE).instance;
    let outcome = world.run(Command::EndLockDelay { name: name(FILE), instance, began });
    assert_eq!(outcome, Outcome::Noted);
}

#[test]
fn one_holds_a_lock_exclusive_or_some_hold_it_shared() {
    let check = |first, second, joins: bool| {
        let mut world = world();
        assert_acquired(&world.acquire(own(1), FILE, 1, first));
        let outcome = world.acquire(own(2), FILE, 1, second);
        assert_eq!(
            matches!(outcome, Outcome::Acquired { .. }),
            joins,
            "{first:?} then {second:?}: {outcome:?}"
        );
        assert!(joins || outcome == Outcome::LockHeld);
    };
    check(Shared, Shared, true);
    check(Shared, Exclusive, false);
    check(Exclusive, Shared, false);
    check(Exclusive, Exclusive, false);
}

#[test]
fn a_lock_is_held_by_a_handle_not_by_its_client() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));

    assert_eq!(world.acquire(own(1), FILE, 2, Exclusive), Outcome::LockHeld);
}

#[test]
fn acquiring_again_changes_nothing_and_in_the_other_mode_is_an_error() {
    for (mode, other) in [(Shared, Exclusive), (Exclusive, Shared)] {
        let mut world = world();
        let generation = assert_acquired(&world.acquire(own(1), FILE, 1, mode));

        assert_eq!(assert_acquired(&world.acquire(own(1), FILE, 1, mode)), generation);
        assert_failed(&world.acquire(own(1), FILE, 1, other), &ErrorCode::LockHeld, "this handle holds it");

        assert_eq!(world.node(FILE).lock.mode(), Some(mode));
        assert_eq!(holders(&world), [1]);
    }
}

#[test]
fn the_generation_grows_only_from_free_to_held() {
    let mut world = world();
    let before = world.lock_generation(FILE);

    let first = assert_acquired(&world.acquire(own(1), FILE, 1, Shared));
    let second = assert_acquired(&world.acquire(own(2), FILE, 1, Shared));
    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Release { holder: holder.clone() });
    let third = assert_acquired(&world.acquire(own(3), FILE, 1, Shared));
    world.write(own(2), Write::Release { holder: holder.clone() });
    world.write(own(3), Write::Release { holder });
    assert_eq!(world.lock_generation(FILE), first, "release does not touch it");
    let again = assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));

    assert!(first > before);
    assert_eq!((first, first), (second, third));
    assert!(again > first);
}

#[test]
fn only_the_holder_releases() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    let (holder, other) = (world.handle(FILE, 1), world.handle(FILE, 2));

    let foreign = world.write(own(2), Write::Release { holder: holder.clone() });
    let other_handle = world.write(own(1), Write::Release { holder: other });
    assert_eq!(holders(&world), [1]);
    let released = world.write(own(1), Write::Release { holder: holder.clone() });
    let twice = world.write(own(1), Write::Release { holder });

    assert_failed(&foreign, &ErrorCode::LockNotHeld, "does not hold");
    assert_failed(&other_handle, &ErrorCode::LockNotHeld, "does not hold");
    assert_eq!(released, Outcome::Released);
    assert_failed(&twice, &ErrorCode::LockNotHeld, "does not hold");
}

#[test]
fn closing_frees_the_lock_at_once_and_only_its_own() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    let (holder, other) = (world.handle(FILE, 1), world.handle(FILE, 2));

    assert_eq!(world.write(own(1), Write::CloseHandle { holder: other }), Outcome::Closed);
    assert_eq!(holders(&world), [1]);
    assert_eq!(world.write(own(1), Write::CloseHandle { holder }), Outcome::Closed);

    assert_acquired(&world.acquire(own(2), FILE, 1, Exclusive));
}

#[test]
fn a_session_that_closes_leaves_its_locks_free() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));

    let outcome = world.end(1, EndCause::Closed);

    assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![name(FILE)] });
    assert_eq!(world.delays(), []);
    assert_acquired(&world.acquire(own(2), FILE, 1, Exclusive));
}

#[test]
fn a_lock_lost_by_failure_is_barred_to_all_until_its_delay_ends() {
    for held in [Shared, Exclusive] {
        let mut world = world();
        assert_acquired(&world.acquire(own(1), FILE, 1, held));
        let outcome = world.end(1, EndCause::Failed);
        assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![name(FILE)] });
        let began = world.state.index();
        assert_eq!(world.delays(), [(FILE.into(), began)]);

        for (session, mode) in [(2, Shared), (2, Exclusive), (3, Shared), (3, Exclusive)] {
            let outcome = world.acquire(own(session), FILE, 9, mode);
            assert_eq!(
                outcome,
                Outcome::LockDelayed { longest: DELAY },
                "{held:?}, then {mode:?} by {session}"
            );
        }
        end_delay(&mut world, began);

        assert_eq!(world.delays(), []);
        assert_acquired(&world.acquire(own(2), FILE, 1, Exclusive));
    }
}

#[test]
fn while_others_hold_on_shared_more_may_join_but_a_writer_waits_for_the_delay_of_the_lost() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Shared));
    assert_acquired(&world.acquire(own(2), FILE, 1, Shared));
    world.end(1, EndCause::Failed);
    let began = world.state.index();

    assert_acquired(&world.acquire(own(3), FILE, 1, Shared));
    let holder = world.handle(FILE, 1);
    world.write(own(2), Write::Release { holder: holder.clone() });
    world.write(own(3), Write::Release { holder });

    for mode in [Exclusive, Shared] {
        assert_eq!(world.acquire(own(2), FILE, 1, mode), Outcome::LockDelayed { longest: DELAY });
    }
    end_delay(&mut world, began);
    assert_acquired(&world.acquire(own(2), FILE, 1, Exclusive));
}

#[test]
fn a_lock_delay_of_zero_bars_nobody_and_one_beyond_the_bound_counts_as_the_bound() {
    let check = |lock_delay, expected: Vec<Duration>| {
        let mut world = world();
        let holder = Holder { lock_delay, ..world.handle(FILE, 1) };
        assert_acquired(&world.write(own(1), Write::Acquire { holder, mode: Exclusive }));
        world.end(1, EndCause::Failed);
        let delays: Vec<_> = world.state.delayed_locks().map(|(_, _, _, duration)| duration).collect();
        assert_eq!(delays, expected);
        let outcome = world.acquire(own(2), FILE, 1, Exclusive);
        assert_eq!(matches!(outcome, Outcome::Acquired { .. }), expected.is_empty());
    };
    check(Duration::ZERO, vec![]);
    check(Duration::from_secs(3_600), vec![Duration::from_secs(60)]);
}

#[test]
fn only_the_named_lock_delay_of_the_named_node_ends() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Shared));
    assert_acquired(&world.acquire(own(2), FILE, 1, Shared));
    world.end(1, EndCause::Failed);
    let first = world.state.index();
    world.end(2, EndCause::Failed);
    let second = world.state.index();

    end_delay(&mut world, first + 100);
    let stale = Instance(world.node(FILE).instance.0 - 1);
    world.run(Command::EndLockDelay { name: name(FILE), instance: stale, began: first });
    world.run(Command::EndLockDelay { name: name("/ls/dev/none"), instance: stale, began: first });
    assert_eq!(world.delays(), [(FILE.into(), first), (FILE.into(), second)]);
    end_delay(&mut world, first);

    assert_eq!(world.delays(), [(FILE.into(), second)]);
    assert_eq!(world.acquire(own(3), FILE, 1, Exclusive), Outcome::LockDelayed { longest: DELAY });
}

#[test]
fn handles_lost_together_have_one_lock_delay_the_longest() {
    let mut world = world();
    for (opened_by, seconds) in [(1, 5), (2, 20), (3, 10)] {
        let holder = Holder { lock_delay: Duration::from_secs(seconds), ..world.handle(FILE, opened_by) };
        assert_acquired(&world.write(own(1), Write::Acquire { holder, mode: Shared }));
    }

    let outcome = world.end(1, EndCause::Failed);

    assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![name(FILE)] }, "each node once");
    let delays: Vec<_> =
        world.state.delayed_locks().map(|(_, _, began, duration)| (began, duration)).collect();
    assert_eq!(delays, [(world.state.index(), Duration::from_secs(20))]);
}

#[test]
fn deleting_a_node_ends_its_lock_and_its_delays() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Shared));
    assert_acquired(&world.acquire(own(2), FILE, 1, Shared));
    world.end(2, EndCause::Failed);

    let holder = world.handle(FILE, 7);
    assert_eq!(world.write(own(3), Write::Delete { holder }), Outcome::Deleted);
    assert_eq!(world.state.client(id(1)).expect("there").locks().count(), 0);
    assert_eq!(world.delays(), []);
    world.file(3, FILE);

    assert_acquired(&world.acquire(own(3), FILE, 1, Exclusive));
}
