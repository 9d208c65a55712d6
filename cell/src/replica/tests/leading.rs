//! Proposals, mastery, leases and hand-over.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::super::{ENTRY_BYTES_MAX, HandOverError, Mastery, ProposeError};
use super::world::{POISON, World, names};

#[tokio::test(start_paused = true)]
async fn entries_apply_in_the_order_of_the_calls() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let proposals: Vec<_> =
        names(0..2_000).into_iter().map(|item| world.replica(leader).propose(token, item.into())).collect();

    // Polled in no order at all: the calls have fixed it.
    let outcomes = join_all(proposals.into_iter().rev()).await;

    let numbers: Vec<usize> = outcomes.into_iter().rev().map(|outcome| outcome.unwrap()[0]).collect();
    assert_eq!(numbers, (1..=2_000).collect::<Vec<_>>());
    world.until_all_have(&names(0..2_000)).await;
}

#[tokio::test(start_paused = true)]
async fn large_entries_go_through_in_batches() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let proposals: Vec<_> = (0..20).map(|_| world.replica(leader).propose(token, large.clone())).collect();

    for outcome in join_all(proposals).await {
        outcome.unwrap();
    }
    world.until("all large entries everywhere", |world| (1..=3).all(|id| world.items(id).len() == 20)).await;

    let too_large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    let refused = world.replica(leader).propose(token, too_large).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes: ENTRY_BYTES_MAX + 1 }));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_earlier_mastery_is_refused() {
    let mut world = World::founded(3).await;
    let (first, old) = world.leader().await;
    world.crash(first).await;
    let (second, new) = world.leader().await;
    assert!(new > old);

    let refused = world.replica(second).propose(old, Bytes::from_static(b"late")).await;

    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    world.start(first).await;
    world.put("fresh").await;
    world.until_all_have(&["fresh".to_owned()]).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_proposals_and_names_the_leader() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let follower = world.follower().await;

    let refused = world.replica(follower).propose(token, Bytes::from_static(b"no")).await;

    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
}

#[tokio::test(start_paused = true)]
async fn a_leader_shows_itself_only_with_everything_applied() {
    let mut world = World::founded(3).await;
    for item in names(0..50) {
        world.put(&item).await;
    }
    let (first, _) = world.leader().await;
    world.crash(first).await;

    let (second, _) = world.leader().await;

    assert_eq!(world.items(second), names(0..50));
}

#[tokio::test(start_paused = true)]
async fn the_lease_goes_on_while_a_quorum_answers_and_ends_without_one() {
    let mut world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(world.replica(leader).lease_end().unwrap() > tokio::time::Instant::now());

    for id in (1..=3).filter(|id| *id != leader) {
        world.crash(id).await;
    }
    tokio::time::sleep(world.timing().election_max).await;

    let ended = world.replica(leader).lease_end().is_none_or(|end| end <= tokio::time::Instant::now());
    assert!(ended);
    let refused = world.replica(leader).propose(token, Bytes::from_static(b"alone")).await;
    assert!(
        matches!(refused, Err(ProposeError::LeaseExpired | ProposeError::NotLeader { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_ends_mastery_at_once_and_another_leads_soon() {
    let world = World::founded(3).await;
    world.put("before").await;
    let (first, token) = world.leader().await;
    let began = tokio::time::Instant::now();

    let second = world.replica(first).hand_over().await.unwrap();

    assert_ne!(first, second);
    assert!(began.elapsed() < world.timing().election_min, "{:?}", began.elapsed());
    assert_eq!(world.replica(first).lease_end(), None);
    let refused = world.replica(first).propose(token, Bytes::from_static(b"late")).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    world.put("after").await;
    world.until_all_have(&["before".to_owned(), "after".to_owned()]).await;
}

#[tokio::test(start_paused = true)]
async fn handing_over_without_a_follower_is_refused() {
    let world = World::founded(1).await;

    assert_eq!(world.replica(1).hand_over().await, Err(HandOverError::NoFollower));
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_takes_the_replica_out_of_service() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;

    world.hosts[&leader].log.fail();
    let _outcome = world.replica(leader).propose(token, Bytes::from_static(b"one")).await;

    world
        .until("dead leader", |world| {
            matches!(*world.replica(leader).mastery().borrow(), Mastery::Dead { .. })
        })
        .await;
    let Mastery::Dead { reason } = world.replica(leader).mastery().borrow().clone() else { unreachable!() };
    assert!(reason.contains("the simulated disk is broken"), "{reason}");
    assert_eq!(world.replica(leader).lease_end(), None);
    let refused = world.replica(leader).propose(token, Bytes::from_static(b"two")).await;
    assert!(matches!(refused, Err(ProposeError::Dead { .. })), "{refused:?}");
    assert_ne!(world.leader().await.0, leader, "the others go on");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_decoded_takes_the_replica_out_of_service() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;

    let outcome = world.replica(leader).propose(token, Bytes::from_static(POISON)).await;

    assert_eq!(outcome, Err(ProposeError::Unknown));
    world
        .until("dead leader", |world| {
            matches!(*world.replica(leader).mastery().borrow(), Mastery::Dead { .. })
        })
        .await;
    let Mastery::Dead { reason } = world.replica(leader).mastery().borrow().clone() else { unreachable!() };
    assert!(reason.contains("poisoned entry"), "{reason}");
}
