//! Sequencers as guards: P-SEQ.

use LockMode::{Exclusive, Shared};

use super::*;

const OTHER: &str = "/ls/dev/g";

/// Session 1 has the lock of one file and writes another.
fn world(mode: LockMode) -> (World, Guard) {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.session(2, Role::Client);
    world.file(1, FILE);
    world.file(1, OTHER);
    let lock_generation = assert_acquired(&world.acquire(own(1), FILE, 1, mode));
    let instance = world.node(FILE).instance;
    (world, Guard { name: name(FILE), instance, mode, lock_generation })
}

fn guarded(world: &mut World, guard: &Guard, write: Write) -> Outcome {
    let number = world.numbers.entry(1).or_insert(0);
    *number += 1;
    guarded_as(world, guard, world.numbers[&1], write)
}

fn guarded_as(world: &mut World, guard: &Guard, number: u64, write: Write) -> Outcome {
    let Command::ClientWrite(mut write) = client_write(own(1), number, 0, write) else { unreachable!() };
    write.guard = Some(guard.clone());
    world.run(Command::ClientWrite(write))
}

/// Says so of the state, and of a guarded write.
#[track_caller]
fn assert_stands(world: &mut World, guard: &Guard, stands: bool) {
    assert_eq!(world.state.sequencer_stands(guard), stands);
    let write = set(world.handle(OTHER, 1), "x");
    let outcome = guarded(world, guard, write);
    if stands {
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    } else {
        assert_failed(&outcome, &ErrorCode::SequencerInvalid, "does not stand any more");
    }
}

#[test]
fn a_guarded_write_is_done_while_the_acquisition_stands_and_not_after() {
    let (mut world, guard) = world(Exclusive);
    assert_stands(&mut world, &guard, true);

    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Release { holder });

    let before = world.node(OTHER).content_generation;
    assert_stands(&mut world, &guard, false);
    assert_eq!(world.node(OTHER).content_generation, before);
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    assert_stands(&mut world, &guard, false);
}

#[test]
fn a_guard_holds_for_that_instance_mode_and_generation_only() {
    let (mut world, guard) = world(Exclusive);
    let generation = guard.lock_generation.0;

    for wrong in [
        Guard { name: name(OTHER), ..guard.clone() },
        Guard { name: name("/ls/dev/none"), ..guard.clone() },
        Guard { instance: Instance(guard.instance.0 + 1), ..guard.clone() },
        Guard { mode: Shared, ..guard.clone() },
        Guard { lock_generation: Generation(generation - 1), ..guard.clone() },
        Guard { lock_generation: Generation(generation + 1), ..guard.clone() },
    ] {
        assert_stands(&mut world, &wrong, false);
    }
    assert_stands(&mut world, &guard, true);
}

#[test]
fn a_shared_acquisition_stands_until_the_last_holder_is_gone() {
    let (mut world, guard) = world(Shared);
    assert_acquired(&world.acquire(own(2), FILE, 1, Shared));

    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Release { holder: holder.clone() });
    assert_stands(&mut world, &guard, true);
    world.write(own(2), Write::Release { holder });
    assert_stands(&mut world, &guard, false);
}

#[test]
fn a_lock_that_is_lost_and_barred_does_not_stand() {
    let (mut world, guard) = world(Exclusive);
    world.session(3, Role::Client);

    world.end(1, EndCause::Failed);

    assert_eq!(world.delays().len(), 1);
    assert!(!world.state.sequencer_stands(&guard));
}

#[test]
fn the_guard_is_looked_at_before_the_node() {
    let (mut world, guard) = world(Exclusive);
    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Release { holder });

    let gone = Holder { instance: Instance(999), ..world.handle(OTHER, 1) };
    let outcome = guarded(&mut world, &guard, set(gone, "x"));

    assert_failed(&outcome, &ErrorCode::SequencerInvalid, "lock of /ls/dev/f");
}

#[test]
fn a_write_that_was_done_keeps_its_answer_when_its_guard_has_fallen() {
    let (mut world, guard) = world(Exclusive);
    let write = set(world.handle(OTHER, 1), "x");
    let first = guarded_as(&mut world, &guard, 50, write.clone());
    let holder = world.handle(FILE, 1);
    world.write_as(own(1), 51, 0, Write::Release { holder });

    assert_eq!(guarded_as(&mut world, &guard, 50, write.clone()), first, "P-ONCE");
    let refused = guarded_as(&mut world, &guard, 52, write.clone());
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    assert_eq!(guarded_as(&mut world, &guard, 52, write), refused, "a refusal is kept too");
}
