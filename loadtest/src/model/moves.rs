//! A directory whose children move from one cell to the other and back while they are in use (`move-1` to `move-4`): two
//! routers carry it out, which crash, somebody may give it up, and two clients write, lock, delete and create through
//! them. Cells and routers are those of production, as in [`crossing`](super::crossing); what is around the cells' states is
//! in [`cells`], what has to be true in [`onlooker`]. Cell a is the home cell and has everything at first.
//!
//! Nobody caches here: what keeps cached copies of what leaves from being old is an invalidation like any other, as in
//! [`fills`](super::fills). So packing waits for nothing, and routers learn of a map only when they need it.

mod cells;
mod onlooker;
mod world;

use std::fmt;
use std::sync::Arc;

use stateright::{Model, Property};

use super::crossing::cells::CELLS;
use super::hash_of;
use super::omission::Omission;
use super::search::{Searched, Stop, Walked, drawn};
use onlooker::Broken;
use world::Shared;

pub use world::MoveWorld;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MoveBounds {
    /// Of each client.
    pub wishes: [FileWishes; 2],
    /// The first client has the lock when the world begins.
    pub begins_locked: bool,
    /// The first client's session ends.
    pub ends: u8,
    /// Changes that are begun: the first moves the children, the next moves them back.
    pub changes: u8,
    /// Those that the administrator gives up.
    pub give_ups: u8,
    /// Routers that crash.
    pub crashes: u8,
    /// Clients that ask again through another router, though theirs goes on.
    pub hops: u8,
    /// Clients that ask again what was not possible.
    pub repetitions: u8,
    /// Times that a router is told of a change while something goes on.
    pub chores: u8,
    /// Requests that are routed again while something goes on.
    pub pauses: u8,
}

/// How often a client may ask something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileWishes {
    /// To write the file.
    pub writes: u8,
    /// To have its lock, alone.
    pub locks: u8,
    /// To give that back.
    pub releases: u8,
    /// To delete the file.
    pub deletes: u8,
    /// To create it again.
    pub creates: u8,
}

impl FileWishes {
    /// Those of that kind.
    pub const fn of(&mut self, wish: Wish) -> &mut u8 {
        match wish {
            Wish::Write => &mut self.writes,
            Wish::Lock => &mut self.locks,
            Wish::Release => &mut self.releases,
            Wish::Delete => &mut self.deletes,
            Wish::Create => &mut self.creates,
        }
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// To write the file.
    Write,
    /// To have its lock.
    Lock,
    /// To give that back.
    Release,
    /// To delete the file.
    Delete,
    /// To create it again.
    Create,
}

/// All worlds within some bounds.
#[derive(Clone, Debug)]
pub struct Moves {
    bounds: MoveBounds,
    omission: Option<Omission>,
    /// What has happened before the search begins.
    opening: Arc<[MoveAction]>,
    name: &'static str,
    stop: Stop,
    shared: Shared,
}

impl Moves {
    /// One change that may be given up, both routers told of it, one that crashes, a lock that is held, and a write: more
    /// than is searched to its end in a moment.
    pub fn new() -> Self {
        Self::of(MoveBounds { crashes: 1, hops: 0, chores: 1, ..Self::small().bounds })
    }

    /// There and back, and more of everything.
    pub fn large() -> Self {
        let first = FileWishes { writes: 2, locks: 1, releases: 1, deletes: 1, creates: 1 };
        let second = FileWishes { writes: 1, locks: 1, releases: 1, ..FileWishes::default() };
        let bounds = MoveBounds {
            wishes: [first, second],
            begins_locked: true,
            ends: 0,
            changes: 2,
            give_ups: 1,
            crashes: 2,
            hops: 1,
            repetitions: 2,
            chores: 3,
            pauses: 3,
        };
        Self { name: "moves-large", ..Self::of(bounds) }
    }

    /// One change that may be given up, which one router carries out, a lock that is held, and a write that is asked
    /// again.
    pub fn small() -> Self {
        let write = FileWishes { writes: 1, ..FileWishes::default() };
        Self::of(MoveBounds {
            wishes: [FileWishes::default(), write],
            begins_locked: true,
            ends: 0,
            changes: 1,
            give_ups: 1,
            crashes: 0,
            hops: 1,
            repetitions: 0,
            chores: 0,
            pauses: 0,
        })
    }

