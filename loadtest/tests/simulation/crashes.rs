//! Replicas lose their power.

use std::time::Duration;

use crate::clients::{APPENDED, Applicant, REPLACED, Writer, together};
use crate::history::{Answer, check_appended, check_generations_chain, check_read_your_writes};
use crate::journal::Pages;
use crate::seeds::for_seeds;
use crate::world::{World, address};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three clients behind the proxy and two with the cell itself, all on one host.
pub fn add_writers(world: &mut World) {
    let replicas = replicas(world);
    let behind = std::iter::repeat_n(vec![address("proxy-1")], 3);
    add_applications(world, behind.chain(std::iter::repeat_n(replicas, 2)).collect());
}

/// Four clients with the same targets.
pub fn add_writers_at(world: &mut World, targets: &[String]) {
    add_applications(world, vec![targets.to_vec(); 4]);
}

fn replicas(world: &World) -> Vec<String> {
    world.replica_names().iter().map(|name| address(name)).collect()
}

/// One host with a client for each of the lists of targets.
fn add_applications(world: &mut World, targets: Vec<Vec<String>>) {
    let (journal, replicas) = (world.journal.clone(), replicas(world));
    world.add_clients("applications", move |env| async move {
        let writers = (1..).zip(targets).map(|(number, targets)| {
            let who = Applicant::new(number, targets, journal.clone());
            let env = env.child("writer");
            async move { Writer::begin(env, who).await?.work().await }
        });
        together(writers).await?;
        // Whoever comes last sees what is left.
        let last = Writer::begin(env.child("last"), Applicant::new(99, replicas, journal)).await?;
        last.read(APPENDED).await;
        last.read(REPLACED).await;
        Ok(())
    });
}

/// All that must hold of what the writers were told.
pub fn check_writers(seed: u64, pages: &Pages, writes_min: usize) {
    let check = |result: Result<(), String>| result.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    check(check_generations_chain(&pages.operations));
    check(check_read_your_writes(&pages.operations));
    let last = pages.operations.iter().rev().find_map(|operation| match &operation.end {
        Some((_, Answer::Read { contents, .. })) if operation.file == APPENDED => Some(contents.as_str()),
        _ => None,
    });
    check(check_appended(&pages.operations, APPENDED, last.expect("the last client read it")));
    let is_written = |end: &_| matches!(end, Some((_, Answer::Written { .. })));
    let writes = pages.operations.iter().filter(|operation| is_written(&operation.end)).count();
    println!("seed {seed}: {} operations, {writes} writes, {:?}", pages.operations.len(), pages.notes);
    assert!(pages.problems.is_empty(), "seed {seed}: {:#?}", pages.problems);
    assert!(writes >= writes_min, "seed {seed}: only {writes} writes");
}

#[test]
fn acknowledged_writes_survive_a_master_crash() {
    for_seeds([1, 2], |seed| {
        let mut world = World::new(seed, 3, 1);
        add_writers(&mut world);
        world.some_master();
        world.run_for(s(3));

        for _ in 0..2 {
            let master = world.some_master();
            // Its followers commit what its own disk does not have yet.
            let delay = world.millis(0, 3_000);
            world.slow_disk(&master, delay);
            let pause = world.millis(200, 2_000);
            world.run_for(pause);
            world.cut_power(&master);
            let pause = world.millis(50, 6_000);
            world.run_for(pause);
            world.start(&master);
            let pause = world.millis(500, 6_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(20));
        check_writers(seed, &pages, 50);
    });
}

#[test]
fn all_replicas_crash_and_come_back() {
    for_seeds([1, 2], |seed| {
        let mut world = World::new(seed, 3, 1);
        add_writers(&mut world);
        world.some_master();
        world.run_for(s(5));

        for _ in 0..2 {
            for replica in world.replica_names() {
                let delay = world.millis(0, 100);
                world.slow_disk(&replica, delay);
            }
            let pause = world.millis(500, 1_500);
            world.run_for(pause);
            for replica in world.replica_names() {
                world.cut_power(&replica);
                let pause = world.millis(0, 20);
                world.run_for(pause);
            }
            let pause = world.millis(500, 5_000);
            world.run_for(pause);
            for replica in world.replica_names() {
                world.start(&replica);
                let pause = world.millis(0, 1_000);
                world.run_for(pause);
            }
            let pause = world.millis(2_000, 6_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(20));
        check_writers(seed, &pages, 50);
    });
}
