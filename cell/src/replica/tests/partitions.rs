//! Replicas that cannot hear one another, and what is left of their connections.

use std::time::Duration;

use bytes::Bytes;

use super::super::ProposeError;
use super::world::{World, names};

#[tokio::test(start_paused = true)]
async fn an_isolated_leader_loses_its_lease_before_another_leads() {
    let world = World::founded(3).await;
    for item in names(0..10) {
        world.put(&item).await;
    }
    let (old, token) = world.leader().await;

    world.cuts.isolate(old, 3);
    let lease_end = world.replica(old).lease_end().unwrap();
    let (new, _) = world.leader().await;

    assert_ne!(new, old);
    assert!(tokio::time::Instant::now() >= lease_end);
    let late = world.replica(old).propose(token, Bytes::from_static(b"late")).await;
    assert!(matches!(late, Err(ProposeError::LeaseExpired | ProposeError::NotLeader { .. })), "{late:?}");

    for item in names(10..20) {
        world.put(&item).await;
    }
    world.cuts.mend();
    world.until_all_have(&names(0..20)).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_under_way_when_its_leader_is_isolated_is_unknown_not_lost_in_silence() {
    let world = World::founded(3).await;
    let (old, token) = world.leader().await;

    world.cuts.isolate(old, 3);
    let under_way = world.replica(old).propose(token, Bytes::from_static(b"under way"));
    world.leader().await;
    world.put("other").await;
    world.cuts.mend();

    assert_eq!(under_way.await, Err(ProposeError::Unknown));
    world.until_all_have(&["other".to_owned()]).await;
}

#[tokio::test(start_paused = true)]
async fn an_isolated_follower_catches_up_without_an_election() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let follower = world.follower().await;

    world.cuts.isolate(follower, 3);
    for item in names(0..50) {
        world.put(&item).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.cuts.mend();

    world.until_all_have(&names(0..50)).await;
    // Pre-vote: what it tried while it was alone has disturbed nobody.
    assert_eq!(world.leader().await, (leader, token));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_count_for_what_was_sent_after_it() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let followers = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>();
    let [first, second] = followers[..] else { panic!("{followers:?}") };
    let heartbeat = world.timing().heartbeat;

    // Both get an entry and answer at once, but the answers are slow. Then they get nothing any more.
    world.cuts.hold(first, leader);
    world.cuts.hold(second, leader);
    let proposed = world.replica(leader).propose(token, Bytes::from_static(b"entry"));
    tokio::time::sleep(heartbeat / 10).await;
    world.cuts.hold(leader, first);
    world.cuts.hold(leader, second);
    let heard_last = tokio::time::Instant::now();
    tokio::time::sleep(heartbeat * 3).await;

    // The first answer commits the entry. The leader tells both of that; only then the second answer comes.
    world.cuts.release(first, leader);
    proposed.await.unwrap();
    tokio::time::sleep(heartbeat / 2).await;
    world.cuts.release(second, leader);
    tokio::time::sleep(heartbeat / 10).await;

    let lease_end = world.replica(leader).lease_end().unwrap();
    assert!(
        lease_end <= heard_last + world.timing().election_max,
        "the lease goes on for {:?} after the followers', who may elect another then",
        lease_end - heard_last - world.timing().election_max
    );
}
