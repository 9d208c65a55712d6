//! A state of a model: the machines of all nodes as they run in production, what is on its way between them, the log, and
//! true time.
//!
//! ```text
//! world ── replicas    MasterCore over a State that the log makes     cell
//!   ├─ proxies         RelayCore                                     proxy
//!   ├─ clients         the library's ApplicationCore                 client
//!   ├─ wires           connections: pipes that keep their order      wires, wiring
//!   └─ history         what an onlooker knows                        history, check
//! ```
//!
//! Two states are the same if their fingerprints are. Left out of them are the plan and the clocks, which never change, and
//! what has been [`Seen`] on the way, which decides nothing. Times are absolute: time moves in few large steps, so states
//! that differ in nothing but when they were reached are rare.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use hasp_cell::master::BatchId;
use hasp_cell::state::{LogEntry, State};
use hasp_client::machine::ApplicationCore;
use hasp_proto::id::CellName;
use hasp_proto::machine::Core as _;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::server::ConnectionId;
use hasp_proto::time::Time;
use hasp_router::relay::RelayCore;

use super::time::{Clock, Moment};

use super::cell::Replica;
use super::client::Application;
use super::hashed::Hashed;
use super::history::{Broken, History, Seen};
use super::memo::Memo;
use super::node::NodeId;
use super::omission::Omission;
use super::plan::{Bounds, Plan};
use super::wires::Wires;

/// Replicas of the cell that are ever master.
pub const REPLICAS: usize = 2;
/// Wake-ups and deliveries in one stretch of time: more, and something goes round in circles.
const ROUNDS_MAX: usize = 20_000;
/// What the cell is called.
pub const CELL: &str = "a";
/// The file that everything is about.
pub const FILE: &str = "/ls/dev/f";

/// What the log has made.
#[derive(Clone)]
pub struct Committed {
    /// The cell's state.
    pub state: State,
    /// Of that state.
    pub checksum: u64,
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:016x}", self.state, self.checksum)
    }
}

/// Who leads, as far as a majority is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leadership {
    /// Whose entries are committed.
    pub leader: Option<usize>,
    /// Since when no majority answers it.
    pub isolated_since: Option<u64>,
    /// Who led before and was not told that it does not any more.
    pub outdated: Option<usize>,
    /// What that one proposed and its successor's log does not have.
    pub discarded: Vec<BatchId>,
}

/// A state. See the module's documentation.
#[derive(Clone)]
pub struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) now: Moment,
    pub(super) memo: Arc<Memo>,
    pub(super) replicas: Vec<Hashed<Replica>>,
    /// `None`: it is dead.
    pub(super) proxies: Vec<Option<Hashed<RelayCore>>>,
    pub(super) clients: Vec<Hashed<Application>>,
    pub(super) libraries: Vec<Hashed<ApplicationCore>>,
    pub(super) committed: Hashed<Committed>,
    /// Proposed by the leader and not committed, in order.
    pub(super) log: Hashed<Vec<(BatchId, LogEntry)>>,
    pub(super) leadership: Leadership,
    pub(super) wires: Wires,
    /// What may still happen.
    pub(super) left: Bounds,
    pub(super) history: History,
    pub(super) seen: Seen,
    /// What happened in detail, if somebody listens.
    pub(super) story: Option<Vec<String>>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.now.0);
        (&self.replicas, &self.proxies, &self.libraries, &self.clients).hash(state);
        (&self.committed, &self.log, &self.leadership).hash(state);
        (&self.wires, &self.left, &self.history).hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let print = super::hash_of;
        print(self) == print(other)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "world at {}: {:?}", self.now, self.history)
    }
}

/// The map of all worlds: one cell.
pub fn map() -> PartitionMap {
    let masters = (0..REPLICAS).map(|index| NodeId::Replica(index).address()).collect();
    let cells = [(CellName::new(CELL), masters)].into();
    PartitionMap::new(1, "dev", [("/ls/dev", CELL)], cells).expect("a good map")
}

/// The file that everything is about.
pub fn file() -> Name {
    Name::parse(FILE).expect("a good name")
}

impl World {
    /// A world in which everybody has a session, and a handle of the file, and has read it, and nothing is on its way.
    pub fn begun(plan: &Arc<Plan>) -> Self {
        let mut world = Self {
            now: Moment(0),
            replicas: (0..REPLICAS).map(|index| Hashed::new(Self::new_replica(index))).collect(),
            proxies: (0..plan.proxies).map(|index| Some(Hashed::new(Self::new_proxy(index)))).collect(),
            clients: plan.clients.iter().map(|_| Hashed::new(Application::default())).collect(),
            libraries: (0..plan.clients.len())
                .map(|index| Hashed::new(Self::new_library(plan, index)))
                .collect(),
            memo: Arc::default(),
            committed: Hashed::new(Committed { state: State::default(), checksum: 0 }),
            log: Hashed::new(Vec::new()),
            leadership: Leadership::default(),
            wires: Wires::default(),
            left: Bounds { reads: u8::MAX, acquires: u8::MAX, ..Bounds::default() },
            history: History::default(),
            seen: Seen::default(),
            story: None,
            plan: Arc::new(Plan { omission: None, ..(**plan).clone() }),
        };
        world.elect(true);
        world.calm(Duration::from_secs(1));
        for index in 0..world.clients.len() {
            world.open(index);
            world.calm(Duration::from_millis(100));
            world.read(index);
            world.calm(Duration::from_millis(100));
            if plan.begins_locked {
                world.acquire(index);
                world.calm(Duration::from_millis(100));
            }
        }
        world.calm(Duration::from_secs(3));
        world.plan = plan.clone();
        world.left = plan.bounds;
        world.seen = Seen::default();
        world.seal();
        assert!(world.history.broken.is_none(), "{:?}", world.history);
        assert!(world.clients.iter().all(|client| client.is_ready()), "everybody has what it needs");
        world
    }

