//! A cache and a master's table of who may cache what, over a network that delays and reorders everything: what leases,
//! floors and tickets are for, whatever carries the messages. Both machines are those of production; the master around the
//! table is a register.
//!
//! ```text
//! write:   begun, everybody told -- all have acknowledged, or lost their leases --> committed
//! read:    ticket, answered at once -- arrives any time, once or twice, for that ticket or a later one --> filled
//! lease:   granted -- over for its holder -- over for the master --> granted again
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::client::cache::{Cache, FillTicket};
use hasp_proto::id::{CellName, Epoch, Generation, Instance, RequestNumber, Sequence, SessionId, SessionKey};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind, Stat, checksum};
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Reply};
use hasp_proto::server::cachers::{Cachers, RoundId};
use stateright::{Model, Property};

use super::hashed::fingerprint;
use super::omission::Omission;
use super::search::{Searched, Stop};
use super::world::{CELL, file};

const PRINCIPAL: &str = "alice";
const READERS: &str = "readers";
const CACHE_BYTES: usize = 1 << 16;
/// A master numbers its news to one session from here on.
const NEWS_FIRST: u64 = 1;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillBounds {
    /// Reads of the file.
    pub reads: u8,
    /// Answers that arrive twice.
    pub repetitions: u8,
    /// Writes of the file.
    pub writes: u8,
    /// Cache leases that end.
    pub lapses: u8,
    /// New masters.
    pub fail_overs: u8,
}

/// All worlds within some bounds.
#[derive(Clone, Debug)]
pub struct Fills {
    holders: usize,
    bounds: FillBounds,
    omission: Option<Omission>,
    stop: Stop,
}

impl Fills {
    /// Two caches, and as much as can be searched in minutes.
    pub fn new() -> Self {
        let bounds = FillBounds { reads: 5, repetitions: 1, writes: 2, lapses: 1, fail_overs: 1 };
        Self { holders: 2, bounds, omission: None, stop: Stop::default() }
    }

    /// One cache, and little.
    pub fn small() -> Self {
        let bounds = FillBounds { reads: 3, repetitions: 1, writes: 1, lapses: 1, fail_overs: 1 };
        Self { holders: 1, bounds, ..Self::new() }
    }

    /// The same, without a part of the protocol.
    pub fn without(omission: Omission) -> Self {
        Self { omission: Some(omission), ..Self::small() }
    }
}

impl Default for Fills {
    fn default() -> Self {
        Self::new()
    }
}

/// What is said of items that change.
#[derive(Clone, Debug)]
struct Told {
    sequence: Sequence,
    epoch: Epoch,
    items: Vec<Item>,
    floor: Position,
}

/// A cache, and what is on its way to it, in no order.
#[derive(Clone, Debug)]
struct Holder {
    cache: Cache,
    has_lease: bool,
    /// The master does not count on its copies any more.
    has_lapsed: bool,
    leases: u64,
    sequences: u64,
    waiting: Vec<FillTicket>,
    /// With the lease under which each was asked for.
    answers: Vec<(u64, Arc<Answer>)>,
    told: Vec<Told>,
    fail_overs: Vec<(Sequence, Epoch)>,
}

/// A state.
#[derive(Clone, Debug)]
pub struct FillWorld {
    epoch: Epoch,
    index: u64,
    generation: Generation,
    cachers: Cachers,
    rounds: u64,
    /// The write that waits.
    round: Option<RoundId>,
    holders: Vec<Holder>,
    left: FillBounds,
    stale: bool,
    /// A cache had something to show.
    has_hit: bool,
}

impl Hash for FillWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(fingerprint(self));
    }
}

impl PartialEq for FillWorld {
    fn eq(&self, other: &Self) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillAction {
    /// A holder reads; the master answers at once.
    Read(usize),
    /// An answer arrives, for the read that waits longest.
    Arrive(usize, usize),
    /// The same, and it is going to arrive again.
    ArriveTwice(usize, usize),
    /// An invalidation arrives, and its acknowledgement with the master.
    Invalidate(usize, usize),
    /// News of a fail-over arrives, and its acknowledgement.
    FailOverHeard(usize),
    /// A write begins.
    Write,
    /// It is committed.
    Commit,
    /// A cache lease ends by its holder's clock.
    Lapse(usize),
    /// It ends by the master's clock, too.
    LapseAtMaster(usize),
    /// It is granted again.
    Grant(usize),
    /// Another master.
    FailOver,
}

impl fmt::Display for FillAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(holder) => write!(f, "c{} reads, and is answered", holder + 1),
            Self::Arrive(holder, at) => write!(f, "answer {} arrives at c{}", at + 1, holder + 1),
            Self::ArriveTwice(holder, at) => {
                write!(f, "answer {} arrives at c{}, and will again", at + 1, holder + 1)
            }
            Self::Invalidate(holder, at) => write!(f, "invalidation {} arrives at c{}", at + 1, holder + 1),
            Self::FailOverHeard(holder) => write!(f, "c{} hears of the fail-over", holder + 1),
            Self::Write => f.write_str("a write begins"),
            Self::Commit => f.write_str("the write is committed"),
            Self::Lapse(holder) => write!(f, "c{}'s cache lease ends for c{}", holder + 1, holder + 1),
            Self::LapseAtMaster(holder) => write!(f, "c{}'s cache lease ends for the master", holder + 1),
            Self::Grant(holder) => write!(f, "c{} is granted a cache lease again", holder + 1),
            Self::FailOver => f.write_str("another master takes over"),
        }
    }
}

