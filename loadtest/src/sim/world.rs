//! The world: nodes, what happens to them in the order of true time, and who is told of it.
//!
//! It moves what the machines want moved and decides nothing of the protocol. A node hears only its own clock. One
//! that is paused handles everything late, in order; one that is down hears nothing.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use hasp_client::machine::CallId;
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};
use hasp_proto::machine::Core;
use hasp_proto::partition::PartitionMap;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_router::upstream::LinkId;

use super::cell::Replica;
use super::client::Client;
use super::clock::{Clock, Moment};
use super::faults::Fault;
use super::history::{History, Truth};
use super::log::Entry;
use super::mutants::Mutant;
use super::network::{Network, Way};
use super::proxy::Proxy;
use super::random::Random;
use super::schedule::Schedule;
use super::script;
use super::story::Story;
use super::verdict::{Counts, Verdict};
use super::{check, faults};

/// Replicas of each cell.
pub const REPLICAS: usize = 3;
/// From here on nothing goes wrong any more.
pub const HEALED: Moment = Moment::seconds(45);
/// From here on applications only look at what became of everything.
pub const LAST_LOOK: Moment = Moment::seconds(52);
/// By then every client must have its answers.
pub const END: Moment = Moment::seconds(75);
/// Two clocks of a world differ by less than the clock-rate bound of 10,000.
const SKEW_PPM: u64 = 4_500;
/// How often in a row a machine may say that something is still due.
const ROUNDS_MAX: usize = 64;
/// After this the machines are taken to run in circles.
const STEPS_MAX: u64 = 3_000_000;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    /// A replica: three of each cell, one cell after the other.
    Replica(usize),
    /// A proxy.
    Proxy(usize),
    /// An application.
    Client(usize),
}

impl NodeId {
    /// A number of its own.
    pub const fn number(self) -> u64 {
        match self {
            Self::Replica(index) => index as u64,
            Self::Proxy(index) => 1_000 + index as u64,
            Self::Client(index) => 2_000 + index as u64,
        }
    }

    /// Where it listens.
    pub fn address(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Replica(index) => {
                let cell = char::from(b'a' + u8::try_from(index / REPLICAS).expect("few cells"));
                format!("{cell}{}", index % REPLICAS + 1)
            }
            Self::Proxy(index) => format!("p{}", index + 1),
            Self::Client(index) => format!("c{}", index + 1),
        };
        f.pad(&text)
    }
}

/// How a node is.
#[derive(Debug)]
pub struct Life {
    /// What it goes by.
    pub clock: Clock,
    /// It runs.
    pub is_up: bool,
    /// It does nothing until then.
    pub paused_until: Option<Moment>,
    /// How often it has started.
    pub number: u64,
    backlog: VecDeque<Happening>,
    wake_at: Option<Moment>,
}

/// What travels along a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// A connection is asked for.
    Open,
    /// It stands.
    Opened,
    /// From its opener.
    Up(Up),
    /// From its host.
    Down(Down),
    /// The host has said all.
    Closed,
}

/// What is going to happen.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most of what is planned are items on their way")]
pub enum Happening {
    /// A machine has something due.
    Wake(NodeId),
    /// Something comes out of a connection.
    Arrive(ConnectionId, Way, Item),
    /// A holder finds that its connection is gone.
    LinkLost(NodeId, u64, LinkId),
    /// A host finds that a connection is gone.
    ConnectionLost(NodeId, u64, ConnectionId),
    /// A leader sends what its followers lack.
    Beat(usize, u64),
    /// A follower hears its leader.
    Append(usize, Rc<Append>),
    /// A leader hears a follower.
    Appended(usize, Appended),
    /// A follower looks whether it should stand for election.
    ElectionDue(usize, u64),
    /// A replica that leaves looks whether it can.
    Leaving(usize, u64),
    /// An application does the next thing.
    Think(usize, u64),
    /// An application has waited long enough for a lock.
    GiveUp(usize, u64, CallId),
    /// Something goes wrong.
    Fault(Fault),
    /// A pause is over.
    Resume(NodeId),
    /// A node starts again.
    Start(NodeId),
    /// Everything is well from here on.
    Heal,
}

/// From a leader to a follower.
#[derive(Debug)]
pub struct Append {
    /// The leader.
    pub from: usize,
    /// Its term.
    pub term: u64,
    /// When it was sent, by the leader's clock.
    pub sent: Time,
    /// After so many entries.
    pub before: usize,
    /// These.
    pub entries: Vec<Rc<Entry>>,
    /// So many are committed.
    pub committed: usize,
}

