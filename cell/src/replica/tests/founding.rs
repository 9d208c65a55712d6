//! A cell comes to be once, by all its replicas together.

use std::time::Duration;

use super::super::{Standing, StartError};
use super::world::{World, address, names};

#[tokio::test(start_paused = true)]
async fn three_empty_replicas_found_a_cell_and_agree() {
    let world = World::founded(3).await;

    for item in names(0..5) {
        world.put(&item).await;
    }

    world.until_all_have(&names(0..5)).await;
    for id in 1..=3 {
        assert_eq!(world.replica(id).status().standing, Standing::Member);
        assert_eq!(world.replica(id).status().members.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn founding_needs_no_hold_on_votes() {
    let began = tokio::time::Instant::now();

    let world = World::founded(3).await;

    assert!(began.elapsed() < world.timing().election_max, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cell_of_one_founds_itself() {
    let world = World::founded(1).await;

    assert_eq!(world.put("alone").await, 1);
    assert!(world.replica(1).lease_end().is_some());
}

#[tokio::test(start_paused = true)]
async fn no_cell_is_founded_before_all_replicas_are_there() {
    let mut world = World::new(3);
    world.start(1).await;
    world.start(2).await;

    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.leader_now(), None);
    assert_eq!(world.replica(1).status().standing, Standing::Empty);

    world.start(3).await;
    world.leader().await;
}

#[tokio::test(start_paused = true)]
async fn founding_survives_a_crash_at_any_moment() {
    for millis in [0, 100, 120, 150, 300] {
        for victim in 1..=3 {
            let mut world = World::new(3);
            world.start_all().await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            world.crash(victim).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.start(victim).await;

            world.put("after").await;
            world.until_all_have(&["after".to_owned()]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_founds_a_cell_with_a_stranger_behind_an_address() {
    let mut world = World::new(3);
    // Both addresses lead to replica 2, as after a mistake in the configuration.
    world.config.peers.insert(3, address(2));
    world.start(1).await;
    world.start(2).await;

    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(world.replica(1).status().standing, Standing::Empty);
    assert_eq!(world.leader_now(), None);
}

#[tokio::test(start_paused = true)]
async fn another_replicas_directory_is_refused() {
    let mut world = World::founded(3).await;
    world.crash(1).await;
    world.crash(2).await;
    world.hosts.get_mut(&1).unwrap().files = world.hosts[&2].files.clone();

    let refused = world.try_start(1).await.err().unwrap();

    assert!(matches!(refused, StartError::Identity(_)));
    assert!(refused.to_string().contains("replica 2 of cell \"a\", not of replica 1"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_log_without_an_identity_is_refused() {
    let mut world = World::founded(3).await;
    world.crash(1).await;
    world.hosts.get_mut(&1).unwrap().files = World::new(1).hosts[&1].files.clone();

    let refused = world.try_start(1).await.err().unwrap();

    assert!(matches!(refused, StartError::Nameless { .. }), "{refused}");
}
