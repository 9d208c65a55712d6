//! Snapshots, and what comes after them.

use hasp_rt::disk::Disk as _;

use super::super::StartError;
use super::world::{World, names};

/// A cell that takes a snapshot every 20 entries and keeps few entries behind it.
async fn founded() -> World {
    let mut world = World::new(3);
    world.config.snapshot_after = 20;
    world.config.keep_after_snapshot = 5;
    world.start_all().await;
    world.leader().await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_log_is_purged_behind_a_snapshot() {
    let world = founded().await;

    for item in names(0..100) {
        world.put(&item).await;
    }

    world
        .until("purged logs", |world| {
            (1..=3).all(|id| world.replica(id).status().purged.is_some_and(|purged| purged.index > 50))
        })
        .await;
    for id in 1..=3 {
        let kept = world.hosts[&id].files.list("/data/snapshots".as_ref()).await.unwrap();
        assert_eq!(kept.len(), 1, "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_restarts_from_its_snapshot_and_log() {
    let mut world = founded().await;
    for item in names(0..110) {
        world.put(&item).await;
    }
    world.until_all_have(&names(0..110)).await;

    for id in 1..=3 {
        world.crash(id).await;
    }
    world.start_all().await;

    world.until_all_have(&names(0..110)).await;
    assert_eq!(world.put("more").await, 111);
}

#[tokio::test(start_paused = true)]
async fn a_follower_far_behind_gets_the_leaders_snapshot() {
    let mut world = founded().await;
    let follower = world.follower().await;
    world.crash(follower).await;
    for item in names(0..200) {
        world.put(&item).await;
    }
    let (leader, _) = world.leader().await;
    world
        .until("purged log", |world| {
            world.replica(leader).status().purged.is_some_and(|purged| purged.index > 100)
        })
        .await;

    world.start(follower).await;

    world.until_all_have(&names(0..200)).await;
    assert!(world.replica(follower).status().snapshot.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_an_error_that_names_the_file() {
    let mut world = founded().await;
    for item in names(0..100) {
        world.put(&item).await;
    }
    world.until("snapshot", |world| world.replica(1).status().snapshot.is_some()).await;
    world.crash(1).await;
    let files = world.hosts[&1].files.clone();
    let name = files.list("/data/snapshots".as_ref()).await.unwrap().pop().unwrap();
    let path = std::path::Path::new("/data/snapshots").join(name);
    let mut contents = files.read(&path).await.unwrap().to_vec();
    let middle = contents.len() / 2;
    contents[middle] ^= 1;
    files.replace(&path, contents.into()).await.unwrap();

    let refused = world.try_start(1).await.err().unwrap();

    assert!(matches!(refused, StartError::Snapshot(_)));
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
}
