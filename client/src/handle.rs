//! Handles: what is done with an open node, and what comes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{Child, LockMode, Stat};
use hasp_proto::position::Position;
use hasp_proto::request::{Op, Reply};

use crate::client::Session;
use crate::error::{CallError, check_contents};

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
    token: HandleToken,
    name: Name,
    instance: Instance,
    is_closed: AtomicBool,
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

/// It was done, and there is no more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Where it was done, however often it had to be asked again.
    pub position: Option<Position>,
}

impl Handle {
    pub(crate) fn new(session: Arc<Session>, asked: Name, token: HandleToken, stat: &Stat) -> Self {
        // What was asked for may have been relative to the host's own namespace.
        let name = token.claimed_body().map_or(asked, |body| body.name);
        let open = Open { session, token, name, instance: stat.instance, is_closed: AtomicBool::new(false) };
        Self { open: Arc::new(open) }
    }

    /// The node's name.
    pub fn name(&self) -> &Name {
        &self.open.name
    }

    /// The node it is bound to, among all that ever had the name.
    pub fn instance(&self) -> Instance {
        self.open.instance
    }

    /// Ends the handle: its lock is free at once, a call that waits for it fails with `Cancelled`.
    ///
    /// # Errors
    /// `SessionExpired`; the handle is gone then, too.
    pub async fn close(&self) -> Result<Done, CallError> {
        self.open.is_closed.store(true, Ordering::Relaxed);
        match self.ask(Op::Close(self.token())).await? {
            (Reply::Closed, position) => Ok(Done { position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    /// The file's contents and metadata.
    ///
    /// # Errors
    /// `StaleHandle`, `PermissionDenied`, `InvalidArgument` for a directory, `SessionExpired`.
    pub async fn get_contents_and_stat(&self) -> Result<ContentsAndStat, CallError> {
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
            (Reply::Children(children), position) => Ok(Children { children, position }),
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

    async fn lock(&self, op: Op) -> Result<Acquired, CallError> {
        match self.ask(op).await? {
            (Reply::Acquired { lock_generation }, position) => Ok(Acquired { lock_generation, position }),
            _ => Err(CallError::wrong_reply()),
        }
    }

    async fn ask(&self, op: Op) -> Result<(Reply, Option<Position>), CallError> {
        let answer = self.open.session.engine.ask(op).await?;
        match answer.result {
            Ok(reply) => Ok((reply, answer.position)),
            Err(error) => Err(CallError::new(error, answer.position)),
        }
    }

    fn token(&self) -> HandleToken {
        self.open.token.clone()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} #{})", self.open.name, self.open.instance)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !*self.is_closed.get_mut() {
            self.session.engine.tell(Op::Close(self.token.clone()));
        }
    }
}