fn session(holder: usize) -> SessionId {
    SessionKey::new([u8::try_from(holder).expect("few") + 1; 16]).id()
}

fn acl_file() -> Name {
    Name::parse("/ls/dev/acl/readers").expect("a good name")
}

impl FillWorld {
    fn begun(model: &Fills) -> Self {
        let holder = |_| Holder {
            cache: Cache::new(CACHE_BYTES),
            has_lease: true,
            has_lapsed: false,
            leases: 0,
            sequences: NEWS_FIRST,
            waiting: Vec::new(),
            answers: Vec::new(),
            told: Vec::new(),
            fail_overs: Vec::new(),
        };
        Self {
            epoch: Epoch(1),
            index: 1,
            generation: Generation(1),
            cachers: Cachers::default(),
            rounds: 0,
            round: None,
            holders: (0..model.holders).map(holder).collect(),
            left: model.bounds,
            stale: false,
            has_hit: false,
        }
    }

    fn position(&self) -> Position {
        Position { cell: CellName::new(CELL), epoch: self.epoch, index: self.index }
    }

    fn read(&mut self, holder: usize) {
        let mut caches = ItemKinds::NONE;
        if !self.holders[holder].has_lapsed {
            for kind in [ItemKind::Data, ItemKind::Lock, ItemKind::Acl] {
                let subject = if kind == ItemKind::Acl { acl_file() } else { file() };
                if self.cachers.register(session(holder), &Item::new(subject, kind)) {
                    caches = caches.with(kind);
                }
            }
        }
        let contents = Bytes::from(self.generation.to_string());
        let stat = Stat {
            kind: NodeKind::File,
            instance: Instance(1),
            content_generation: self.generation,
            lock_generation: Generation(1),
            acl_generation: Generation(1),
            checksum: checksum(&contents),
            length: contents.len() as u64,
            ephemeral: false,
            acls: AclNames { read: READERS.into(), ..AclNames::default() },
        };
        let answer = Answer {
            position: Some(self.position()),
            caches,
            ..Answer::plain(RequestNumber(1), Ok(Reply::Contents { contents, stat }))
        };
        let holder = &mut self.holders[holder];
        holder.waiting.push(holder.cache.ticket(file(), None));
        holder.answers.push((holder.leases, Arc::new(answer)));
    }

    fn arrive(&mut self, holder: usize, at: usize, again: bool) {
        let holder = &mut self.holders[holder];
        let (lease, answer) = holder.answers[at].clone();
        if !again {
            holder.answers.remove(at);
        }
        let ticket = holder.waiting.remove(0);
        if lease == holder.leases {
            holder.cache.fill(ticket, PRINCIPAL, &answer);
            holder.cache.shrink(|_| false);
        }
    }

    fn begin(&mut self) {
        self.rounds += 1;
        let round = RoundId(self.rounds);
        let floor = self.position();
        for (whose, items) in self.cachers.begin(round, vec![Item::new(file(), ItemKind::Data)]) {
            let index = (0..self.holders.len()).find(|index| session(*index) == whose).expect("known");
            let holder = &mut self.holders[index];
            let sequence = Sequence(holder.sequences);
            holder.sequences += 1;
            let told = Told { sequence, epoch: self.epoch, items: items.clone(), floor: floor.clone() };
            holder.told.push(told);
            self.cachers.told(whose, sequence, items);
        }
        self.round = Some(round);
    }

    fn commit(&mut self) {
        let Some(round) = self.round.take() else { return };
        self.cachers.finish(round);
        self.index += 1;
        self.generation = Generation(self.generation.0 + 1);
    }

    fn invalidate(&mut self, model: &Fills, holder: usize, at: usize) {
        let told = self.holders[holder].told.remove(at);
        let floor = match model.omission {
            Some(Omission::FloorForgotten) => Position { cell: told.floor.cell, ..Position::default() },
            _ => told.floor,
        };
        self.holders[holder].cache.invalidate(&told.items, &floor);
        if told.epoch == self.epoch {
            self.cachers.acknowledged(session(holder), told.sequence);
        }
    }

