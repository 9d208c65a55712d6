//! The world: nodes, what happens to them in the order of true time, and who is told of it.
//!
//! It moves what the machines want moved and decides nothing of the protocol. A node hears only its own clock. One
//! that is paused handles everything late, in order; one that is down hears nothing.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hasp_proto::id::{Claim, SessionId};
use hasp_proto::partition::PartitionMap;
use hasp_proto::time::Time;

use super::cell::Replica;
use super::client::Client;
use super::clock::Moment;
use super::guard::check_all;
use super::history::{History, Truth};
use super::log::Entry;
use super::mischief::Mischief;
use super::mutants::Mutant;
use super::network::{Network, Way};
use super::proxy::Proxy;
use super::random::Random;
use super::schedule::Schedule;
use super::script;
use super::story::Story;
use super::verdict::{Counts, Verdict};

pub use super::driving::drive;
pub use super::happening::{Append, Appended, Happening, Item};
pub use super::node::{Life, NodeId};
pub use super::plan::{END, HEALED, LAST_LOOK, Plan, REPLICAS, Setting, cell_name};

/// After this the machines are taken to run in circles.
const STEPS_MAX: u64 = 3_000_000;
/// So long the last entries may be on their way at the end.
const LEVELLING: Duration = Duration::from_secs(3);

/// Everything.
#[derive(Debug)]
pub struct World {
    /// True time.
    pub now: Moment,
    /// All draws but the network's.
    pub random: Random,
    /// What is to come.
    pub schedule: Schedule<Happening>,
    /// Between the nodes.
    pub network: Network<Item>,
    /// How the nodes are.
    pub lives: BTreeMap<NodeId, Life>,
    /// All cells'.
    pub replicas: Vec<Replica>,
    /// In order.
    pub proxies: Vec<Proxy>,
    /// In order.
    pub clients: Vec<Client>,
    /// Who routes what where.
    pub map: PartitionMap,
    /// What it is like.
    pub plan: Plan,
    /// Everything that was asked.
    pub history: History,
    /// In words.
    pub story: Story,
    /// Figures.
    pub counts: Counts,
    /// What was broken.
    pub broken: Vec<String>,
    /// The mistake that is made on purpose.
    pub mutant: Option<Mutant>,
    /// What it takes to make it.
    pub mischief: Mischief,
    /// Everything that was committed, by cell.
    pub committed: BTreeMap<usize, Vec<Rc<Entry>>>,
    /// The newest claim that each session has made.
    pub claims: BTreeMap<SessionId, Claim>,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, setting: Setting, is_told: bool) -> Verdict {
    let mut world = World::new(seed, setting, is_told);
    world.begin();
    let mut steps = 0;
    while let Some((at, happening)) = world.schedule.take() {
        if at > END && (world.is_level() || at > END + LEVELLING) || world.broken.len() > 20 {
            break;
        }
        steps += 1;
        if steps > STEPS_MAX {
            world.break_promise(format!("no end: {STEPS_MAX} things have happened by {}", world.now));
            break;
        }
        world.now = at;
        world.happen(happening);
    }
    world.now = world.now.max(END);
    check_all(&mut world);
    world.check_trouble();
    world.counts.worlds = 1;
    world.counts.routed = u64::from(world.plan.proxies > 0);
    let World { broken, counts, story, .. } = world;
    Verdict { seed, broken, counts, fingerprint: story.fingerprint(), story: story.into_lines() }
}

