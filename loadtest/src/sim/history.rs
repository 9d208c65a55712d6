//! What was asked, answered and told in a world, in true time, and what the cells' logs say was done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::state::{AppliedOutcome, Command, HolderId, LogEntry, Outcome, State};
use hasp_client::HandleEvent;
use hasp_proto::crossing::CrossOp;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventMask;
use hasp_proto::id::{CellName, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, Stat};
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Reply, Use};

use super::clock::Moment;
use super::lock_log::LockLog;
use super::script;

/// A call of an application. A client makes one after the other.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which client.
    pub client: usize,
    /// Which of its lives: a client that starts again has another session.
    pub life: u64,
    /// Of which node.
    pub name: Name,
    /// For what its handle is, or is to be.
    pub r#use: Use,
    /// That its handle is of; none of an `Open`.
    pub instance: Option<Instance>,
    /// What.
    pub what: What,
    /// When.
    pub begun: Moment,
    /// When it was answered, and how; `None` while it is not.
    pub told: Option<Told>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// To open a node that should be there.
    Open,
    /// To open a node and to create it with these contents if it is absent.
    Create(Bytes),
    /// Contents and metadata.
    Read,
    /// Metadata.
    Stat,
    /// The children.
    List,
    /// No two writes of a world have the same contents.
    Write(Bytes),
    /// The same, under a sequencer of a lock.
    Guarded {
        /// What is written.
        contents: Bytes,
        /// Whose.
        lock: Name,
        /// Of the acquisition.
        lock_generation: u64,
    },
    /// To replace the ACL names.
    SetAcl(AclNames),
    /// To delete the node.
    Delete,
    /// To hold its lock.
    Acquire(LockMode),
    /// To hold it no more.
    Release,
    /// For the sequencer.
    Sequencer,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it came.
    pub at: Moment,
    /// It came at once, from the client's own cache.
    pub is_cached: bool,
    /// What it reflects.
    pub position: Option<Position>,
    /// What it says.
    pub result: Result<Reply, ErrorCode>,
}

/// A handle that is told of events.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Whose.
    pub client: usize,
    /// In which of its lives.
    pub life: u64,
    /// Of which node.
    pub name: Name,
    /// Of that name.
    pub instance: Instance,
    /// Told of what.
    pub told: EventMask,
    /// When its `Open` was answered.
    pub opened: Moment,
    /// As of when the node was shown that came with the handle.
    pub position: Position,
    /// It was opened by a read, so everything after that position is told.
    pub is_exact: bool,
    /// When it was closed, or good for nothing any more.
    pub ended: Option<Moment>,
}

/// Something that was told to a handle.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Which of the [`History::watches`].
    pub watch: usize,
    /// When.
    pub at: Moment,
    /// What.
    pub event: HandleEvent,
}

impl Asked {
    /// Index of the answer's position, if it was a good one.
    pub fn index(&self) -> Option<u64> {
        Some(self.told.as_ref()?.position.as_ref()?.index)
    }

    /// What a successful call brought.
    pub fn reply(&self) -> Option<&Reply> {
        self.told.as_ref()?.result.as_ref().ok()
    }

    /// Contents that it would write.
    pub fn contents(&self) -> Option<&Bytes> {
        match &self.what {
            What::Create(contents) | What::Write(contents) | What::Guarded { contents, .. } => Some(contents),
            _ => None,
        }
    }

    /// Whether it changed who may do what, as its answer says.
    pub fn changes_rights(&self) -> bool {
        self.has_changed() && (matches!(self.what, What::SetAcl(_)) || script::is_acl_file(&self.name))
    }

    /// Whether it changed the node, as its answer says.
    pub fn has_changed(&self) -> bool {
        matches!(
            self.reply(),
            Some(
                Reply::Written { .. }
                    | Reply::Deleted
                    | Reply::Acquired { .. }
                    | Reply::AclSet { .. }
                    | Reply::Opened { created: true, .. }
            )
        )
    }
}

/// What a node was from some point of its cell's history on.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The command that made it so.
    pub index: u64,
    /// When that was committed.
    pub at: Moment,
    /// `None`: there was no such node.
    pub node: Option<(Stat, Bytes)>,
    /// It went to another cell, or came from one.
    pub has_moved: bool,
}

/// What was committed in one cell.
#[derive(Debug, Default)]
pub struct Truth {
    /// After all of it.
    pub state: State,
    /// Of each name that a script knows, oldest first.
    pub versions: BTreeMap<Name, Vec<Version>>,
    /// What became of its locks.
    pub locks: LockLog,
    /// Maps that it went by, oldest first.
    pub maps: Vec<Goes>,
}

/// By which map a cell goes.
#[derive(Debug)]
pub struct Goes {
    since: (u64, Moment),
    by: PartitionMap,
    /// What moves by it has left.
    has_packed: bool,
}

