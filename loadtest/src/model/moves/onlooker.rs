//! What somebody who sees everything makes of it: what the file has to be, wherever it is.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use hasp_cell::state::{Node, State};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::SessionId;
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, Reply};

use super::cells::{Effect, What, file, prefix};
use crate::model::crossing::cells::CELLS;

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    /// Both cells serve a name, or have a node of it.
    TwoOwners,
    /// A cell has a node that it does not serve.
    Stray,
    /// A lock was given to somebody while another has it.
    TwoHolders,
    /// The cell that serves the file has another one than there must be, or none.
    Lost,
    /// A handle is refused whose file is there.
    Refused,
    /// A write was done again.
    Twice,
    /// An answer is not that of what was done.
    Unfounded,
    /// A number is not greater than those before it.
    Fallen,
    /// A child without its directory.
    Orphan,
    /// A client whose session has ended holds a lock for good.
    Held,
    /// A change that does not end, or something else that was left behind for good.
    Left,
    /// All is done, and the file's directory is of no use.
    Stuck,
    /// Nothing is on its way to somebody who waits.
    Unanswered,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoOwners => "both cells have the file, or would make it",
            Self::Stray => "a cell has the file that is not to serve it",
            Self::TwoHolders => "a lock was given to somebody while another has it",
            Self::Lost => "the file is not as the last write has left it",
            Self::Refused => "a handle is refused whose file is there",
            Self::Twice => "a write was done again",
            Self::Unfounded => "an answer is not that of what was done",
            Self::Fallen => "a number is not greater than those given out before it",
            Self::Orphan => "a child without its directory",
            Self::Held => "a client whose session has ended holds a lock for good",
            Self::Left => "something was left behind for good",
            Self::Stuck => "a directory in which nobody can create or that nobody can delete",
            Self::Unanswered => "a client waits for nothing",
        })
    }
}

/// The file, as the last write has left it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct File {
    instance: u64,
    written: u64,
    contents: Bytes,
    /// The generation of the last time that it was free.
    locked: u64,
    holder: Option<SessionId>,
}

impl File {
    fn of(node: &Node) -> Self {
        Self {
            instance: node.instance.0,
            written: node.content_generation.0,
            contents: node.contents.clone(),
            locked: node.lock_generation.0,
            holder: node.lock.holders().map(|(holder, _)| holder.session).next(),
        }
    }
}

impl File {
    fn without(mut self, holder: SessionId) -> Self {
        self.holder.take_if(|it| *it == holder);
        self
    }
}

/// All that was done.
#[derive(Clone, Debug, Hash)]
pub(super) struct Onlooker {
    file: Option<File>,
    /// What was given out for each write of a client.
    done: BTreeMap<(SessionId, u64), Option<u64>>,
    /// The last of that.
    stamp: u64,
    /// Whose session has ended: cells hear of that some time.
    ended: Option<SessionId>,
}

impl Onlooker {
    /// Of a file that is there, and that nobody has locked.
    pub(super) fn begun(node: &Node) -> Self {
        let file = File::of(node);
        Self { stamp: file.locked.max(file.written), file: Some(file), done: BTreeMap::new(), ended: None }
    }

