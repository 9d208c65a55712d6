//! A directory whose node is in one cell and whose children are in another (`route-3`, `route-4`): who creates in it and who
//! deletes it, through two routers, which crash. Cells and routers are those of production, as in
//! [`crossing`](super::crossing); what is around the cells' states is in [`cells`]. Cell a has the node, cell b the children.

mod cells;
mod world;

use std::fmt;

use stateright::{Model, Property};

use super::crossing::cells::CELLS;
use super::omission::Omission;
use super::search::{Searched, Stop};
pub use world::DirectoryWorld;
use world::{Broken, Shared};

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryBounds {
    /// Of each client.
    pub wishes: [Wishes; 2],
    /// Routers that crash.
    pub crashes: u8,
    /// Clients that ask again through another router, though theirs goes on.
    pub moves: u8,
    /// Clients that ask again what was not possible.
    pub repetitions: u8,
    /// Times that a router is told of what was left behind while something goes on.
    pub chores: u8,
    /// Requests that a cell cannot decide by itself: two that are in each other's way ask eight times each.
    pub needs: u8,
}

/// How often a client may ask something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wishes {
    /// To delete the directory.
    pub deletes: u8,
    /// To create it again.
    pub directories: u8,
    /// To create a child.
    pub children: u8,
    /// To delete it.
    pub child_deletes: u8,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// To delete the directory.
    DeleteDirectory,
    /// To create it again.
    CreateDirectory,
    /// To create a child.
    CreateChild,
    /// To delete the last one that it created.
    DeleteChild,
}

/// All worlds within some bounds.
#[derive(Clone, Debug)]
pub struct Directories {
    bounds: DirectoryBounds,
    omission: Option<Omission>,
    stop: Stop,
    shared: Shared,
}

impl Directories {
    /// One deletion, one child, and a router that crashes: what can be searched to its end in a minute.
    pub fn new() -> Self {
        let bounds = Self::small().bounds;
        Self::of(DirectoryBounds { crashes: 1, chores: 0, needs: 6, ..bounds })
    }

    /// More of everything: more than can be searched to the end.
    pub fn large() -> Self {
        let first = Wishes { deletes: 2, directories: 1, children: 1, child_deletes: 1 };
        let second = Wishes { children: 2, deletes: 1, child_deletes: 1, directories: 1 };
        let wishes = [first, second];
        Self::of(DirectoryBounds { wishes, crashes: 2, moves: 1, repetitions: 2, chores: 2, needs: 16 })
    }

    /// One deletion and one child, and nothing that fails.
    pub fn small() -> Self {
        let first = Wishes { deletes: 1, ..Wishes::default() };
        let second = Wishes { children: 1, ..Wishes::default() };
        let wishes = [first, second];
        Self::of(DirectoryBounds { wishes, crashes: 0, moves: 0, repetitions: 0, chores: 1, needs: 3 })
    }

    /// A little, without a part of the protocol.
    pub fn without(omission: Omission) -> Self {
        Self { omission: Some(omission), ..Self::small() }
    }

    fn of(bounds: DirectoryBounds) -> Self {
        Self { bounds, omission: None, stop: Stop::default(), shared: Shared::default() }
    }
}

impl Default for Directories {
    fn default() -> Self {
        Self::new()
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryAction {
    /// A client asks.
    Ask(usize, Wish),
    /// A client asks the same again, through that router.
    AskAgain(usize, usize),
    /// A client does not wait for its router any longer.
    Move(usize),
    /// A router's next request arrives at a cell, which does it.
    Do(usize, usize),
    /// A cell's next answer arrives at a router.
    Hear(usize, usize),
    /// A router is told what a cell has left behind.
    Tell(usize, usize),
    /// A router crashes.
    Crash(usize),
    /// A request of a router that has crashed arrives.
    DoLate(usize, usize),
    /// All others of it do not.
    Lose(usize, usize),
}

impl fmt::Display for DirectoryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(client, wish) => write!(f, "c{} asks: {wish:?}", client + 1),
            Self::AskAgain(client, router) => {
                write!(f, "c{} asks the same again, through r{}", client + 1, router + 1)
            }
            Self::Move(client) => write!(f, "c{} loses its connection", client + 1),
            Self::Do(router, cell) => write!(f, "{} gets a request of r{}", CELLS[*cell], router + 1),
            Self::Hear(router, cell) => write!(f, "r{} gets an answer of {}", router + 1, CELLS[*cell]),
            Self::Tell(router, cell) => {
                write!(f, "{} tells r{} what was left behind", CELLS[*cell], router + 1)
            }
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

impl Model for Directories {
    type State = DirectoryWorld;
    type Action = DirectoryAction;

    fn init_states(&self) -> Vec<DirectoryWorld> {
        vec![DirectoryWorld::begun(self)]
    }

    fn actions(&self, world: &DirectoryWorld, actions: &mut Vec<DirectoryAction>) {
        if !self.stop.is_set() {
            world.actions(self, actions);
        }
    }

    fn next_state(&self, last_state: &DirectoryWorld, action: DirectoryAction) -> Option<DirectoryWorld> {
        let mut world = last_state.clone();
        world.take(self, action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P-TREE", |_, world: &DirectoryWorld| world.broken != Some(Broken::Orphan)),
            Property::always("P-DUR", |_, world: &DirectoryWorld| {
                !matches!(world.broken, Some(Broken::Reborn | Broken::Lost))
            }),
            Property::always("route-4", |_, world: &DirectoryWorld| {
                !matches!(world.broken, Some(Broken::Left | Broken::Stuck))
            }),
            Property::always("every client is answered", |_, world: &DirectoryWorld| {
                world.broken != Some(Broken::Unanswered)
            }),
            Property::sometimes("a directory is deleted", |_, world: &DirectoryWorld| world.has_deleted()),
            Property::sometimes("a child is created", |_, world: &DirectoryWorld| world.has_child()),
            Property::sometimes("a seal is taken back", |_, world: &DirectoryWorld| world.seen.unsealed),
            Property::sometimes("a root record is dropped", |_, world: &DirectoryWorld| world.seen.dropped),
            Property::sometimes("a router is told of a seal that was left", |_, world: &DirectoryWorld| {
                world.seen.told
            }),
        ]
    }
}

impl Searched for Directories {
    fn name(&self) -> &'static str {
        "directories"
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn story(&self, actions: &[DirectoryAction]) -> Vec<String> {
        let mut world = DirectoryWorld::begun(self);
        let mut story = Vec::new();
        for action in actions {
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