    /// Whether that is left out here.
    pub(super) fn omits(&self, omission: Omission) -> bool {
        self.plan.omission == Some(omission)
    }

    /// What a node's clock shows.
    pub(super) fn local(&self, node: NodeId) -> Time {
        self.clock(node).at(self.now)
    }

    fn clock(&self, node: NodeId) -> Clock {
        let ppm = match node {
            NodeId::Replica(_) => 0,
            NodeId::Proxy(_) | NodeId::Client(_) => self.plan.holders_ppm,
        };
        Clock::new(ppm)
    }

    /// Whether it does anything any more.
    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        match node {
            NodeId::Replica(_) | NodeId::Client(_) => true,
            NodeId::Proxy(index) => self.proxies[index].is_some(),
        }
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let replicas = (0..self.replicas.len()).map(NodeId::Replica);
        let proxies = (0..self.proxies.len()).map(NodeId::Proxy);
        replicas.chain(proxies).chain((0..self.clients.len()).map(NodeId::Client))
    }

    // Time.

    /// Time passes; nothing is delivered along slow connections, but everybody does in time what is due.
    pub fn pass(&mut self, stretch: Duration) {
        let end = self.now + stretch;
        let mut rounds = 0;
        while let Some((at, node)) = self.next_due().filter(|(at, _)| *at <= end) {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "{node} says for ever that something is due");
            self.now = self.now.max(at);
            self.wake(node);
            self.deliver_prompt();
        }
        self.now = end;
    }

    /// Time passes, and everything is delivered and committed at once, but where nothing passes.
    pub fn calm(&mut self, stretch: Duration) {
        let end = self.now + stretch;
        self.deliver_all();
        let mut rounds = 0;
        while let Some((at, node)) = self.next_due().filter(|(at, _)| *at <= end) {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "{node} says for ever that something is due");
            self.now = self.now.max(at);
            self.wake(node);
            self.deliver_all();
        }
        self.now = end;
    }

    fn deliver_all(&mut self) {
        self.deliver_if(|_, _| true, true);
    }

    /// Everything arrives on connections that are not slow.
    pub(super) fn deliver_prompt(&mut self) {
        self.deliver_if(|world, connection| !world.is_slow(connection), self.plan.commits_at_once);
    }

    fn deliver_if(&mut self, is_meant: impl Fn(&Self, ConnectionId) -> bool, commits: bool) {
        for _ in 0..ROUNDS_MAX {
            let next = self.wires.deliverable().find(|(connection, _)| is_meant(self, *connection));
            if let Some((connection, way)) = next {
                self.deliver(connection, way);
            } else if commits && self.may_commit() {
                self.commit();
            } else {
                return;
            }
        }
        panic!("messages go round in circles");
    }

    /// Whether what is on its way there arrives at any time, and not at once.
    pub(super) fn is_slow(&self, connection: ConnectionId) -> bool {
        self.wires.get(connection).is_some_and(|wire| self.plan.slow.contains(wire.holder))
    }

    /// Who has to do something next of itself, and when.
    fn next_due(&self) -> Option<(Moment, NodeId)> {
        let due = |node: NodeId| {
            let at = match node {
                NodeId::Replica(index) => self.replicas[index].poll_timeout(),
                NodeId::Proxy(index) => self.proxies[index].as_ref().and_then(|proxy| proxy.poll_timeout()),
                NodeId::Client(index) => self.libraries[index].poll_timeout(),
            };
            at.map(|(at, _)| (self.clock(node).when(at), node))
        };
        self.nodes().filter_map(due).min()
    }

    fn wake(&mut self, node: NodeId) {
        match node {
            NodeId::Replica(index) => self.replica_hears(index, None),
            NodeId::Proxy(index) => self.proxy_hears(index, None),
            NodeId::Client(index) => self.client_hears(index, None),
        }
    }

    /// Before anybody looks at the state: the fingerprints of what has changed.
    pub fn seal(&mut self) {
        self.clients.iter_mut().for_each(Hashed::seal);
        self.log.seal();
    }

    /// A promise was broken; the first counts.
    pub(super) fn break_promise(&mut self, broken: Broken) {
        self.history.broken.get_or_insert(broken);
    }

    pub(super) fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{} {}", self.now, line(self));
            self.story.get_or_insert_default().push(line);
        }
    }
}
