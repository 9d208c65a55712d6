//! A vote is a promise to the leader of the day, and a crash must not break it.

use super::super::wire::pb;
use super::world::World;

/// Asks replica `to` for its vote in a term far ahead, with a log that nobody can object to.
async fn ask_vote(world: &World, to: u64) -> Result<pb::VoteResponse, tonic::Status> {
    let from = if to == 1 { 2 } else { 1 };
    let link = world.link(from, to);
    let request = pb::VoteRequest {
        addressed: Some(link.addressed()),
        vote: Some(pb::RaftVote { term: 1_000, node: from, committed: false }),
        last_log: Some(pb::LogId { term: 999, index: 1_000_000 }),
        leadership_transfer: false,
    };
    link.call(world.timing().election_min, |mut client| async move { client.vote(request).await }).await
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_its_vote_while_it_hears_the_leader() {
    let world = World::founded(3).await;
    let follower = world.follower().await;

    assert!(!ask_vote(&world, follower).await.unwrap().granted);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_follower_grants_no_vote_within_the_hold() {
    let mut world = World::founded(3).await;
    let follower = world.follower().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    for id in others {
        world.crash(id).await;
    }
    world.crash(follower).await;
    world.start(follower).await;
    let started = tokio::time::Instant::now();

    // Nobody is there to remind it of what it promised.
    let hold = world.timing().vote_hold();
    while started.elapsed() < hold {
        let held = ask_vote(&world, follower).await.unwrap_err();
        assert_eq!(held.code(), tonic::Code::Unavailable, "{held}");
        assert!(held.message().contains("holds its vote"), "{held}");
        tokio::time::sleep(hold / 7).await;
    }

    assert!(ask_vote(&world, follower).await.unwrap().granted);
}

#[tokio::test(start_paused = true)]
async fn no_two_replicas_hold_a_lease_at_once_though_all_but_the_leader_restart() {
    for _ in 0..5 {
        let mut world = World::founded(3).await;
        let (old, _) = world.leader().await;
        // The old leader is cut off while its followers restart and elect another.
        let lease_end = world.replica(old).lease_end().unwrap();
        for id in (1..=3).filter(|id| *id != old) {
            world.crash(id).await;
            world.start(id).await;
        }
        let mut watching = Vec::new();
        for id in (1..=3).filter(|id| *id != old) {
            watching.push(world.replica(id).mastery());
        }

        world
            .until("lease to end", |_| {
                let others_lead = watching
                    .iter()
                    .any(|mastery| matches!(*mastery.borrow(), super::super::Mastery::Leader { .. }));
                assert!(!others_lead, "elected before the old lease ended");
                tokio::time::Instant::now() >= lease_end
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_for_another_replica_or_cell_is_refused() {
    let world = World::founded(3).await;
    let link = world.link(1, 2);
    for (cell, to) in [("a", 3), ("b", 2)] {
        let addressed = Some(pb::Addressed { cell: cell.to_owned(), to, from: 1 });
        let request = pb::FoundRequest { addressed };

        let refused = link
            .call(world.timing().election_min, |mut client| async move { client.found(request).await })
            .await;

        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("this is replica 2 of cell \"a\""), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_cell_that_restarts_elects_again_after_the_hold() {
    let mut world = World::founded(3).await;
    world.put("before").await;
    world.until_all_have(&["before".to_owned()]).await;
    for id in 1..=3 {
        world.crash(id).await;
    }
    world.start_all().await;
    let started = tokio::time::Instant::now();

    world.leader().await;

    assert!(started.elapsed() >= world.timing().vote_hold());
    world.put("after").await;
    world.until_all_have(&["before".to_owned(), "after".to_owned()]).await;
}