    fn fail_over(&mut self) {
        self.epoch = self.epoch.next();
        self.index += 1;
        self.cachers = Cachers::default();
        self.round = None;
        for (index, holder) in self.holders.iter_mut().enumerate() {
            let sequence = Sequence(holder.sequences);
            holder.sequences += 1;
            holder.fail_overs.push((sequence, self.epoch));
            if !holder.has_lapsed {
                self.cachers.suspect(session(index), sequence);
            }
        }
    }

    fn fail_over_heard(&mut self, holder: usize) {
        let (sequence, epoch) = self.holders[holder].fail_overs.remove(0);
        self.holders[holder].cache.flush_cell(&CellName::new(CELL), Some(epoch));
        if epoch == self.epoch {
            self.cachers.acknowledged(session(holder), sequence);
        }
    }

    fn take(&mut self, model: &Fills, action: FillAction) {
        match action {
            FillAction::Read(holder) => {
                self.left.reads -= 1;
                self.read(holder);
            }
            FillAction::Arrive(holder, at) => self.arrive(holder, at, false),
            FillAction::ArriveTwice(holder, at) => {
                self.left.repetitions -= 1;
                self.arrive(holder, at, true);
            }
            FillAction::Invalidate(holder, at) => self.invalidate(model, holder, at),
            FillAction::FailOverHeard(holder) => self.fail_over_heard(holder),
            FillAction::Write => {
                self.left.writes -= 1;
                self.begin();
            }
            FillAction::Commit => self.commit(),
            FillAction::Lapse(holder) => {
                self.left.lapses -= 1;
                self.holders[holder].has_lease = false;
            }
            FillAction::LapseAtMaster(holder) => {
                self.holders[holder].has_lapsed = true;
                self.cachers.gone(session(holder));
            }
            FillAction::Grant(holder) => {
                let holder = &mut self.holders[holder];
                holder.cache.flush_all();
                (holder.has_lease, holder.has_lapsed) = (true, false);
                holder.leases += 1;
            }
            FillAction::FailOver => {
                self.left.fail_overs -= 1;
                self.fail_over();
            }
        }
        self.look();
    }

    /// What the caches would show, without touching them.
    fn look(&mut self) {
        for holder in self.holders.iter().filter(|holder| holder.has_lease && holder.cache.names() > 0) {
            if let Some(hit) = holder.cache.clone().contents(&file(), None, PRINCIPAL) {
                self.has_hit = true;
                self.stale |= hit.value.1.content_generation != self.generation;
            }
        }
    }
}

impl Model for Fills {
    type State = FillWorld;
    type Action = FillAction;

    fn init_states(&self) -> Vec<FillWorld> {
        vec![FillWorld::begun(self)]
    }

    fn actions(&self, world: &FillWorld, actions: &mut Vec<FillAction>) {
        if self.stop.is_set() || world.stale {
            return;
        }
        for (index, holder) in world.holders.iter().enumerate() {
            if world.left.reads > 0 {
                actions.push(FillAction::Read(index));
            }
            if !holder.waiting.is_empty() {
                actions.extend((0..holder.answers.len()).map(|at| FillAction::Arrive(index, at)));
                if world.left.repetitions > 0 {
                    actions.extend((0..holder.answers.len()).map(|at| FillAction::ArriveTwice(index, at)));
                }
            }
            actions.extend((0..holder.told.len()).map(|at| FillAction::Invalidate(index, at)));
            if !holder.fail_overs.is_empty() {
                actions.push(FillAction::FailOverHeard(index));
            }
            if holder.has_lease && world.left.lapses > 0 {
                actions.push(FillAction::Lapse(index));
            }
            if !holder.has_lease {
                actions.push(FillAction::Grant(index));
                if !holder.has_lapsed {
                    actions.push(FillAction::LapseAtMaster(index));
                }
            }
        }
        if world.left.writes > 0 && world.round.is_none() {
            actions.push(FillAction::Write);
        }
        if world.round.is_some_and(|round| world.cachers.is_ready(round)) {
            actions.push(FillAction::Commit);
        }
        if world.left.fail_overs > 0 {
            actions.push(FillAction::FailOver);
        }
    }

    fn next_state(&self, last_state: &FillWorld, action: FillAction) -> Option<FillWorld> {
        let mut world = last_state.clone();
        world.take(self, action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P-LIN", |_, world: &FillWorld| !world.stale),
            Property::sometimes("a cache has something to show", |_, world: &FillWorld| world.has_hit),
            Property::sometimes("a write is committed", |_, world: &FillWorld| world.generation.0 > 1),
        ]
    }
}

impl Searched for Fills {
    fn name(&self) -> &'static str {
        "fills"
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn story(&self, actions: &[FillAction]) -> Vec<String> {
        let mut world = FillWorld::begun(self);
        let mut story = Vec::new();
        for action in actions {
            world.take(self, *action);
            story.push(format!("{action}; generation {} at {}", world.generation, world.position()));
        }
        if world.stale {
            story.push("broken: a cache shows what is older".to_owned());
        }
        story
    }
}