/// From a follower to its leader.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// The follower.
    pub from: usize,
    /// Its term.
    pub term: u64,
    /// Its log agrees with the leader's for so many entries.
    pub matched: usize,
    /// When what it answers was sent, by the leader's clock.
    pub sent: Time,
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cells.
    pub cells: usize,
    /// Proxies.
    pub proxies: usize,
    /// Applications.
    pub clients: usize,
    /// What masters and proxies grant.
    pub lease: Duration,
    /// How long sessions look for their hosts.
    pub grace: Duration,
    /// What goes wrong.
    pub faults: Vec<(Moment, Fault)>,
}

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
    pub network: Network,
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
    /// For [`Mutant::RetriedAnew`]: numbers seen, by session.
    pub retried: BTreeMap<(SessionId, RequestNumber), ConnectionId>,
    /// For [`Mutant::LeaseFromReceipt`]: when the last KeepAlive of a connection was sent, by its sender's clock.
    pub keep_alives: BTreeMap<ConnectionId, (u64, Time)>,
    /// Everything that was committed, by cell.
    pub committed: BTreeMap<usize, Vec<Rc<Entry>>>,
    /// The newest claim that each session has made.
    pub claims: BTreeMap<SessionId, Claim>,
    /// Whose session speaks on a connection.
    pub speakers: BTreeMap<ConnectionId, SessionId>,
}