    /// Which file it is, if there is one.
    pub(super) fn instance(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.instance)
    }

    /// Whether somebody has its lock.
    pub(super) fn is_locked(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.holder.is_some())
    }

    /// A client's session has ended: nothing is its own any more.
    pub(super) fn ended(&mut self, client: SessionId) {
        self.ended = Some(client);
        self.file = self.file.take().map(|file| file.without(client));
    }

    /// A write was done.
    pub(super) fn note(&mut self, effect: Effect) -> Result<(), Broken> {
        let Effect { client, number, what } = effect;
        let stamp = what.stamp();
        if self.done.insert((client, number), stamp).is_some() {
            return Err(Broken::Twice);
        }
        if let Some(stamp) = stamp {
            if stamp <= self.stamp {
                return Err(Broken::Fallen);
            }
            self.stamp = stamp;
        }
        match (what, &mut self.file) {
            (What::Created(stat), None) => {
                let (instance, written, locked) =
                    (stat.instance.0, stat.content_generation.0, stat.lock_generation.0);
                self.file = Some(File { instance, written, contents: Bytes::new(), locked, holder: None });
            }
            (What::Written(generation, contents), Some(file)) => {
                (file.written, file.contents) = (generation.0, contents);
            }
            (What::Acquired(generation), Some(file)) => {
                file.locked = generation.0;
                if file.holder.replace(client).is_some_and(|other| other != client) {
                    return Err(Broken::TwoHolders);
                }
            }
            (What::Released, Some(file)) => file.holder = None,
            (What::Deleted, Some(_)) => self.file = None,
            (What::Created(_), Some(_))
            | (What::Written(..) | What::Acquired(_) | What::Released | What::Deleted, None) => {
                return Err(Broken::Lost);
            }
        }
        Ok(())
    }

    /// A client with a handle of that file was answered.
    pub(super) fn answered(
        &self,
        client: SessionId,
        number: u64,
        handle: Option<u64>,
        answer: &Answer,
    ) -> Result<(), Broken> {
        let done = self.done.get(&(client, number));
        let stamp = match &answer.result {
            Ok(Reply::Written { content_generation, .. }) => Some(content_generation.0),
            Ok(Reply::Opened { stat, .. }) => Some(stat.instance.0),
            Ok(Reply::Deleted | Reply::Released) => None,
            // It has the lock already, if it never heard that.
            Ok(Reply::Acquired { lock_generation }) if done.is_some() => Some(lock_generation.0),
            Ok(_) => return Ok(()),
            Err(error) if error.code == ErrorCode::StaleHandle => {
                let is_there = handle.is_some() && handle == self.instance();
                return if is_there && done.is_none() { Err(Broken::Refused) } else { Ok(()) };
            }
            Err(_) => return Ok(()),
        };
        if done == Some(&stamp) { Ok(()) } else { Err(Broken::Unfounded) }
    }

    /// Whether all is where it must be, in whatever state a change is.
    pub(super) fn look(&self, cells: [&State; 2]) -> Result<(), Broken> {
        let (file, prefix) = (file(), prefix());
        let serving = cells.map(|state| state.check_cell(&file).is_ok());
        let nodes = cells.map(|state| state.node(&file));
        if serving == [true; 2] || nodes.iter().all(Option::is_some) {
            return Err(Broken::TwoOwners);
        }
        for cell in 0..CELLS.len() {
            let (state, other) = (cells[cell], cells[1 - cell]);
            if nodes[cell].is_some() && !serving[cell] {
                return Err(Broken::Stray);
            }
            let file = nodes[cell].map(|node| match self.ended {
                Some(ended) => File::of(node).without(ended),
                None => File::of(node),
            });
            if serving[cell] && file != self.file {
                return Err(Broken::Lost);
            }
            let directory = other.node(&prefix).map(|node| node.instance);
            let record = state.root(&prefix).map(|root| root.instance);
            let is_split_here = directory.is_some() && record == directory;
            if state.has_children(&prefix) && state.node(&prefix).is_none() && !is_split_here {
                return Err(Broken::Orphan);
            }
        }
        Ok(())
    }

    /// Whether nothing is left of a change when all is done.
    pub(super) fn look_at_rest(cells: [&State; 2]) -> Result<(), Broken> {
        let [a, b] = cells.map(State::map);
        let is_settled = a.version == b.version && a.rules().eq(b.rules()) && a.change().is_none();
        if !is_settled || b.change().is_some() || cells.iter().any(|state| state.has_packed()) {
            return Err(Broken::Left);
        }
        let prefix: Name = prefix();
        let is_split = a.owner(&prefix) != a.children_owner(&prefix);
        let has_record = cells.iter().any(|state| state.root(&prefix).is_some());
        if has_record && !is_split { Err(Broken::Left) } else { Ok(()) }
    }
}
