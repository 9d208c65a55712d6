//! A leader whose disk lags its followers', crashes and is back before anybody else stands for election.
//!
//! It replicates before its own fsync, so its followers commit what its crash then loses. If it went on as leader in
//! its old term it would hand out the same indices again, and acknowledged entries would be overwritten.

use std::time::Duration;

use super::world::{World, names};

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_its_tail_and_returns_at_once_loses_no_acknowledged_entry() {
    for down in [0, 20, 100, 300] {
        let mut world = World::founded(3).await;
        for item in names(0..10) {
            world.put(&item).await;
        }
        world.until_all_have(&names(0..10)).await;
        let (leader, _) = world.leader().await;

        world.hosts[&leader].log.set_sync_delay(Duration::from_secs(60));
        for item in names(10..40) {
            world.put(&item).await;
        }
        assert_eq!(
            world.leader().await.0,
            leader,
            "the leader stayed, so its followers committed without its disk"
        );
        world.crash(leader).await;
        world.hosts[&leader].log.set_sync_delay(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(down)).await;
        world.start(leader).await;

        for item in names(40..60) {
            world.put(&item).await;
        }
        world.until_all_have(&names(0..60)).await;
    }
}