/// Lets a machine do what is due, takes the inputs in, and does what is due then, as the driver of the services does.
/// Says when it wants to be woken.
pub fn drive<C: Core>(
    core: &mut C,
    now: Time,
    inputs: impl IntoIterator<Item = C::Input>,
    outputs: &mut Vec<C::Output>,
) -> Option<Time> {
    let is_due = |core: &C| core.poll_timeout().is_some_and(|(at, _)| at <= now);
    if is_due(core) {
        core.handle_timeout(now);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    for input in inputs {
        core.handle(now, input);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    let mut rounds = 0;
    while is_due(core) {
        assert!(
            rounds < ROUNDS_MAX,
            "a machine says for ever that something is due: {:?}",
            core.poll_timeout()
        );
        rounds += 1;
        core.handle_timeout(now);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    core.poll_timeout().map(|(at, _)| at)
}

/// What is asked of a world besides its seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// A mistake to be made on purpose.
    pub mutant: Option<Mutant>,
    /// There are no proxies: all clients are straight at the masters.
    pub is_direct: bool,
}

impl Setting {
    /// For a mistake: straight at the masters it shows soonest, and nothing else can be taken for it.
    pub const fn for_mutant(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), is_direct: true }
    }
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, setting: Setting, is_told: bool) -> Verdict {
    let mut world = World::new(seed, setting, is_told);
    world.begin();
    let mut steps = 0;
    while let Some((at, happening)) = world.schedule.take() {
        if at > END || world.broken.len() > 20 {
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
    world.now = END;
    check::everything(&mut world);
    world.counts.worlds = 1;
    let World { broken, counts, story, .. } = world;
    Verdict { seed, broken, counts, fingerprint: story.fingerprint(), story: story.into_lines() }
}

impl World {
    fn new(seed: u64, setting: Setting, is_told: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = faults::plan(&mut random, setting);
        let mutant = setting.mutant;
        let cells: Vec<_> = (0..plan.cells).map(cell_name).collect();
        let hosts =
            |cell: usize| (0..REPLICAS).map(move |at| NodeId::Replica(cell * REPLICAS + at).address());
        let addresses =
            cells.iter().enumerate().map(|(at, cell)| (cell.clone(), hosts(at).collect())).collect();
        let rules: &[(&str, &str)] =
            if plan.cells > 1 { &[("/ls/dev", "a"), ("/ls/dev/b", "b")] } else { &[("/ls/dev", "a")] };
        let map = PartitionMap::new(1, "dev", rules.iter().copied(), addresses).expect("a good map");
        let names = script::names(plan.cells);
        let truths = cells.iter().map(|cell| (cell.clone(), Truth::of(&names))).collect();
        let (slow, slow_max) = *random.pick(&[(0, 50), (2, 400), (5, 3_000), (20, 200), (50, 1_000)]);
        let hangs_on_delays = mutant == Some(Mutant::LeaseFromReceipt);
        let (slow, slow_max) = if hangs_on_delays { (80, 4_000) } else { (slow, slow_max) };
        Self {
            now: Moment::default(),
            schedule: Schedule::default(),
            network: Network::new(random.child(), slow, slow_max),
            lives: BTreeMap::new(),
            replicas: Vec::new(),
            proxies: Vec::new(),
            clients: Vec::new(),
            history: History { asked: Vec::new(), truths },
            story: Story::new(is_told),
            counts: Counts::default(),
            broken: Vec::new(),
            retried: BTreeMap::new(),
            committed: BTreeMap::new(),
            keep_alives: BTreeMap::new(),
            claims: BTreeMap::new(),
            speakers: BTreeMap::new(),
            map,
            plan,
            mutant,
            random,
        }
    }

    fn begin(&mut self) {
        for index in 0..self.plan.cells * REPLICAS {
            self.replicas.push(Replica::new(index, &self.map, self.plan.lease));
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

    fn add_life(&mut self, node: NodeId) {
        let ppm = i64::try_from(self.random.between(0, 2 * SKEW_PPM + 1)).expect("small");
        let mut ppm = ppm - i64::try_from(SKEW_PPM).expect("small");
        if self.mutant == Some(Mutant::FastMasterClock) && matches!(node, NodeId::Replica(_)) {
            ppm = 400_000;
        }
        let clock = Clock::new(self.random.millis(1, 100_000), ppm);
        let life = Life {
            clock,
            is_up: false,
            paused_until: None,
            number: 0,
            backlog: VecDeque::new(),
            wake_at: None,
        };
        self.lives.insert(node, life);
    }

    /// What a node's clock shows.
    pub fn local(&self, node: NodeId) -> Time {
        self.lives[&node].clock.at(self.now)
    }

    /// How a node is.
    pub fn life(&mut self, node: NodeId) -> &mut Life {
        self.lives.get_mut(&node).expect("a node of this world")
    }

    /// Whether it runs and is not paused.
    pub fn is_awake(&self, node: NodeId) -> bool {
        self.lives[&node].is_up && self.lives[&node].paused_until.is_none()
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
            Happening::Arrive(connection, way, item) => self.arrive(connection, way, item),
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
            Happening::Arrive(connection, way, _) => {
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

    /// A pause is over: everything that came meanwhile is handled in its order.
    pub fn resume(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if life.paused_until.is_none_or(|until| until > now) {
            return;
        }
        life.paused_until = None;
        let backlog = std::mem::take(&mut life.backlog);
        if life.is_up {
            self.story.tell(now, node, format_args!("goes on"));
        }
        for happening in backlog {
            self.schedule.add(now, happening);
        }
    }

    fn start(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if life.is_up {
            return;
        }
        life.is_up = true;
        life.number += 1;
        life.wake_at = None;
        life.paused_until = None;
        life.backlog.clear();
        self.story.tell(now, node, format_args!("starts"));
        match node {
            NodeId::Replica(index) => self.start_replica(index),
            NodeId::Proxy(index) => self.start_proxy(index),
            NodeId::Client(index) => self.start_client(index),
        }
    }

    /// A node is gone from one moment to the next, with all its connections.
    pub fn crash(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if !life.is_up {
            return;
        }
        life.is_up = false;
        life.number += 1;
        life.paused_until = None;
        life.backlog.clear();
        self.story.tell(now, node, format_args!("crashes"));
        for connection in self.network.of_node(node) {
            self.reset(connection);
        }
        match node {
            NodeId::Replica(index) => self.replica_crashed(index),
            NodeId::Proxy(_) => {}
            NodeId::Client(index) => self.client_crashed(index),
        }
    }

    /// A connection breaks; both ends find out, some time.
    pub fn reset(&mut self, connection: ConnectionId) {
        let Some(broken) = self.network.break_up(connection) else { return };
        let (one, other) = (self.found_out(), self.found_out());
        let life = self.lives[&broken.holder].number;
        self.schedule.add(one, Happening::LinkLost(broken.holder, life, broken.link));
        if broken.is_accepted {
            let life = self.lives[&broken.host].number;
            self.schedule.add(other, Happening::ConnectionLost(broken.host, life, connection));
        }
    }

    fn found_out(&mut self) -> Moment {
        let takes_long = self.now < HEALED && self.random.chance(150);
        self.now + if takes_long { self.random.millis(100, 8_000) } else { self.random.millis(1, 20) }
    }
}

/// By number.
pub fn cell_name(index: usize) -> CellName {
    CellName::new(["a", "b", "c"][index])
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
