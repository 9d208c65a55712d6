//! Open handles that can serve another `Open` without asking the cell (paper §2.7).
//!
//! ```text
//! none -- opened --> in use -- closed, and still known --> idle -- opened --> in use
//!                       '-- closed, and not known any more --> none <-- not known any more, too many
//! ```
//!
//! A handle for reading serves any number of users at a time; one that permits locking one at a time.
//! None is kept that has events, that keeps an ephemeral node in being, that was opened relative to a
//! directory or for changing ACLs, or that may hold a lock.

use std::collections::BTreeMap;
use std::time::Duration;

use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::name::Name;
use hasp_proto::request::{Open, Use};

/// Idle handles that are kept.
pub(super) const IDLE_MAX: usize = 64;

/// What two `Open`s must have in common to share a handle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Same {
    /// The node's true name.
    pub(super) name: Name,
    /// For what.
    pub(super) r#use: Use,
    /// Of its lock.
    pub(super) lock_delay: Duration,
}

impl Same {
    /// Nothing if the `Open` can share no handle.
    pub(super) fn of(open: &Open, name: Name) -> Option<Self> {
        let Open { r#use, create: None, relative_to: None, events, lock_delay, .. } = open else {
            return None;
        };
        let is_plain = events.is_empty() && *r#use != Use::ChangeAcl;
        is_plain.then_some(Self { name, r#use: *r#use, lock_delay: *lock_delay })
    }
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Spares {
    spares: BTreeMap<Same, Spare>,
    /// Those that nobody uses, by when they became so, in the order of all.
    idle: BTreeMap<u64, Same>,
    /// How often one became idle.
    idled: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Spare {
    /// What the cell knows it by.
    pub(super) token: HandleToken,
    /// What the token says.
    pub(super) body: HandleBody,
    users: usize,
    /// Its place among the idle ones, if nobody uses it.
    idle_since: Option<u64>,
}

/// What becomes of a handle that was closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It stays open, for others or for later.
    Open,
    /// It is to be closed at the cell.
    Close,
}

impl Spares {
    /// A handle that could serve; whether it does is the owner's to say, with [`Spares::take`].
    pub(super) fn offer(&self, same: &Same) -> Option<&Spare> {
        self.spares.get(same).filter(|spare| same.r#use == Use::Read || spare.users == 0)
    }

    /// The offer is taken.
    pub(super) fn take(&mut self, same: &Same) {
        if let Some(spare) = self.spares.get_mut(same) {
            spare.users += 1;
            if let Some(since) = spare.idle_since.take() {
                self.idle.remove(&since);
            }
        }
    }

    /// A handle was opened and is in use. Returns one that it replaces and that is to be closed.
    pub(super) fn opened(&mut self, token: HandleToken, body: HandleBody) -> Option<HandleToken> {
        if body.ephemeral || !body.events.is_empty() || body.r#use == Use::ChangeAcl {
            return None;
        }
        let same = same_as(&body);
        let before = self.remove(&same);
        self.spares.insert(same, Spare { token, body, users: 1, idle_since: None });
        // One in use is closed by its users.
        before.filter(|before| before.users == 0).map(|before| before.token)
    }

    /// One of its users is done with a handle; `is_known`: another `Open` would find it usable.
    pub(super) fn closed(&mut self, token: &HandleToken, body: &HandleBody, is_known: bool) -> Left {
        let same = same_as(body);
        let Some(spare) = self.spares.get_mut(&same).filter(|spare| spare.token == *token) else {
            return Left::Close;
        };
        spare.users -= 1;
        if spare.users > 0 {
            return Left::Open;
        }
        if !is_known {
            self.spares.remove(&same);
            return Left::Close;
        }
        self.idled += 1;
        spare.idle_since = Some(self.idled);
        self.idle.insert(self.idled, same);
        Left::Open
    }

    /// Takes out the one that has been idle for longest, if there are too many.
    pub(super) fn pop_excess(&mut self) -> Option<HandleToken> {
        let (_, oldest) = self.idle.first_key_value().filter(|_| self.idle.len() > IDLE_MAX)?;
        let oldest = oldest.clone();
        self.remove(&oldest).map(|spare| spare.token)
    }

    /// Takes out the idle ones that are of no use any more.
    pub(super) fn sweep(&mut self, is_known: impl Fn(&HandleBody) -> bool) -> Vec<HandleToken> {
        let is_useless = |same: &&Same| !is_known(&self.spares[*same].body);
        let useless: Vec<Same> = self.idle.values().filter(is_useless).cloned().collect();
        useless.iter().filter_map(|same| self.remove(same)).map(|spare| spare.token).collect()
    }

    /// Forgets those that are gone with their session or cell, also the ones in use.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&HandleBody) -> bool) {
        let gone = self.spares.iter().filter(|(_, spare)| is_gone(&spare.body));
        let gone: Vec<Same> = gone.map(|(same, _)| same.clone()).collect();
        gone.iter().for_each(|same| drop(self.remove(same)));
    }

    fn remove(&mut self, same: &Same) -> Option<Spare> {
        let spare = self.spares.remove(same)?;
        if let Some(since) = spare.idle_since {
            self.idle.remove(&since);
        }
        Some(spare)
    }

    /// Walks everything. For tests.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert!(self.idle.len() <= IDLE_MAX, "idle handles are bounded");
        for (same, spare) in &self.spares {
            assert_eq!(spare.users == 0, spare.idle_since.is_some(), "who nobody uses is idle");
            let place = spare.idle_since.and_then(|since| self.idle.get(&since));
            assert_eq!(place, spare.idle_since.map(|_| same), "who is idle has a place");
        }
        assert!(self.idle.values().all(|same| self.spares.contains_key(same)), "who has a place is there");
    }
}

fn same_as(body: &HandleBody) -> Same {
    Same { name: body.name.clone(), r#use: body.r#use, lock_delay: body.lock_delay }
}
