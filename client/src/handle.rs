//! Handles: what is done with an open node, and what comes back.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, LockMode, Stat};
use hasp_proto::position::Position;
use hasp_proto::request::{Op, Reply};
use hasp_proto::sequencer::SequencerToken;

use crate::client::Session;
use crate::core::Call;
use crate::engine::Heard;
use crate::error::{CallError, check_contents};
use crate::handle_state::HandleState;
use crate::node_events::NodeEvents;
use crate::open::OpenOptions;
use crate::root::below;
use crate::sequencer::Sequencer;
use crate::view::Found;

/// An open node. A clone is the same handle: to the service they are one holder of its lock.
///
/// It is bound to the node's instance: if the node is deleted, calls fail with `StaleHandle`, also
/// when a new node has the name. Dropping the last clone closes the handle and frees its lock.
#[derive(Clone)]
pub struct Handle {
    open: Arc<Open>,
}

struct Open {
    session: Arc<Session>,
    state: Arc<HandleState>,
    token: HandleToken,
    instance: Instance,
    guard: Guard,
}

/// A sequencer that must stand for each later call.
#[derive(Default)]
struct Guard {
    token: Mutex<Option<SequencerToken>>,
    is_set: AtomicBool,
}

impl Guard {
    fn set(&self, token: Option<SequencerToken>) {
        let mut guard = self.token();
        self.is_set.store(token.is_some(), Ordering::Release);
        *guard = token;
    }

    fn get(&self) -> Option<SequencerToken> {
        self.is_set().then(|| self.token().clone()).flatten()
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    fn token(&self) -> MutexGuard<'_, Option<SequencerToken>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Client::open`](crate::Client::open) brings back.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The handle.
    pub handle: Handle,
    /// Whether this call created the node.
    pub created: bool,
    /// Its metadata when the call was answered: at `position`, or later if this call created the node.
    pub stat: Stat,
    /// What the answer reflects; where the node was created, if this call did it.
    pub position: Option<Position>,
}

/// A file's contents and metadata at one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentsAndStat {
    /// All of it.
    pub contents: Bytes,
    /// Metadata.
    pub stat: Stat,
    /// What the answer reflects.
    pub position: Option<Position>,
}

/// A node's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Metadata.
    pub stat: Stat,
    /// What the answer reflects.
    pub position: Option<Position>,
}

/// A directory's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Children {
    /// Sorted by component.
    pub children: Vec<Child>,
    /// What the answer reflects.
    pub position: Option<Position>,
}

/// Contents were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// That of the new contents.
    pub content_generation: Generation,
    /// That of the contents replaced.
    pub previous_generation: Generation,
    /// Where the write took effect, however often it had to be asked again: reads that were answered meanwhile
    /// may have shown later positions.
    pub position: Option<Position>,
}

/// The lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Of this acquisition; greater than that of any earlier one.
    pub lock_generation: Generation,
    /// Where the lock was acquired, however often it had to be asked again.
    pub position: Option<Position>,
}

/// The ACL names were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclSet {
    /// That of the new names.
    pub acl_generation: Generation,
    /// Where the change took effect, however often it had to be asked again.
    pub position: Option<Position>,
}

/// It was done, and there is no more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Where it was done, however often it had to be asked again.
    pub position: Option<Position>,
}

impl Handle {
    pub(crate) fn new(
        session: Arc<Session>,
        state: Arc<HandleState>,
        token: HandleToken,
        stat: &Stat,
    ) -> Self {
        let open = Open { session, state, token, instance: stat.instance, guard: Guard::default() };
        Self { open: Arc::new(open) }
    }

    /// The node's name.
    pub fn name(&self) -> &Name {
        &self.open.state.name
    }

    /// The node it is bound to, among all that ever had the name.
    pub fn instance(&self) -> Instance {
        self.open.instance
    }

    /// Opens a node below this directory: `a/b`. Fails if the directory was deleted since it was
    /// opened, also if there is another of its name.
    ///
    /// # Errors
    /// As [`Client::open`](crate::Client::open); `StaleHandle` if the directory is gone.
    pub async fn open(&self, relative: &str, options: OpenOptions) -> Result<Opened, CallError> {
        let opening = options.opening();
        let open = options.for_node(below(self.name(), relative)?, Some(self.token()))?;
        let state = &self.open.state;
        let base = Some((state.number, self.open.guard.get()));
        state.calls.run(self.open.session.open(open, opening, base)).await
    }

