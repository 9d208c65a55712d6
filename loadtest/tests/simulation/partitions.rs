//! The master is cut off from its peers.

use std::time::Duration;

use crate::clients::{APPENDED, Applicant, REPLACED, Writer, together};
use crate::crashes::check_writers;
use crate::journal::Journal;
use crate::seeds::for_seeds;
use crate::world::{World, address};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A client on a host of its own. Readers read and hardly write.
pub fn add_client(world: &mut World, host: &str, number: usize, targets: Vec<String>, is_reader: bool) {
    let who = Applicant::new(number, targets, world.journal.clone());
    world.add_clients(host, move |env| async move {
        let journal = who.journal.clone();
        let mut writer = Writer::begin(env.clone(), who.clone()).await?;
        if !is_reader {
            together([writer.work()]).await?;
            return look_once_more(env, who).await;
        }
        while !journal.is_stopping() {
            let file = if writer.rng.below(2) == 0 { REPLACED } else { APPENDED };
            writer.read(file).await;
            writer.pause(30).await;
        }
        Ok(())
    });
}

async fn look_once_more(env: hasp_client::Env, who: Applicant) -> turmoil::Result {
    let last = Writer::begin(env, Applicant { number: 99, ..who }).await?;
    last.read(APPENDED).await;
    last.read(REPLACED).await;
    Ok(())
}

fn reads_by(journal: &Journal, clients: &[usize], after: u64) -> usize {
    let pages = journal.read();
    pages
        .operations
        .iter()
        .filter(|operation| {
            clients.contains(&operation.client) && operation.begun.0 >= after && operation.end.is_some()
        })
        .count()
}

#[test]
fn a_partitioned_master_serves_no_stale_read() {
    for_seeds([1], |seed| {
        let mut world = World::new(seed, 3, 2);
        let replicas: Vec<String> = world.replica_names().iter().map(|name| address(name)).collect();
        add_client(&mut world, "reader", 1, replicas.clone(), true);
        add_client(&mut world, "reader-behind", 2, vec![address("proxy-1")], true);
        add_client(&mut world, "writer", 3, replicas, false);
        add_client(&mut world, "writer-behind", 4, vec![address("proxy-2")], false);
        world.some_master();
        world.run_for(s(4));

        for _ in 0..2 {
            let master = world.some_master();
            let mut cut = world.replica_names();
            // Half of the time the writers see at once that the master is gone, else they stay with it.
            if world.below(2) == 0 {
                cut.extend(["writer".to_owned(), "proxy-2".to_owned()]);
            }
            let begun = world.now();
            world.cut_off(&master, &cut);
            let isolation = world.millis(3_000, 16_000);
            world.run_for(isolation);
            assert!(reads_by(&world.journal, &[1, 2], begun.0) > 0, "seed {seed}: nobody read");
            world.mend(&master);
            let pause = world.millis(1_000, 5_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(20));
        check_writers(seed, &pages, 30);
    });
}