    /// The same change, which both routers carry out, and nobody who asks for anything.
    pub fn unused() -> Self {
        let wishes = [FileWishes::default(); 2];
        Self::of(MoveBounds { wishes, hops: 0, chores: 1, ..Self::small().bounds })
    }

    /// The same, while the session of the client with the lock ends.
    pub fn ended() -> Self {
        Self { name: "moves-ended", ..Self::of(MoveBounds { ends: 1, ..Self::unused().bounds }) }
    }

    /// The same with one router.
    pub fn ended_small() -> Self {
        Self::of(MoveBounds { chores: 0, ..Self::ended().bounds })
    }

    /// Little more than is needed to miss that part of the protocol.
    pub fn without(omission: Omission) -> Self {
        let write = FileWishes { writes: 1, ..FileWishes::default() };
        let one = |first| [first, FileWishes::default()];
        let bare = MoveBounds {
            wishes: one(FileWishes::default()),
            begins_locked: false,
            give_ups: 0,
            hops: 0,
            ..Self::small().bounds
        };
        let bounds = match omission {
            Omission::MoveNotDecided => MoveBounds { give_ups: 1, ..bare },
            Omission::ParcelNotDropped => MoveBounds { give_ups: 1, chores: 1, ..bare },
            Omission::NotPacked | Omission::KeysLeftBehind => MoveBounds { wishes: one(write), ..bare },
            Omission::AnswersLeftBehind => MoveBounds { wishes: one(write), hops: 1, ..bare },
            Omission::OrphanKept => MoveBounds { begins_locked: true, ends: 1, ..bare },
            Omission::LocksLeftBehind => MoveBounds { begins_locked: true, ..bare },
            Omission::StampLeftBehind => {
                MoveBounds { wishes: one(FileWishes { deletes: 1, creates: 1, ..write }), ..bare }
            }
            _ => bare,
        };
        Self { omission: Some(omission), ..Self::of(bounds) }
    }

    fn of(bounds: MoveBounds) -> Self {
        let (opening, stop, shared) = Default::default();
        Self { bounds, omission: None, opening, name: "moves", stop, shared }
    }

    fn opened(&self) -> MoveWorld {
        let mut world = MoveWorld::begun(self);
        self.opening.iter().for_each(|action| world.take(self, *action));
        world
    }
}

impl Default for Moves {
    fn default() -> Self {
        Self::new()
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveAction {
    /// The administrator writes a change into the map.
    Begin,
    /// The administrator takes it away again.
    GiveUp,
    /// A client asks.
    Ask(usize, Wish),
    /// A client asks the same again, through that router.
    AskAgain(usize, usize),
    /// A client does not wait for its router any longer.
    Hop(usize),
    /// A client's session ends.
    End(usize),
    /// A cell is told so, by the router that the client was last heard through.
    TellEnd(usize, usize),
    /// A router's next request arrives at a cell, which does it.
    Do(usize, usize),
    /// A cell's next answer arrives at a router.
    Hear(usize, usize),
    /// A router that pauses goes on.
    Wake(usize),
    /// A router is told by the home cell what is left of a change.
    Tell(usize),
    /// A router crashes.
    Crash(usize),
    /// A request of a router that has crashed arrives.
    DoLate(usize, usize),
    /// All others of it do not.
    Lose(usize, usize),
}

impl fmt::Display for MoveAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("a change begins"),
            Self::GiveUp => f.write_str("the change is given up"),
            Self::Ask(client, wish) => write!(f, "c{} asks: {wish:?}", client + 1),
            Self::AskAgain(client, router) => {
                write!(f, "c{} asks the same again, through r{}", client + 1, router + 1)
            }
            Self::Hop(client) => write!(f, "c{} loses its connection", client + 1),
            Self::End(client) => write!(f, "the session of c{} ends", client + 1),
            Self::TellEnd(client, cell) => {
                write!(f, "{} hears that the session of c{} is over", CELLS[*cell], client + 1)
            }
            Self::Do(router, cell) => write!(f, "{} gets a request of r{}", CELLS[*cell], router + 1),
            Self::Hear(router, cell) => write!(f, "r{} gets an answer of {}", router + 1, CELLS[*cell]),
            Self::Wake(router) => write!(f, "r{} has paused long enough", router + 1),
            Self::Tell(router) => write!(f, "r{} is told what is left of the change", router + 1),
            Self::Crash(router) => write!(f, "r{} crashes", router + 1),
            Self::DoLate(router, cell) => {
                write!(f, "{} gets a request of the r{} that crashed", CELLS[*cell], router + 1)
            }
            Self::Lose(router, cell) => {
                write!(f, "what the r{} that crashed has sent to {} is lost", router + 1, CELLS[*cell])
            }
        }
    }
}