    /// Listens to what happens to the node, as far as it was opened with events. The first to listen
    /// hears everything since the handle was opened.
    pub fn events(&self) -> NodeEvents {
        self.open.state.teller.listen()
    }

    /// Stops this handle's calls: those under way, and all later ones, fail with `Cancelled`. It stays
    /// open, and its lock held, until it is closed or dropped: so one thread can stop others.
    ///
    /// A write that is stopped may take effect all the same.
    pub fn poison(&self) {
        self.open.state.calls.poison();
    }

    /// Stops the calls that are under way on this handle: they fail with `Cancelled`. Later ones work.
    ///
    /// A write that is stopped may take effect all the same.
    pub fn cancel(&self) {
        self.open.state.calls.cancel();
    }

    /// Ends the handle: its lock is free at once, a call that waits for it fails with `Cancelled`, and
    /// later ones with `StaleHandle`.
    ///
    /// # Errors
    /// `SessionExpired`; the handle is gone then, too.
    pub async fn close(&self) -> Result<Done, CallError> {
        if !self.open.state.calls.close() {
            return Ok(Done { position: None });
        }
        match self.open.ask(Op::Close(self.token()), None).await? {
            (Reply::Closed, position) => Ok(Done { position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// The file's contents and metadata.
    ///
    /// # Errors
    /// `StaleHandle`, `PermissionDenied`, `InvalidArgument` for a directory, `SessionExpired`.
    pub async fn get_contents_and_stat(&self) -> Result<ContentsAndStat, CallError> {
        if let Some(Found { contents, stat, position }) = self.find() {
            return Ok(ContentsAndStat { contents, stat, position: Some(position) });
        }
        match self.ask(Op::GetContentsAndStat(self.token())).await? {
            (Reply::Contents { contents, stat }, position) => {
                Ok(ContentsAndStat { contents, stat, position })
            }
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// The node's metadata.
    ///
    /// # Errors
    /// `StaleHandle`, `PermissionDenied`, `SessionExpired`.
    pub async fn get_stat(&self) -> Result<Stated, CallError> {
        if let Some(Found { stat, position, .. }) = self.find() {
            return Ok(Stated { stat, position: Some(position) });
        }
        match self.ask(Op::GetStat(self.token())).await? {
            (Reply::Stat(stat), position) => Ok(Stated { stat, position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// The directory's children.
    ///
    /// # Errors
    /// `NotADirectory`, `StaleHandle`, `PermissionDenied`, `SessionExpired`.
    pub async fn read_dir(&self) -> Result<Children, CallError> {
        match self.ask(Op::ReadDir(self.token())).await? {
            (Reply::Children { children, .. }, position) => Ok(Children { children, position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// Replaces the file's contents; with a generation, only if that is the current one
    /// (compare-and-swap).
    ///
    /// Dropping the future does not undo the write.
    ///
    /// # Errors
    /// `TooLarge` before anything is sent; `GenerationMismatch`, `StaleHandle`, `PermissionDenied`,
    /// `InvalidArgument` for a directory, `SessionExpired`: then whether it was written is unknown.
    pub async fn set_contents(
        &self,
        contents: impl Into<Bytes>,
        if_generation: Option<Generation>,
    ) -> Result<Written, CallError> {
        let contents = contents.into();
        check_contents(&contents)?;
        match self.ask(Op::SetContents { handle: self.token(), contents, if_generation }).await? {
            (Reply::Written { content_generation, previous_generation }, position) => {
                Ok(Written { content_generation, previous_generation, position })
            }
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// Replaces the node's ACL names; with a generation, only if that is the current one. Needs a handle
    /// opened with [`OpenOptions::change_acl`].
    ///
    /// # Errors
    /// `GenerationMismatch`, `StaleHandle`, `PermissionDenied`, `InvalidArgument` for what is no name of an
    /// ACL, `SessionExpired`: then whether they were replaced is unknown.
    pub async fn set_acl(
        &self,
        acls: AclNames,
        if_generation: Option<Generation>,
    ) -> Result<AclSet, CallError> {
        match self.ask(Op::SetAcl { handle: self.token(), acls, if_generation }).await? {
            (Reply::AclSet { acl_generation }, position) => Ok(AclSet { acl_generation, position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// Deletes the node, which must have no children.
    ///
    /// # Errors
    /// `NotEmpty`, `StaleHandle`, `PermissionDenied`, `SessionExpired`: then whether it was deleted
    /// is unknown.
    pub async fn delete(&self) -> Result<Done, CallError> {
        match self.ask(Op::Delete(self.token())).await? {
            (Reply::Deleted, position) => Ok(Done { position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// Waits, first come first served, until the lock is held.
    ///
    /// Dropping the future cancels the request; if the lock was granted meanwhile, it is released.
    ///
    /// # Errors
    /// `StaleHandle`, `PermissionDenied`, `Cancelled` if the handle is closed, `LockHeld` if this
    /// handle holds it in the other mode, `SessionExpired`.
    pub async fn acquire(&self, mode: LockMode) -> Result<Acquired, CallError> {
        self.lock(Op::Acquire(self.token(), mode)).await
    }

    /// Takes the lock or fails.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); `LockHeld` if somebody else holds it, `LockDelayed` if it was
    /// lost and its lock-delay is running.
    pub async fn try_acquire(&self, mode: LockMode) -> Result<Acquired, CallError> {
        self.lock(Op::TryAcquire(self.token(), mode)).await
    }

    /// Frees the lock at once.
    ///
    /// # Errors
    /// `LockNotHeld`, `StaleHandle`, `SessionExpired`; the lock is not held then, either.
    pub async fn release(&self) -> Result<Done, CallError> {
        match self.ask(Op::Release(self.token())).await? {
            (Reply::Released, position) => Ok(Done { position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// What to show to other services as a proof that this handle holds the lock.
    ///
    /// # Errors
    /// `LockNotHeld`, `StaleHandle`, `SessionExpired`.
    pub async fn get_sequencer(&self) -> Result<Sequencer, CallError> {
        match self.ask(Op::GetSequencer(self.token())).await? {
            (Reply::Sequencer(token), _) => Sequencer::new(token).map_err(|_| CallError::wrong_reply()),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// Lets every later call on this handle fail with `SequencerInvalid`, and do nothing, once the
    /// sequencer's acquisition does not stand any more. `close` and `release` are not affected.
    pub fn set_sequencer(&self, sequencer: &Sequencer) {
        self.open.guard.set(Some(sequencer.token().clone()));
    }

    /// Undoes [`set_sequencer`](Self::set_sequencer) for later calls.
    pub fn clear_sequencer(&self) {
        self.open.guard.set(None);
    }

    async fn lock(&self, op: Op) -> Result<Acquired, CallError> {
        match self.ask(op).await? {
            (Reply::Acquired { lock_generation }, position) => Ok(Acquired { lock_generation, position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// The file, if nobody has to be asked for it.
    fn find(&self) -> Option<Found> {
        let Open { session, state, instance, guard, .. } = &*self.open;
        if guard.is_set() || !state.is_good() {
            return None;
        }
        state.view.find(*instance, &state.seen, session.engine.clock())
    }

    async fn ask(&self, op: Op) -> Result<(Reply, Option<Position>), CallError> {
        let guard = match &op {
            // What is given up should go also when the guard does not stand any more.
            Op::Release(_) => None,
            _ => self.open.guard.get(),
        };
        self.open.state.calls.run(self.open.ask(op, guard)).await
    }

    fn token(&self) -> HandleToken {
        self.open.token.clone()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} #{})", self.name(), self.open.instance)
    }
}

impl Open {
    async fn ask(
        &self,
        op: Op,
        guard: Option<SequencerToken>,
    ) -> Result<(Reply, Option<Position>), CallError> {
        let call = Call { guard, on: Some(self.state.number), ..op.into() };
        let Heard { answer, .. } = self.session.engine.ask(call).await?;
        match answer.result {
            Ok(reply) => Ok((reply, answer.position)),
            Err(error) => Err(CallError::new(error, answer.position)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.state.calls.close() {
            self.session.engine.close(self.state.number);
        }
    }
}
