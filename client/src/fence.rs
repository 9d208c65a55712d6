//! Fencing: how a service that lock holders use tells a late request of a former holder from one of the
//! present holder (paper §2.4).
//!
//! A holder sends its [`Sequencer`] with each request. The service keeps a [`Fence`], which refuses sequencers that are
//! older than the newest it has seen of that lock, and, if it is told to, asks the cell.
//!
//! ```no_run
//! use hasp_client::Name;
//! use hasp_client::fence::{Ask, Fence, FenceConfig};
//! # async fn example(client: hasp_client::Client, shown: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let config = FenceConfig::lock(Name::parse("/ls/prod/store/leader")?);
//! let fence = Fence::asking(config, Ask::AtFirstSight, client);
//! let pass = fence.enter(shown).await?;    // refused if the lock has a newer holder
//! // ... do what the request asks for ...
//! drop(pass);                              // from here on a newer holder's requests may start
//! # Ok(())
//! # }
//! ```
//!
//! **What an offline fence does not know.** Without a cell to ask, a sequencer is believed by its shape: a forged
//! one with a great generation locks the true holder out, and after a restart the first one shown is
//! taken for the newest. It serves among programs that trust each other. Where they don't, or where a restart must
//! not open the door, let it ask [at first sight](Ask::AtFirstSight): a question for each acquisition, not for
//! each request.
//!
//! **What is checked must still be true when it is done.** [`Fence::check`] says how things are when it is called;
//! a service that orders its writes by itself can call it there. [`Fence::enter`] gives a [`Pass`] to be
//! kept while the request is carried out: the first request of a newer holder waits until those of older ones
//! have ended, and none of them start any more. The [`FenceLayer`] does that for a `tower` service.
//!
//! **Forgetting.** The newest sequencers of a bounded number of locks are remembered, the longest unused is
//! forgotten first. It leaves a floor behind: a sequencer of an unknown lock that is not above the
//! greatest generation ever forgotten might be outdated, so the cell is asked; offline it is refused
//! ([`Undecided`](FenceError::Undecided)).

mod error;
mod layer;
mod ledger;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hasp_proto::error::ErrorCode;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::sequencer::NotASequencer;
use tokio::sync::Notify;

pub use error::FenceError;
pub use layer::{FenceLayer, Fenced, SEQUENCER_HEADER, sequencer_of_http};

use crate::client::Client;
use crate::error::CallError;
use crate::sequencer::Sequencer;
use ledger::{Full, Ledger, Refused, Standing, Start};

/// Locks remembered, if nothing else is said.
const LOCKS_MAX: usize = 65_536;
/// How long a request waits for the cell, or for requests of older holders, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a fence accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceConfig {
    /// Whose sequencers.
    pub locks: Locks,
    /// Whether holders of shared locks are let through, too.
    pub modes: Modes,
    /// How many locks are remembered at most.
    pub locks_max: usize,
    /// How long a request waits for the cell's word, and then for the requests of older holders.
    pub patience: Duration,
}

impl FenceConfig {
    /// The exclusive holder of one lock, and nobody else.
    ///
    /// The name is the full one, as in [`Handle::name`](crate::Handle::name): sequencers never say `/ls/local`.
    pub const fn lock(name: Name) -> Self {
        Self { locks: Locks::One(name), modes: Modes::Exclusive, locks_max: 1, patience: PATIENCE }
    }

    /// Exclusive holders of any lock below a directory. Which of them may do what is the service's to say:
    /// [`Pass::sequencer`] tells it whose lock it is.
    pub const fn below(directory: Name) -> Self {
        let locks = Locks::Below(directory);
        Self { locks, modes: Modes::Exclusive, locks_max: LOCKS_MAX, patience: PATIENCE }
    }
}

/// Which locks guard a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locks {
    /// This one.
    One(Name),
    /// All strictly below this directory.
    Below(Name),
}

/// How a lock must be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// Alone.
    Exclusive,
    /// Alone, or together with other shared holders.
    Any,
}

/// When the cell is asked whether an acquisition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// When a sequencer is shown that is not the newest one known, byte for byte. A holder that lost the lock
    /// is let through until the next holder has shown up here: nobody else has written then, either.
    AtFirstSight,
    /// For every request, those of a holder that is known, too.
    Always,
}

