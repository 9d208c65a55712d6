//! What this replica may do for its peers just now: vote, and take entries.
//!
//! ```text
//!   Empty ──founded──> Founder ──first entry or vote──> Member
//!     └──a peer knows the cell──> Rebuilding ──caught up──> Member
//! ```
//!
//! Votes are held for a while after every start, because a promise to the leader not to vote for another is forgotten
//! with the process. Only a replica that never promised anything, `Empty` or `Founder`, need not hold them. One that
//! rebuilds takes entries only once the leader knows of it, and votes only when it has caught up.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::wire::pb;

/// What the replica is to its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It knows of no cell.
    Empty,
    /// It belongs to a cell that has no log yet.
    Founder,
    /// It belongs to a cell that exists.
    Member,
    /// It belongs to a cell that exists and lost what it held of it.
    Rebuilding {
        /// The leader knows, and entries are taken.
        accepted: bool,
    },
}

impl From<Standing> for pb::Standing {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Empty => Self::Empty,
            Standing::Founder => Self::Founder,
            Standing::Member => Self::Initialised,
            Standing::Rebuilding { .. } => Self::Rebuilding,
        }
    }
}

/// Decides which calls of peers are answered.
pub struct Gate {
    state: Mutex<State>,
    may_vote: watch::Sender<bool>,
    /// Held while the directory is marked as a founder's or as one that rebuilds, so that it is one or the other.
    pub joining: tokio::sync::Mutex<()>,
}

struct State {
    standing: Standing,
    /// Something was promised from here before the process started.
    has_promised: bool,
    /// What was promised before the process started has run out.
    hold_is_over: bool,
}

/// A call came too early.
#[derive(Debug, thiserror::Error)]
#[error("this replica {0}")]
pub struct Closed(&'static str);

impl From<Closed> for tonic::Status {
    fn from(closed: Closed) -> Self {
        tonic::Status::unavailable(closed.to_string())
    }
}

impl Gate {
    /// The gate of a replica that has just started.
    pub fn new(standing: Standing) -> Self {
        let has_promised = match standing {
            Standing::Empty | Standing::Founder => false,
            Standing::Member | Standing::Rebuilding { .. } => true,
        };
        let state = State { standing, has_promised, hold_is_over: false };
        let (may_vote, _) = watch::channel(state.check_votes().is_ok());
        Self { state: Mutex::new(state), may_vote, joining: tokio::sync::Mutex::new(()) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        let may_vote = state.check_votes().is_ok();
        self.may_vote.send_if_modified(|before| std::mem::replace(before, may_vote) != may_vote);
        result
    }

    /// What the replica is to its cell.
    pub fn standing(&self) -> Standing {
        self.with(|state| state.standing)
    }

    /// Whether this replica may vote, and changes of that.
    pub fn may_vote(&self) -> watch::Receiver<bool> {
        self.may_vote.subscribe()
    }

    /// The hold after the start is over.
    pub fn end_hold(&self) {
        self.with(|state| state.hold_is_over = true);
    }

    /// Moves from `Empty` to `Founder`; any other standing stays. Returns what holds then.
    pub fn found(&self) -> Standing {
        self.with(|state| {
            if state.standing == Standing::Empty {
                state.standing = Standing::Founder;
            }
            state.standing
        })
    }

    /// An `Empty` replica's cell exists: what it promised to it is forgotten.
    pub fn begin_rebuild(&self) {
        self.with(|state| {
            assert_eq!(state.standing, Standing::Empty, "only a replica that holds nothing rebuilds");
            state.standing = Standing::Rebuilding { accepted: false };
            state.has_promised = true;
        });
    }

    /// The leader knows that this replica rebuilds.
    pub fn accept_entries(&self) {
        self.with(|state| {
            if let Standing::Rebuilding { accepted } = &mut state.standing {
                *accepted = true;
            }
        });
    }

    /// The replica holds a log and, if it had to rebuild, has caught up.
    pub fn become_member(&self) {
        self.with(|state| state.standing = Standing::Member);
    }

    /// Whether a vote may be given, or this replica stand for election.
    ///
    /// # Errors
    /// Says why not.
    pub fn check_votes(&self) -> Result<(), Closed> {
        self.with(|state| state.check_votes())
    }

    /// Whether entries, heartbeats and snapshots may be taken.
    ///
    /// # Errors
    /// Says why not.
    pub fn check_entries(&self) -> Result<(), Closed> {
        match self.standing() {
            Standing::Empty => Err(Closed("belongs to no cell yet")),
            Standing::Rebuilding { accepted: false } => {
                Err(Closed("rebuilds and waits for the leader to know"))
            }
            Standing::Rebuilding { accepted: true } | Standing::Founder | Standing::Member => Ok(()),
        }
    }
}

impl State {
    fn check_votes(&self) -> Result<(), Closed> {
        let is_held = self.has_promised && !self.hold_is_over;
        match self.standing {
            Standing::Empty => Err(Closed("belongs to no cell yet")),
            Standing::Rebuilding { .. } => Err(Closed("rebuilds and does not vote")),
            Standing::Founder | Standing::Member if is_held => {
                Err(Closed("has just started and holds its vote"))
            }
            Standing::Founder | Standing::Member => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_holds_its_vote_after_a_start_but_takes_entries() {
        let gate = Gate::new(Standing::Member);

        assert!(gate.check_votes().is_err());
        assert!(gate.check_entries().is_ok());
        gate.end_hold();
        assert!(gate.check_votes().is_ok());
    }

    #[test]
    fn a_founder_votes_at_once() {
        let gate = Gate::new(Standing::Empty);

        assert!(gate.check_votes().is_err() && gate.check_entries().is_err());
        assert_eq!(gate.found(), Standing::Founder);
        assert!(gate.check_votes().is_ok() && gate.check_entries().is_ok());
    }

    #[test]
    fn one_that_rebuilds_takes_entries_once_the_leader_knows_and_votes_once_it_caught_up() {
        let gate = Gate::new(Standing::Empty);

        gate.begin_rebuild();
        assert!(gate.check_entries().is_err());
        gate.accept_entries();
        assert!(gate.check_entries().is_ok());
        gate.end_hold();
        assert!(gate.check_votes().is_err());
        gate.become_member();
        assert!(gate.check_votes().is_ok());
    }

    #[test]
    fn a_rebuilt_replica_still_holds_its_vote_until_the_hold_is_over() {
        let gate = Gate::new(Standing::Empty);
        gate.begin_rebuild();
        gate.accept_entries();
        let may_vote = gate.may_vote();

        gate.become_member();
        assert!(gate.check_votes().is_err() && !*may_vote.borrow());

        gate.end_hold();
        assert!(gate.check_votes().is_ok() && *may_vote.borrow());
    }

    #[test]
    fn one_that_rebuilds_does_not_found() {
        let gate = Gate::new(Standing::Rebuilding { accepted: false });

        assert_eq!(gate.found(), Standing::Rebuilding { accepted: false });
    }
}
