//! A proxy dies and its clients go on at the next.

use std::time::Duration;

use hasp_client::{LockMode, OpenOptions};

use crate::clients::{Applicant, LOCK, connect};
use crate::crashes::{add_writers_at, check_writers};
use crate::seeds::for_seeds;
use crate::world::{World, address};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Holds the lock all the time, and notes what becomes of it.
fn add_holder(world: &mut World, targets: Vec<String>) {
    let who = Applicant::new(50, targets, world.journal.clone());
    world.add_clients("holder", move |env| async move {
        let client = connect(&env, &who).await?;
        let handle = client.open(LOCK, OpenOptions::create_file("")).await?.handle;
        let before = handle.acquire(LockMode::Exclusive).await?.lock_generation;
        while !who.journal.is_stopping() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            handle.get_stat().await?;
            who.journal.success(who.number);
        }
        let after = handle.get_stat().await?.stat.lock_generation;
        let kept = if before == after { "kept" } else { "given away" };
        match handle.release().await {
            Ok(_) => who.journal.note(format!("the lock was {kept} and then released")),
            Err(error) => who.journal.note(format!("the lock was {kept}, release said {error}")),
        }
        Ok(())
    });
}

#[test]
fn a_client_moves_to_the_next_proxy_when_its_proxy_dies() {
    for_seeds([1], |seed| {
        let mut world = World::new(seed, 3, 2);
        let targets = vec![address("proxy-1"), address("proxy-2")];
        add_writers_at(&mut world, &targets);
        add_holder(&mut world, targets);
        world.some_master();
        world.run_for(s(4));

        for (dies, next) in [("proxy-1", "proxy-2"), ("proxy-2", "proxy-1")] {
            if world.below(2) == 0 {
                world.kill(dies);
            } else {
                world.cut_power(dies);
            }
            // It stays away until everybody has found the other one.
            let pause = world.millis(12_000, 16_000);
            world.run_for(pause);
            let at = world.now();
            let answered = world.journal.read().last_success;
            for (client, last) in answered {
                assert!(last.0 + 2_000 > at.0, "seed {seed}: client {client} has not reached {next} at {at}");
            }
            world.start(dies);
            let pause = world.millis(1_000, 3_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(8));
        check_writers(seed, &pages, 50);
    });
}
