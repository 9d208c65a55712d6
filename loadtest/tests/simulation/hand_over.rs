//! Masters that are restarted on purpose.

use std::time::Duration;

use crate::crashes::{add_writers, check_writers};
use crate::history::{Answer, Moment};
use crate::journal::Pages;
use crate::partitions::add_client;
use crate::seeds::for_seeds;
use crate::world::{World, address};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long after `moment` the first write was acknowledged that began after it, in milliseconds.
fn pause_after(pages: &Pages, moment: Moment) -> Option<u64> {
    let writes = pages.operations.iter().filter(|operation| operation.begun.0 > moment.0);
    let ends = writes.filter_map(|operation| match &operation.end {
        Some((end, Answer::Written { .. })) => Some(end.0 - moment.0),
        _ => None,
    });
    ends.min()
}

#[test]
fn planned_restarts_of_all_replicas_lose_nothing_and_keep_every_session() {
    for_seeds([1], |seed| {
        let mut world = World::new(seed, 3, 1);
        add_writers(&mut world);
        world.some_master();
        world.run_for(s(3));

        let mut stops = Vec::new();
        for _ in 0..2 {
            for replica in world.replica_names() {
                let was_master = world.master().as_ref() == Some(&replica);
                stops.push((world.now(), was_master));
                world.stop(&replica);
                world.run_until("end of the replica", s(10), |world| world.has_stopped(&replica));
                let pause = world.millis(50, 1_500);
                world.run_for(pause);
                world.start(&replica);
                let pause = world.millis(500, 4_000);
                world.run_for(pause);
            }
        }

        let pages = world.finish(s(20));
        check_writers(seed, &pages, 50);
        let pauses: Vec<_> = stops
            .iter()
            .filter(|(_, was_master)| *was_master)
            .map(|(at, _)| pause_after(&pages, *at))
            .collect();
        println!(
            "seed {seed}: {pauses:?} ms from a stop of the master to the next write begun and acknowledged"
        );
        assert!(!pauses.is_empty(), "seed {seed}: no master was restarted");
        assert!(!pages.notes.contains_key("jeopardy"), "seed {seed}: {:?}", pages.notes);
    });
}

#[test]
fn a_master_that_is_cut_off_while_it_hands_over_misleads_nobody() {
    for_seeds([1], |seed| {
        let mut world = World::new(seed, 3, 2);
        let replicas: Vec<String> = world.replica_names().iter().map(|name| address(name)).collect();
        add_client(&mut world, "reader", 1, replicas.clone(), true);
        add_client(&mut world, "reader-behind", 2, vec![address("proxy-1")], true);
        add_client(&mut world, "writer", 3, replicas, false);
        add_client(&mut world, "writer-behind", 4, vec![address("proxy-2")], false);
        world.some_master();
        world.run_for(s(4));

        for _ in 0..4 {
            let master = world.some_master();
            world.stop(&master);
            // It has asked another to take over, and never hears that it did: its readers stay with it.
            let pause = world.millis(20, 120);
            world.run_for(pause);
            let mut cut = world.replica_names();
            cut.extend(["writer".to_owned(), "proxy-2".to_owned()]);
            world.cut_off(&master, &cut);
            world.run_until("end of the old master", s(10), |world| world.has_stopped(&master));
            world.start(&master);
            let pause = world.millis(3_000, 6_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(20));
        check_writers(seed, &pages, 30);
    });
}