/// Who can tell whether the acquisition of a sequencer stands: a [`Client`], or whatever stands for it.
pub trait AskCell: Send + Sync {
    /// Asks. `SequencerInvalid` is a no; any other error is no answer.
    fn ask<'a>(&'a self, sequencer: &'a Sequencer) -> Asked<'a>;
}

/// The answer, to be waited for.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>>;

impl AskCell for Client {
    fn ask<'a>(&'a self, sequencer: &'a Sequencer) -> Asked<'a> {
        Box::pin(async { self.check_sequencer(sequencer).await.map(drop) })
    }
}

/// What requests show: a [`Sequencer`], or text that is checked to be one.
pub trait IntoSequencer {
    /// The sequencer.
    ///
    /// # Errors
    /// If the text is none.
    fn into_sequencer(self) -> Result<Sequencer, NotASequencer>;
}

impl IntoSequencer for Sequencer {
    fn into_sequencer(self) -> Result<Sequencer, NotASequencer> {
        Ok(self)
    }
}

impl IntoSequencer for &Sequencer {
    fn into_sequencer(self) -> Result<Sequencer, NotASequencer> {
        Ok(self.clone())
    }
}

impl IntoSequencer for &str {
    fn into_sequencer(self) -> Result<Sequencer, NotASequencer> {
        self.parse()
    }
}

impl IntoSequencer for &String {
    fn into_sequencer(self) -> Result<Sequencer, NotASequencer> {
        self.parse()
    }
}

/// Remembers the newest sequencer of each lock and refuses older ones. A clone is the same fence.
#[derive(Clone)]
pub struct Fence {
    inner: Arc<Inner>,
}

struct Inner {
    config: FenceConfig,
    cell: Option<(Ask, Box<dyn AskCell>)>,
    ledger: Mutex<Ledger>,
    /// Work has ended, or a newer sequencer was accepted.
    moved: Notify,
}

impl Fence {
    /// A fence that believes what is shown, as far as it does not contradict what was shown before.
    pub fn offline(config: FenceConfig) -> Self {
        Self::new(config, None)
    }

    /// A fence that asks a cell.
    pub fn asking(config: FenceConfig, when: Ask, cell: impl AskCell + 'static) -> Self {
        Self::new(config, Some((when, Box::new(cell))))
    }

    fn new(config: FenceConfig, cell: Option<(Ask, Box<dyn AskCell>)>) -> Self {
        let ledger = Mutex::new(Ledger::new(config.locks_max));
        Self { inner: Arc::new(Inner { config, cell, ledger, moved: Notify::new() }) }
    }

    /// Whether the lock's holder showed this, as of the call; if so, nothing older is accepted from here on.
    ///
    /// A service that keeps the newest sequencer together with what it guards shows it here when it
    /// starts again.
    ///
    /// # Errors
    /// Why not; [`FenceError::may_retry`] tells whether the same request may come again.
    pub async fn check(&self, shown: impl IntoSequencer) -> Result<(), FenceError> {
        self.judge(shown.into_sequencer()?).await.map(drop)
    }

    /// As [`check`](Self::check), but asks nobody and waits for nothing.
    ///
    /// # Errors
    /// As there; `Undecided` where the fence is to ask the cell.
    pub fn check_now(&self, shown: impl IntoSequencer) -> Result<(), FenceError> {
        let pinned = self.pin(shown.into_sequencer()?)?;
        match self.must_ask(&pinned.shown)? {
            Some(_) => Err(undecided(&pinned.shown)),
            None => self.admit(&pinned.shown),
        }
    }

    /// Lets a request of the lock's holder in, once no request of an older holder goes on any more.
    ///
    /// Keep the [`Pass`] until it is carried out. Dropping the future lets nothing in.
    ///
    /// # Errors
    /// As [`check`](Self::check); `Busy` if those of older holders go on for longer than the fence's patience.
    pub async fn enter(&self, shown: impl IntoSequencer) -> Result<Pass, FenceError> {
        let pinned = self.judge(shown.into_sequencer()?).await?;
        match tokio::time::timeout(self.inner.config.patience, self.start(&pinned.shown)).await {
            Ok(started) => started?,
            Err(_) => return Err(FenceError::Busy { name: pinned.shown.name().clone() }),
        }
        Ok(Pass { pinned })
    }