/// That nothing of this is found.
fn is_not(world: &MoveWorld, broken: &[Broken]) -> bool {
    world.broken.is_none_or(|it| !broken.contains(&it))
}

impl Model for Moves {
    type State = MoveWorld;
    type Action = MoveAction;

    fn init_states(&self) -> Vec<MoveWorld> {
        vec![self.opened()]
    }

    fn actions(&self, world: &MoveWorld, actions: &mut Vec<MoveAction>) {
        if !self.stop.is_set() {
            world.actions(self, actions);
        }
    }

    fn next_state(&self, last_state: &MoveWorld, action: MoveAction) -> Option<MoveWorld> {
        let mut world = last_state.clone();
        world.take(self, action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("P-LOCK", |_, world: &MoveWorld| {
                is_not(world, &[Broken::TwoOwners, Broken::Stray, Broken::TwoHolders, Broken::Held])
            }),
            Property::always("P-DUR", |_, world: &MoveWorld| is_not(world, &[Broken::Lost, Broken::Refused])),
            Property::always("P-ONCE", |_, world: &MoveWorld| {
                is_not(world, &[Broken::Twice, Broken::Unfounded])
            }),
            Property::always("P-SEQ", |_, world: &MoveWorld| is_not(world, &[Broken::Fallen])),
            Property::always("P-TREE", |_, world: &MoveWorld| is_not(world, &[Broken::Orphan])),
            Property::always("move-4", |_, world: &MoveWorld| is_not(world, &[Broken::Left, Broken::Stuck])),
            Property::always("every client is answered", |_, world: &MoveWorld| {
                is_not(world, &[Broken::Unanswered])
            }),
            Property::sometimes("the file moves, and all know it", |_, world: &MoveWorld| world.has_moved()),
            Property::sometimes("a change is given up, and all know it", |_, world: &MoveWorld| {
                world.was_given_up()
            }),
            Property::sometimes("a change is given up when all is packed", |_, world: &MoveWorld| {
                world.seen.given_up_packed
            }),
            Property::sometimes("the file moves while it is locked", |_, world: &MoveWorld| {
                world.seen.moved_locked
            }),
            Property::sometimes("both routers carry out the same change", |_, world: &MoveWorld| {
                world.seen.both_at_work
            }),
        ];
        if self.bounds.wishes != [FileWishes::default(); 2] {
            properties.extend([
                Property::sometimes("a request waits for the move", |_, world: &MoveWorld| world.seen.waited),
                Property::sometimes("an answer of the source is repeated", |_, world: &MoveWorld| {
                    world.seen.repeated
                }),
            ]);
        }
        if self.bounds.ends > 0 {
            properties
                .push(Property::sometimes("a session ends while its lock moves", |_, world: &MoveWorld| {
                    world.seen.ended_packed
                }));
        }
        properties
    }
}

impl Searched for Moves {
    fn name(&self) -> &'static str {
        self.name
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn story(&self, actions: &[MoveAction]) -> Vec<String> {
        let mut world = MoveWorld::begun(self);
        let mut story = Vec::new();
        for action in self.opening.iter().chain(actions) {
            let detail = world.detail(*action);
            world.take(self, *action);
            story.push(format!("{action}{detail}"));
        }
        if let Some(broken) = world.broken {
            story.push(format!("broken: {broken}"));
        }
        story
    }
}

impl Walked for Moves {
    fn after_walk(&self, walk: u64, steps: usize) -> Self {
        let mut world = MoveWorld::begun(self);
        let (mut opening, mut actions) = (Vec::new(), Vec::new());
        for step in 0..steps {
            actions.clear();
            world.actions(self, &mut actions);
            let Some(action) = drawn(&actions, hash_of(&(walk, step))) else { break };
            world.take(self, action);
            opening.push(action);
        }
        Self { opening: opening.into(), ..self.clone() }
    }

    fn opening(&self) -> usize {
        self.opening.len()
    }
}
