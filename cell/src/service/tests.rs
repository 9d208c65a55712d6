//! Whole replicas over an in-memory network, in paused time: who answers reads while a mastership is handed over, and
//! who goes out of service.

use std::time::Duration;

use hasp_proto::time::Time;
use hasp_rt::clock::{Clock as _, TokioClock};
use hasp_rt::disk::MemDisk;
use hasp_rt::rng::Seeds;
use hasp_rt::rpc::client::dial;
use hasp_rt::tasks::Tasks;
use hasp_rt::transport::{PipeTransport, Transport};

use super::*;
use crate::replica::Mastery;
use crate::replica::memory_log::MemoryDisk;
use crate::replica::tests::{Cuts, address};
use crate::state::{Command, LogEntry, Outcome};

const REPLICAS: u64 = 3;
/// What a disk takes to make something durable: a hand-over takes several of these.
const SYNC: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(1);

struct World {
    network: PipeTransport,
    clock: Arc<TokioClock>,
    cuts: Cuts,
    servers: BTreeMap<u64, CellServer>,
    /// Outlive their servers.
    drivers: BTreeMap<u64, Arc<MasterDriver>>,
}

impl World {
    /// A cell that has a master.
    async fn serving() -> Self {
        let (network, cuts, clock) = (PipeTransport::new(), Cuts::default(), Arc::new(TokioClock::new()));
        let mut world = Self {
            network: network.clone(),
            clock,
            cuts,
            servers: BTreeMap::new(),
            drivers: BTreeMap::new(),
        };
        let cells = [(CellName::new("a"), (1..=REPLICAS).map(address).collect())];
        let map = PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells.into()).expect("a map");
        for id in 1..=REPLICAS {
            let env = Env {
                clock: world.clock.clone(),
                transport: Arc::new(world.cuts.over(id, network.clone())),
                disk: Arc::new(MemDisk::new()),
                seeds: Seeds::from_seed(id),
                tasks: Tasks::new(),
            };
            let config = CellConfig::new(CellName::new("a"), id, &address(id), "/data".into(), map.clone());
            let listener = network.listen(&address(id)).await.expect("the address is free");
            let log = MemoryDisk::default();
            log.set_sync_delay(SYNC);
            let server =
                CellServer::start_on_log(listener, config, &env, log.open()).await.expect("it starts");
            world.drivers.insert(id, server.driver.clone());
            world.servers.insert(id, server);
        }
        world.until("a master", |world| world.readable().len() == 1).await;
        world
    }

    /// A world of its own for whoever talks to the servers.
    fn outside(&self) -> Env {
        Env {
            clock: self.clock.clone(),
            transport: Arc::new(self.network.clone()),
            disk: Arc::new(MemDisk::new()),
            seeds: Seeds::from_seed(0),
            tasks: Tasks::new(),
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    /// The replicas that would answer a read now.
    fn readable(&self) -> Vec<u64> {
        let now = self.now();
        let answers = |driver: &&Arc<MasterDriver>| driver.inspect(|master| master.answers_reads(now));
        self.drivers.iter().filter(|(_, driver)| answers(driver)).map(|(id, _)| *id).collect()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = self.now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(self.now() < end, "no {what}");
            self.tick().await;
        }
    }

    /// Time passes; at no moment do two replicas answer reads.
    async fn tick(&self) {
        tokio::time::sleep(TICK).await;
        let readable = self.readable();
        assert!(readable.len() <= 1, "at {:?}: {readable:?} answer reads", self.now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_its_predecessor_cannot_hear_is_the_only_one_to_answer_reads() {
    let mut world = World::serving().await;
    let old = world.readable()[0];
    let server = world.servers.remove(&old).expect("it runs");
    let mastery = server.replica.mastery();
    let stopping = tokio::spawn(server.shutdown());

    // Once the transfer is on its way, the old master is cut off: it never hears that it was taken.
    world.until("transfer", |_| !matches!(*mastery.borrow(), Mastery::Leader { .. })).await;
    for _ in 0..SYNC.as_millis() / 2 {
        world.tick().await;
    }
    world.cuts.isolate(old, REPLICAS);
    let cut = world.now();
    world.until("new master", |world| world.readable().iter().any(|id| *id != old)).await;

    // Its lease was renewed with every heartbeat until the transfer.
    let timing = Timing::default();
    let lease_end = cut - SYNC + timing.election_max - timing.election_max / 10 - timing.heartbeat;
    assert!(world.now() < lease_end, "only before the old lease would have ended does this show anything");
    while !stopping.is_finished() {
        world.tick().await;
    }
    stopping.await.expect("it stops");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_stops_hands_nothing_over_and_nobody_else_notices() {
    let mut world = World::serving().await;
    let master = world.readable();
    let follower = (1..=REPLICAS).find(|id| *id != master[0]).expect("a cell of several");
    let server = world.servers.remove(&follower).expect("it runs");
    let began = world.now();

    server.shutdown().await;

    // Its connections have a second to end.
    assert!(world.now() < began + Duration::from_millis(1_500), "{:?}", world.now());
    assert_eq!(world.readable(), master);
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_healthy_while_it_knows_a_master_until_it_is_told_to_stop() {
    let mut world = World::serving().await;
    let outside = world.outside();
    let (deadline, profile) = (Duration::from_secs(5), Profile::clients());
    world.until("heard by all", |world| world.servers.values().all(|server| server.status.is_ready())).await;
    for id in 1..=REPLICAS {
        let connection = dial(&outside, &address(id), &profile, deadline).await.expect("it listens");
        assert!(connection.is_serving().await.expect("it answers"), "replica {id}");
    }
    let old = world.readable()[0];
    let follower = (1..=REPLICAS).find(|id| *id != old).expect("a cell of several");
    let connection = dial(&outside, &address(follower), &profile, deadline).await.expect("it listens");

    world.cuts.isolate(old, REPLICAS);
    while connection.is_serving().await.expect("it answers") {
        world.tick().await;
    }
    world.until("new master", |world| world.servers[&follower].status.is_ready()).await;
    assert!(connection.is_serving().await.expect("it answers"), "another leads");
    let server = world.servers.remove(&follower).expect("it runs");
    let (last_word, ()) = tokio::join!(connection.is_serving(), server.shutdown());

    assert!(!last_word.expect("it answers while it hands over"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_state_is_not_the_masters_goes_out_of_service_and_says_why() {
    let world = World::serving().await;
    let master = &world.servers[&world.readable()[0]];
    let Mastery::Leader { token } = *master.replica.mastery().borrow() else { panic!("a master leads") };
    let epoch = master.replica.read(|state, _| state.epoch());
    let propose = |command| {
        let entry = LogEntry { epoch, commands: vec![command] };
        master.replica.propose(token, entry.encode())
    };
    let taken = propose(Command::TakeChecksum).await.expect("applied");
    let Outcome::ChecksumTaken { index, checksum } = taken[0].outcome else { panic!("{taken:?}") };

    let same = propose(Command::CompareChecksum { index, checksum }).await.expect("applied");
    assert_eq!(same[0].outcome, Outcome::Noted);
    let other = propose(Command::CompareChecksum { index, checksum: !checksum }).await;

    assert!(other.is_err(), "{other:?}");
    for server in world.servers.values() {
        let reason = server.dead().await;
        assert!(reason.contains("is not the master's"), "{reason}");
        assert!(!server.status().is_master());
    }
}