    /// Checks and accepts it.
    async fn judge(&self, shown: Sequencer) -> Result<Pinned, FenceError> {
        let pinned = self.pin(shown)?;
        if let Some(cell) = self.must_ask(&pinned.shown)? {
            self.ask(cell, &pinned.shown).await?;
        }
        self.admit(&pinned.shown)?;
        Ok(pinned)
    }

    /// Keeps what is known of its lock from being forgotten, if it is one that guards anything here.
    fn pin(&self, shown: Sequencer) -> Result<Pinned, FenceError> {
        let FenceConfig { locks, modes, .. } = &self.inner.config;
        let guards = match locks {
            Locks::One(name) => shown.name() == name,
            Locks::Below(directory) => shown.name().is_below(directory),
        };
        if !guards {
            return Err(FenceError::WrongLock { shown: shown.name().clone() });
        }
        if *modes == Modes::Exclusive && shown.mode() != LockMode::Exclusive {
            return Err(FenceError::WrongMode { shown: shown.mode() });
        }
        self.ledger().pin(shown.name()).map_err(|Full| FenceError::Full)?;
        Ok(Pinned { fence: self.clone(), shown })
    }

    /// Whom to ask about it, if anybody has to be asked.
    fn must_ask(&self, shown: &Sequencer) -> Result<Option<&dyn AskCell>, FenceError> {
        let standing = self.ledger().compare(shown).map_err(|refused| refusal(shown, refused))?;
        match (&self.inner.cell, standing) {
            (Some((Ask::AtFirstSight, _)), Standing::Known) => Ok(None),
            (Some((Ask::AtFirstSight | Ask::Always, cell)), _) => Ok(Some(&**cell)),
            (None, Standing::Forgotten) => Err(undecided(shown)),
            (None, Standing::Known | Standing::Newer | Standing::First) => Ok(None),
        }
    }

    async fn ask(&self, cell: &dyn AskCell, shown: &Sequencer) -> Result<(), FenceError> {
        let patience = self.inner.config.patience;
        match tokio::time::timeout(patience, cell.ask(shown)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.code == ErrorCode::SequencerInvalid => Err(FenceError::Invalid(error)),
            Ok(Err(error)) => Err(FenceError::Unanswered(error)),
            Err(_) => {
                let detail = format!("the cell has not answered within {patience:?}");
                Err(FenceError::Unanswered(CallError::local(ErrorCode::Unavailable, detail)))
            }
        }
    }

    fn admit(&self, shown: &Sequencer) -> Result<(), FenceError> {
        self.ledger().admit(shown).map_err(|refused| refusal(shown, refused))?;
        // Who waits with an older one need not wait any more.
        self.inner.moved.notify_waiters();
        Ok(())
    }

    async fn start(&self, shown: &Sequencer) -> Result<(), FenceError> {
        loop {
            let moved = self.inner.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            match self.ledger().start(shown) {
                Ok(Start::Now) => return Ok(()),
                Ok(Start::AfterOlder) => {}
                Err(refused) => return Err(refusal(shown, refused)),
            }
            moved.await;
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({:?})", self.inner.config.locks)
    }
}

/// Leave to carry out a request. Drop it when that is done.
#[derive(Debug)]
#[must_use = "a request that is carried out without its pass is not fenced"]
pub struct Pass {
    pinned: Pinned,
}

impl Pass {
    /// What was shown.
    pub const fn sequencer(&self) -> &Sequencer {
        &self.pinned.shown
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Pinned { fence, shown } = &self.pinned;
        fence.ledger().finish(shown.name());
        fence.inner.moved.notify_waiters();
    }
}

/// What is known of this one's lock is not forgotten meanwhile.
#[derive(Debug)]
struct Pinned {
    fence: Fence,
    shown: Sequencer,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.fence.ledger().unpin(self.shown.name());
    }
}

fn refusal(shown: &Sequencer, refused: Refused) -> FenceError {
    let (name, shown) = (shown.name().clone(), shown.lock_generation());
    match refused {
        Refused::Outdated(newest) => FenceError::Outdated { name, shown, newest },
        Refused::Contradictory(newest) => FenceError::Contradictory { name, shown, newest },
    }
}

fn undecided(shown: &Sequencer) -> FenceError {
    FenceError::Undecided { name: shown.name().clone(), shown: shown.lock_generation() }
}

#[cfg(test)]
mod tests;
