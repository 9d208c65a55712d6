//! A replica that comes back without its disk.

use std::time::Duration;

use hasp_rt::disk::Disk as _;

use super::super::Standing;
use super::world::{World, names};

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_disk_catches_up_and_is_a_member_again() {
    let mut world = World::founded(3).await;
    for item in names(0..30) {
        world.put(&item).await;
    }
    let follower = world.follower().await;
    world.lose_disk(follower).await;

    world.start(follower).await;

    world.until("rebuilt", |world| world.replica(follower).status().standing == Standing::Member).await;
    assert_eq!(world.items(follower), names(0..30));
    let left = world.hosts[&follower].files.list("/data".as_ref()).await.unwrap();
    assert_eq!(left, ["replica.toml"]);
    world.put("after").await;
}

#[tokio::test(start_paused = true)]
async fn the_former_leader_may_lose_its_disk_too() {
    let mut world = World::founded(3).await;
    for item in names(0..30) {
        world.put(&item).await;
    }
    let (leader, _) = world.leader().await;
    world.lose_disk(leader).await;

    world.start(leader).await;

    world.until("rebuilt", |world| world.replica(leader).status().standing == Standing::Member).await;
    world.until_all_have(&names(0..30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_its_disk_neither_votes_nor_founds_while_no_leader_answers() {
    let mut world = World::founded(3).await;
    world.put("kept").await;
    let (leader, _) = world.leader().await;
    let [lost, kept] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    world.until_all_have(&["kept".to_owned()]).await;
    // The leader is gone; one of its followers lost its disk, and the other cannot win without its vote.
    world.crash(leader).await;
    world.lose_disk(lost).await;

    world.start(lost).await;
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(world.leader_now(), None);
    assert_eq!(world.replica(lost).status().standing, Standing::Rebuilding { accepted: false });
    let marked = world.hosts[&lost].files.list("/data".as_ref()).await.unwrap();
    assert_eq!(marked, ["rebuilding", "replica.toml"]);

    world.start(leader).await;
    world.until("rebuilt", |world| world.replica(lost).status().standing == Standing::Member).await;
    world.until_all_have(&["kept".to_owned()]).await;
    assert_eq!(world.items(kept), ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_goes_on_after_a_crash_in_the_middle_of_it() {
    let mut world = World::founded(3).await;
    for item in names(0..30) {
        world.put(&item).await;
    }
    let follower = world.follower().await;
    world.lose_disk(follower).await;
    world.start(follower).await;
    world.until("rebuilding", |world| world.replica(follower).status().standing != Standing::Empty).await;

    world.crash(follower).await;
    world.start(follower).await;

    world.until("rebuilt", |world| world.replica(follower).status().standing == Standing::Member).await;
    world.until_all_have(&names(0..30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_disk_gets_the_snapshot_when_the_log_is_purged() {
    let mut world = World::new(3);
    world.config.snapshot_after = 20;
    world.config.keep_after_snapshot = 5;
    world.start_all().await;
    let follower = world.follower().await;
    for item in names(0..100) {
        world.put(&item).await;
    }
    let (leader, _) = world.leader().await;
    let purged =
        |world: &World| world.replica(leader).status().purged.is_some_and(|purged| purged.index > 50);
    world.until("purged log", purged).await;
    world.lose_disk(follower).await;

    world.start(follower).await;

    world.until("rebuilt", |world| world.replica(follower).status().standing == Standing::Member).await;
    assert!(world.replica(follower).status().snapshot.is_some(), "the log alone does not reach back");
    world.put("after").await;
    let mut all = names(0..100);
    all.push("after".to_owned());
    world.until_all_have(&all).await;

    // What it got is on its own disk: it comes back with it alone.
    world.crash(follower).await;
    for id in (1..=3).filter(|id| *id != follower) {
        world.crash(id).await;
    }
    world.start(follower).await;
    assert!(world.items(follower).len() >= 100 - 5, "{} items", world.items(follower).len());
    for id in (1..=3).filter(|id| *id != follower) {
        world.start(id).await;
    }
    world.until_all_have(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_cell_whose_disks_are_replaced_one_after_the_other_keeps_everything() {
    let mut world = World::new(3);
    world.config.snapshot_after = 20;
    world.config.keep_after_snapshot = 5;
    world.start_all().await;
    let mut all = Vec::new();
    for id in 1..=3 {
        for item in names(all.len()..all.len() + 40) {
            world.put(&item).await;
            all.push(item);
        }
        world.lose_disk(id).await;
        world.start(id).await;
        world.until("rebuilt", |world| world.replica(id).status().standing == Standing::Member).await;
    }

    world.until_all_have(&all).await;
}