impl Goes {
    fn has(&self, cell: &CellName, name: &Name) -> bool {
        self.by.owner(name) == Some(cell) && !(self.has_packed && self.by.moves(name))
    }
}

impl Truth {
    /// Nothing yet; these names will be followed.
    pub fn of(names: &[Name]) -> Self {
        Self {
            state: State::default(),
            versions: names.iter().map(|name| (name.clone(), Vec::new())).collect(),
            locks: LockLog::default(),
            maps: Vec::new(),
        }
    }

    /// The next entry was committed. Calls `look` for each command with the states around it.
    pub fn commit(
        &mut self,
        at: Moment,
        entry: &LogEntry,
        mut look: impl FnMut(&State, &State, &Command, &AppliedOutcome),
    ) {
        for command in &entry.commands {
            let before = self.state.clone();
            let one = LogEntry { epoch: entry.epoch, commands: vec![command.clone()] };
            let outcomes = self.state.apply(&one);
            look(&before, &self.state, command, &outcomes[0]);
            if !matches!(outcomes[0].outcome, Outcome::Rejected(_)) {
                self.locks.note(at, &before, &self.state, command);
            }
            self.note(at, moves(command));
        }
    }

    fn note(&mut self, at: Moment, has_moved: bool) {
        let index = self.state.index();
        if self.state.genesis().is_some() && (has_moved || self.maps.is_empty()) {
            let (by, has_packed) = (self.state.map().clone(), self.state.has_packed());
            self.maps.push(Goes { since: (index, at), by, has_packed });
        }
        for (name, versions) in &mut self.versions {
            let node = self.state.node(name);
            let last = versions.last().and_then(|version| version.node.as_ref());
            let is_same = match (node, last) {
                (None, None) => true,
                (Some(node), Some((stat, _))) => {
                    (node.instance, node.content_generation, node.lock_generation, node.acl_generation)
                        == (stat.instance, stat.content_generation, stat.lock_generation, stat.acl_generation)
                }
                _ => false,
            };
            if !is_same {
                let node = node.map(|node| (node.stat(), node.contents.clone()));
                let has_moved = has_moved && *name != script::map_file();
                versions.push(Version { index, at, node, has_moved });
            }
        }
    }

    /// Since when the cell had the name at that index; `None` if it was on its way to another cell, or was there.
    pub fn had_since(&self, name: &Name, index: u64) -> Option<Moment> {
        let count = self.maps.partition_point(|goes| goes.since.0 <= index);
        let own = self.state.position().cell;
        let had = self.maps[..count].iter().rev().take_while(|goes| goes.has(&own, name));
        had.last().map(|goes| goes.since.1)
    }

    /// Whether the name has left for another cell at that index.
    pub fn has_left(&self, name: &Name, index: u64) -> bool {
        self.count_at(name, index) > 0 && self.is_elsewhere(name, index)
    }

    /// Whether another cell has the name at that index, or none, since it is on its way.
    pub fn is_elsewhere(&self, name: &Name, index: u64) -> bool {
        !self.maps.is_empty() && self.had_since(name, index).is_none()
    }

    /// How many versions there were at that index: 0 before the node was first there.
    pub fn count_at(&self, name: &Name, index: u64) -> usize {
        self.versions.get(name).map_or(0, |versions| versions.partition_point(|it| it.index <= index))
    }

    /// What the node was at that index.
    pub fn node_at(&self, name: &Name, index: u64) -> Option<&(Stat, Bytes)> {
        let count = self.count_at(name, index);
        self.versions.get(name)?[..count].last()?.node.as_ref()
    }
}

/// Whether what nodes come and go by this command go to other cells, and come from there.
fn moves(command: &Command) -> bool {
    matches!(
        command,
        Command::Cross(
            CrossOp::Pack { .. } | CrossOp::Adopt(_) | CrossOp::Finish { .. } | CrossOp::GiveUp { .. }
        )
    ) || matches!(command, Command::ClientWrite(write) if *write.write.name() == script::map_file())
}

/// A whole run.
#[derive(Debug, Default)]
pub struct History {
    /// Calls, in the order in which they began.
    pub asked: Vec<Asked>,
    /// Handles that are told of events, in the order in which they were opened.
    pub watches: Vec<Watch>,
    /// What they were told, in the order in which they heard it.
    pub heard: Vec<Heard>,
    /// What lock-delay was asked for with each handle.
    pub lock_delays: BTreeMap<HolderId, Duration>,
    /// Clients that speak with cells, without a router between them.
    pub alone: BTreeSet<usize>,
    /// By cell.
    pub truths: BTreeMap<CellName, Truth>,
}

impl History {
    /// The truth that answers at that position are about.
    pub fn truth(&self, position: &Position) -> Option<&Truth> {
        self.truths.get(&position.cell)
    }
}
