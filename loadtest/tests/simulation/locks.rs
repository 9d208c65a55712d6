//! Clients behind two proxies, and some with the cell itself, want one lock while holders and proxies die.

use std::time::Duration;

use crate::clients::{Applicant, contend, together};
use crate::history::{Hold, check_holders};
use crate::seeds::for_seeds;
use crate::world::{World, address};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Longer than a session lease: else the end of the dead holder's lease alone would seem to have kept it.
const LOCK_DELAY: Duration = s(14);
/// Clients on the host that dies.
const MORTALS: [usize; 2] = [11, 12];

fn add_contenders(world: &mut World, host: &str, numbers: [usize; 2], targets: Vec<String>) {
    let journal = world.journal.clone();
    world.add_clients(host, move |env| async move {
        together(numbers.map(|number| {
            let who = Applicant::new(number, targets.clone(), journal.clone());
            contend(env.child("contender"), who, LOCK_DELAY)
        }))
        .await
    });
}

fn add_mortal_contenders(world: &mut World, targets: Vec<String>) {
    let journal = world.journal.clone();
    world.add_mortal_clients("mortals", move |env| {
        let (targets, journal) = (targets.clone(), journal.clone());
        async move {
            together(MORTALS.map(|number| {
                let who = Applicant::new(number, targets.clone(), journal.clone());
                contend(env.child("contender"), who, LOCK_DELAY)
            }))
            .await
        }
    });
}

/// Waits until one of them holds the lock, kills their host, and waits until somebody else has the lock.
fn kill_a_holder(world: &mut World) {
    let holds = |world: &World| world.journal.holder().is_some_and(|client| MORTALS.contains(&client));
    world.run_until("mortal holder", s(60), holds);
    // Not without a word: the master would still answer the outstanding KeepAlive, and wait out a lease more.
    world.kill("mortals");
    let at = world.now();
    let lost: usize = MORTALS.map(|number| world.journal.died(number, at, LOCK_DELAY)).iter().sum();
    assert_eq!(lost, 1, "seen to hold the lock");
    world.run_until("next holder", s(60), |world| world.journal.holder().is_some());
}

#[test]
fn a_lock_is_never_held_twice() {
    for_seeds([1, 2], |seed| {
        let mut world = World::new(seed, 3, 2);
        let proxies = [address("proxy-1"), address("proxy-2")];
        let replicas: Vec<String> = world.replica_names().iter().map(|name| address(name)).collect();
        let [one, two] = proxies;
        add_contenders(&mut world, "behind-1", [1, 2], vec![one.clone(), two.clone()]);
        add_contenders(&mut world, "behind-2", [3, 4], vec![two, one]);
        add_contenders(&mut world, "direct", [5, 6], replicas.clone());
        add_mortal_contenders(&mut world, replicas);
        world.some_master();
        world.run_for(s(4));

        kill_a_holder(&mut world);
        for proxy in ["proxy-1", "proxy-2"] {
            if world.below(2) == 0 {
                world.kill(proxy);
            } else {
                world.cut_power(proxy);
            }
            let pause = world.millis(100, 8_000);
            world.run_for(pause);
            world.start(proxy);
            let pause = world.millis(2_000, 6_000);
            world.run_for(pause);
        }

        let pages = world.finish(s(20));
        println!("seed {seed}: {} holds, {:?}", pages.holds.len(), pages.notes);
        let checked = check_holders(&pages.holds);
        checked.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        assert!(pages.problems.is_empty(), "seed {seed}: {:#?}", pages.problems);
        let by = |host: [usize; 2]| move |hold: &&Hold| host.contains(&hold.client);
        for host in [[1, 2], [3, 4], [5, 6], MORTALS] {
            let holds = pages.holds.iter().filter(by(host)).count();
            assert!(holds > 0, "seed {seed}: clients {host:?} never held the lock");
        }
    });
}
