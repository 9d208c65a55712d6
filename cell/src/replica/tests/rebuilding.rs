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