impl World {
    fn new(seed: u64, setting: Setting, is_told: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, setting);
        let mutant = setting.mutant;
        let cells: Vec<_> = (0..plan.cells).map(cell_name).collect();
        let hosts =
            |cell: usize| (0..REPLICAS).map(move |at| NodeId::Replica(cell * REPLICAS + at).address());
        let addresses =
            cells.iter().enumerate().map(|(at, cell)| (cell.clone(), hosts(at).collect())).collect();
        let rules = [("/ls/dev", "a")].into_iter().chain((plan.cells > 1).then_some(("/ls/dev/b", "b")));
        let rules = rules.chain(plan.has_ring.then_some(script::RING));
        let map = PartitionMap::new(1, "dev", rules, addresses).expect("a good map");
        let names = script::names(plan.cells, plan.has_ring);
        let truths = cells.iter().map(|cell| (cell.clone(), Truth::of(&names))).collect();
        Self {
            now: Moment::default(),
            schedule: Schedule::default(),
            network: Network::new(random.child(), plan.slow),
            lives: BTreeMap::new(),
            replicas: Vec::new(),
            proxies: Vec::new(),
            clients: Vec::new(),
            history: History { truths, ..History::default() },
            story: Story::new(is_told),
            counts: Counts::default(),
            broken: Vec::new(),
            mischief: Mischief::default(),
            committed: BTreeMap::new(),
            claims: BTreeMap::new(),
            map,
            plan,
            mutant,
            random,
        }
    }

    fn begin(&mut self) {
        for index in 0..self.plan.cells * REPLICAS {
            self.replicas.push(Replica::new(index, &self.map, self.plan.lease, self.plan.timing));
            self.add_life(NodeId::Replica(index));
        }
        for index in 0..self.plan.proxies {
            self.add_life(NodeId::Proxy(index));
            let proxy = self.new_proxy(index);
            self.proxies.push(proxy);
        }
        for index in 0..self.plan.clients {
            self.add_life(NodeId::Client(index));
            let client = self.new_client(index);
            self.clients.push(client);
        }
        for (at, fault) in self.plan.faults.clone() {
            self.schedule.add(at, Happening::Fault(fault));
        }
        self.schedule.add(HEALED, Happening::Heal);
        for node in self.nodes() {
            self.schedule.add(self.now, Happening::Start(node));
        }
    }

    /// All of them, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.lives.keys().copied().collect()
    }

    /// Whether the replicas of each cell have applied the same entries.
    fn is_level(&self) -> bool {
        self.replicas.chunks(REPLICAS).all(|cell| {
            let mut indices = cell.iter().map(|replica| replica.state.index());
            let first = indices.next();
            indices.all(|index| Some(index) == first)
        })
    }

    /// A world in which nothing happens shows nothing.
    fn check_trouble(&mut self) {
        let planned = self.plan.faults.len();
        if planned > 0 && self.counts.crashes + self.counts.other_faults == 0 {
            self.break_promise(format!("nothing went wrong, though {planned} faults were planned"));
        }
        if self.clients.is_empty() {
            self.break_promise("nobody asked for anything".to_owned());
        }
    }

    /// Notes that a promise was broken.
    pub fn break_promise(&mut self, what: String) {
        self.broken.push(format!("{} {what}", self.now));
    }

    /// Wakes the node when its clock shows that time.
    pub fn wake_at(&mut self, node: NodeId, deadline: Option<Time>) {
        let now = self.now;
        let life = self.life(node);
        let Some(deadline) = deadline else { return };
        let at = life.clock.when(deadline).max(Moment(now.0 + 1));
        if life.wake_at.is_none_or(|armed| at < armed || armed < now) {
            life.wake_at = Some(at);
            self.schedule.add(at, Happening::Wake(node));
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(node) = self.concerns(&happening) {
            let life = self.lives.get_mut(&node).expect("a node of this world");
            if !life.is_up {
                return;
            }
            if life.paused_until.is_some() {
                life.backlog.push_back(happening);
                return;
            }
        }
        match happening {
            Happening::Wake(node) => self.wake(node),
            Happening::Arrive(connection, way) => self.arrive(connection, way),
            Happening::LinkLost(node, life, link) => {
                if self.lives[&node].number == life {
                    self.link_lost(node, link);
                }
            }
            Happening::ConnectionLost(node, life, connection) => {
                if self.lives[&node].number == life {
                    self.connection_lost(node, connection);
                }
            }
            Happening::Beat(replica, term) => self.beat(replica, term),
            Happening::Append(replica, append) => self.appended(replica, &append),
            Happening::Appended(replica, answer) => self.acknowledged(replica, answer),
            Happening::ElectionDue(replica, life) => self.election_due(replica, life),
            Happening::Leaving(replica, life) => self.leaving(replica, life),
            Happening::Think(client, life) => self.think(client, life),
            Happening::GiveUp(client, life, call) => self.give_up(client, life, call),
            Happening::Fault(fault) => self.go_wrong(fault),
            Happening::Resume(node) => self.resume(node),
            Happening::Start(node) => self.start(node),
            Happening::Heal => self.heal(),
        }
    }

    /// The node that handles it: later if it is paused, never if it is down.
    fn concerns(&self, happening: &Happening) -> Option<NodeId> {
        Some(match happening {
            Happening::Arrive(connection, way) => {
                let connection = self.network.get(*connection)?;
                match way {
                    Way::Up => connection.host,
                    Way::Down => connection.holder,
                }
            }
            Happening::Wake(node) | Happening::LinkLost(node, ..) | Happening::ConnectionLost(node, ..) => {
                *node
            }
            Happening::Beat(replica, _)
            | Happening::Append(replica, _)
            | Happening::Appended(replica, _)
            | Happening::ElectionDue(replica, _)
            | Happening::Leaving(replica, _) => NodeId::Replica(*replica),
            Happening::Think(client, _) | Happening::GiveUp(client, ..) => NodeId::Client(*client),
            Happening::Fault(_) | Happening::Resume(_) | Happening::Start(_) | Happening::Heal => {
                return None;
            }
        })
    }

    fn wake(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if life.wake_at.is_some_and(|at| at <= now) {
            life.wake_at = None;
        }
        self.poke(node);
    }

    /// Lets a node's machine do what is due.
    pub fn poke(&mut self, node: NodeId) {
        match node {
            NodeId::Replica(index) => self.master_inputs(index, []),
            NodeId::Proxy(index) => self.proxy_inputs(index, []),
            NodeId::Client(index) => self.client_inputs(index, []),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_story_and_another_seed_another() {
        for seed in [3, 4] {
            let (one, again) = (run(seed, Setting::default(), true), run(seed, Setting::default(), true));

            assert!(one.story.len() > 1_000, "much happens");
            assert_eq!(one.story, again.story);
            assert_eq!((one.fingerprint, one.counts), (again.fingerprint, again.counts));
        }
        assert_ne!(
            run(3, Setting::default(), false).fingerprint,
            run(4, Setting::default(), false).fingerprint
        );
    }

    #[test]
    fn a_story_that_is_not_told_is_the_same_story() {
        let (told, untold) = (run(5, Setting::default(), true), run(5, Setting::default(), false));

        assert_eq!(told.fingerprint, untold.fingerprint);
        assert!(untold.story.is_empty());
    }
}
