//! What a master counts of what it is asked.

use super::*;

/// Reads and writes of a directory so far, at a rate of one per ten seconds each.
fn asked(world: &World, directory: &str) -> (u64, u64) {
    let measured = world.core.load(world.now);
    let rates = measured.directories.get(directory).copied().unwrap_or_default();
    let seconds = (world.now.as_micros() as f64 / 1e6).clamp(1.0, 10.0);
    ((rates.reads * seconds).round() as u64, (rates.writes * seconds).round() as u64)
}

#[test]
fn requests_count_for_the_directory_of_their_node() {
    let mut world = World::serving();
    world.client(1);
    assert_eq!(asked(&world, "/ls/dev"), (0, 0), "admissions are no requests");

    let handle = world.open(1, "/ls/dev/f");
    let before = asked(&world, "/ls/dev");
    world.ask(1, set(&handle, "x"));
    world.commit();
    let (reads, writes) = asked(&world, "/ls/dev");
    assert_eq!((reads, writes), (before.0, before.1 + 1));

    world.ask(1, Op::GetStat(handle.clone()));
    world.ask(1, Op::Acquire(handle, LockMode::Exclusive));
    world.commit();
    assert_eq!(asked(&world, "/ls/dev"), (reads + 1, writes + 1));
}

#[test]
fn what_is_refused_at_once_does_not_count() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    let before = asked(&world, "/ls/dev");

    world.ask(1, Op::ReadDir(handle));
    assert_eq!(asked(&world, "/ls/dev"), before, "a file has no children");
}

#[test]
fn the_next_mastership_begins_anew() {
    let mut world = World::serving();
    world.client(1);
    world.open(1, "/ls/dev/f");
    assert!(!world.core.load(world.now).directories.is_empty());

    assert_eq!(world.core.load(world.now + Duration::from_secs(60)).over, Duration::from_secs(10));

    world.input(Input::Deposed(Some(2)));
    assert_eq!(world.core.load(world.now), Measured::default());
}
