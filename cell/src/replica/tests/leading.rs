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

    let second = world.replica(first).hand_over(&[]).await.unwrap();

    assert_ne!(first, second);
    assert!(began.elapsed() < world.timing().election_min, "{:?}", began.elapsed());
    assert_eq!(world.replica(first).lease_end(), None);
    let refused = world.replica(first).propose(token, Bytes::from_static(b"late")).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    world.put("after").await;
    world.until_all_have(&["before".to_owned(), "after".to_owned()]).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_cannot_take_over_is_passed_over_for_another() {
    let mut world = World::founded(3).await;
    let (leader, _) = world.leader().await;
    let [gone, there] = others(leader);
    // In a tie the lower id is asked first: make the one that is asked first the one that is gone.
    world.cuts.isolate(gone, 3);
    let began = tokio::time::Instant::now();

    let successor = world.replica(leader).hand_over(&[]).await.unwrap();

    assert_eq!(successor, there);
    // A quarter of the lease for the one that does not answer, and less than it takes to miss a leader.
    assert!(began.elapsed() >= world.timing().election_max / 4, "{:?}", began.elapsed());
    assert!(began.elapsed() < world.timing().election_max / 4 + world.timing().election_min / 2);
    world.cuts.mend();
    world.crash(gone).await;
    world.start(gone).await;
    world.put("after").await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_holds_its_vote_after_a_start_is_passed_over_for_another() {
    let mut world = World::founded(3).await;
    let (leader, _) = world.leader().await;
    let [restarted, there] = others(leader);
    world.crash(restarted).await;
    world.start(restarted).await;
    world.put("seen by all").await;
    world.until_all_have(&["seen by all".to_owned()]).await;
    let began = tokio::time::Instant::now();

    let successor = world.replica(leader).hand_over(&[]).await.unwrap();

    assert_eq!(successor, there);
    assert!(began.elapsed() < world.timing().election_min, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_would_have_to_be_passed_over_is_found_out_before_the_hand_over() {
    let mut world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    let [restarted, there] = others(leader);
    assert_eq!(world.replica(leader).willing_successors().await, [restarted, there]);
    world.crash(restarted).await;
    assert_eq!(world.replica(leader).willing_successors().await, [there], "gone");
    world.start(restarted).await;
    world.until("an answer", |world| world.replica(restarted).status().applied.is_some()).await;

    let willing = world.replica(leader).willing_successors().await;

    assert_eq!(willing, [there], "holds its vote");
    assert_eq!(world.leader_now(), Some((leader, token)), "asking changes nothing");
    let began = tokio::time::Instant::now();
    assert_eq!(world.replica(leader).hand_over(&willing).await, Ok(there));
    assert!(began.elapsed() < world.timing().heartbeat, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_nobody_takes_ends_in_time_and_leaves_nobody_in_charge() {
    let world = World::founded(3).await;
    let (leader, token) = world.leader().await;
    world.cuts.isolate(leader, 3);
    let began = tokio::time::Instant::now();

    let outcome = world.replica(leader).hand_over(&[]).await;

    let Err(HandOverError::NotTaken { asked }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(asked.len(), 2);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(world.replica(leader).lease_end(), None);
    let refused = world.replica(leader).propose(token, Bytes::from_static(b"late")).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    assert_ne!(world.leader().await.0, leader, "the others elect one of themselves");
}

/// The two that do not lead, the lower id first.
fn others(leader: u64) -> [u64; 2] {
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn handing_over_without_a_follower_is_refused() {
    let world = World::founded(1).await;

    assert_eq!(world.replica(1).hand_over(&[]).await, Err(HandOverError::NoFollower));
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
    assert!(reason.contains("the simulated disk has failed"), "{reason}");
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
