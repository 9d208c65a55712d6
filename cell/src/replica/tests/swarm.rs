//! Random crashes, cuts, slow disks and hand-overs; whatever was acknowledged stays.

use std::time::Duration;

use bytes::Bytes;
use hasp_rt::rng::{Rng, Seeds};

use super::super::ProposeError;
use super::world::World;

const REPLICAS: u64 = 3;
const STEPS: usize = 40;

#[tokio::test(start_paused = true)]
async fn acknowledged_entries_survive_random_faults() {
    for seed in 0..3 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut rng = Seeds::from_seed(seed).stream("swarm");
    let mut world = World::new(REPLICAS);
    world.config.snapshot_after = 50;
    world.config.keep_after_snapshot = 10;
    world.start_all().await;
    world.leader().await;
    let mut acknowledged = Vec::new();
    for step in 0..STEPS {
        fault(&mut world, &mut rng).await;
        write(&world, step, &mut acknowledged).await;
        tokio::time::sleep(Duration::from_millis(rng.below(700))).await;
    }

    world.cuts.mend();
    for id in 1..=REPLICAS {
        world.hosts[&id].log.set_sync_delay(Duration::ZERO);
        if !world.is_running(id) {
            world.start(id).await;
        }
    }
    world.put("last").await;
    let (leader, _) = world.leader().await;
    let items = world.items(leader);
    world.until_all_have(&items).await;
    let mut found = items.iter();
    for item in &acknowledged {
        assert!(found.any(|candidate| candidate == item), "seed {seed}: {item} is missing or out of order");
    }
    let mut unique = items.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), items.len(), "seed {seed}: an entry was applied twice");
}

async fn fault(world: &mut World, rng: &mut Rng) {
    let id = 1 + rng.below(REPLICAS);
    let all_run = (1..=REPLICAS).all(|id| world.is_running(id));
    match rng.below(7) {
        0 | 1 if all_run => world.crash(id).await,
        0..=2 => {
            for id in 1..=REPLICAS {
                if !world.is_running(id) {
                    world.start(id).await;
                }
            }
        }
        3 => world.hosts[&id].log.set_sync_delay(Duration::from_millis(rng.below(400))),
        4 => world.cuts.isolate(id, REPLICAS),
        5 => world.cuts.mend(),
        _ => {
            if let Some((leader, _)) = world.leader_now() {
                let _taken_or_not = world.replica(leader).hand_over(&[]).await;
            }
        }
    }
}

/// Proposes a few entries once, and notes those that were acknowledged. Each is proposed only once, so none may show
/// up twice.
async fn write(world: &World, step: usize, acknowledged: &mut Vec<String>) {
    let Some((leader, token)) = world.leader_now() else { return };
    let items: Vec<String> = (0..8).map(|number| format!("{step}-{number}")).collect();
    let proposals: Vec<_> = items
        .iter()
        .map(|item| world.replica(leader).propose(token, Bytes::copy_from_slice(item.as_bytes())))
        .collect();
    for (item, proposal) in items.into_iter().zip(proposals) {
        match tokio::time::timeout(Duration::from_secs(3), proposal).await {
            Ok(Ok(_)) => acknowledged.push(item),
            Ok(Err(ProposeError::TooLarge { .. } | ProposeError::Overloaded)) => panic!("cannot be"),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
