//! Who may cache what, and whom a change has to wait for (`cache-1`, `cache-2`, `cache-4`).
//!
//! ```text
//! item:   cachable -- round begins --> changing (nobody new may cache it) -- its last round is
//!         finished, nobody is waited for --> cachable
//! round:  begun -- each session that may hold one of its items has acknowledged, or lost its cache
//!         lease --> ready -- the change is done, or given up --> finished
//! ```
//!
//! A master begins a round for each write and proposes it when it is ready; a relay begins one for
//! each invalidation from above and acknowledges that when it is ready. One round is enough, since
//! nobody new may cache an item until the change is done (paper §2.7).

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Sequence, SessionId};
use crate::item::Item;

/// Names a round; its owner numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u64);

/// The table. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Cachers {
    holders: BTreeMap<Item, BTreeSet<SessionId>>,
    held: BTreeMap<SessionId, BTreeSet<Item>>,
    changing: BTreeMap<Item, Changing>,
    rounds: BTreeMap<RoundId, Vec<Item>>,
    told: BTreeMap<(SessionId, Sequence), Vec<Item>>,
    /// Sessions that may hold anything at all, by the news that makes them drop it: all rounds wait
    /// for them.
    suspects: BTreeMap<SessionId, Sequence>,
}

/// An item that may be about to change.
#[derive(Clone, Debug, Default)]
struct Changing {
    rounds: BTreeSet<RoundId>,
    /// May hold a copy still.
    waiting: BTreeSet<SessionId>,
}

impl Cachers {
    /// Lets a session cache an item from here on; `false` if the item is about to change.
    pub fn register(&mut self, session: SessionId, item: &Item) -> bool {
        if self.changing.contains_key(item) {
            return false;
        }
        if self.held.entry(session).or_default().insert(item.clone()) {
            self.holders.entry(item.clone()).or_default().insert(session);
        }
        true
    }

    /// A session that an earlier host may have let cache anything is told with this piece of news to
    /// drop it all (`fail-2`).
    pub fn suspect(&mut self, session: SessionId, told: Sequence) {
        self.suspects.insert(session, told);
    }

    /// These items are to change. Returns what to tell whom; each telling is to be noted with
    /// [`Cachers::told`], and a session that cannot be told is [`Cachers::gone`].
    pub fn begin(&mut self, round: RoundId, items: Vec<Item>) -> BTreeMap<SessionId, Vec<Item>> {
        let mut tell = BTreeMap::<SessionId, Vec<Item>>::new();
        for item in &items {
            let changing = self.changing.entry(item.clone()).or_default();
            changing.rounds.insert(round);
            for session in self.holders.remove(item).unwrap_or_default() {
                changing.waiting.insert(session);
                tell.entry(session).or_default().push(item.clone());
                remove_from(&mut self.held, session, item);
            }
        }
        self.rounds.insert(round, items);
        tell
    }

    /// Everything that was registered is void at once, as after a fail-over above. Returns the sessions that
    /// may hold anything; each is to be told and noted with [`Cachers::suspect`], or is [`Cachers::gone`].
    /// The round has no items: it is ready when they have all dropped what they hold.
    pub fn begin_all(&mut self, round: RoundId) -> BTreeSet<SessionId> {
        self.holders.clear();
        let mut sessions: BTreeSet<_> = std::mem::take(&mut self.held).into_keys().collect();
        sessions.extend(self.changing.values().flat_map(|changing| changing.waiting.iter().copied()));
        sessions.extend(self.suspects.keys().copied());
        self.rounds.insert(round, Vec::new());
        sessions
    }

    /// Everything that is registered for anybody.
    pub fn items(&self) -> Vec<Item> {
        self.holders.keys().cloned().collect()
    }

    /// The same, and what somebody may hold still while it changes.
    pub fn items_held(&self) -> Vec<Item> {
        let changing = self.changing.iter().filter(|(_, changing)| !changing.waiting.is_empty());
        self.holders.keys().chain(changing.map(|(item, _)| item)).cloned().collect()
    }

    /// Sessions that may hold something, or may still.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let waiting = self.changing.values().flat_map(|changing| changing.waiting.iter());
        self.held.keys().chain(waiting).chain(self.suspects.keys()).copied()
    }

    /// A session was told of these items with this piece of news.
    pub fn told(&mut self, session: SessionId, sequence: Sequence, items: Vec<Item>) {
        self.told.insert((session, sequence), items);
    }

    /// Whether the round waits for nobody.
    pub fn is_ready(&self, round: RoundId) -> bool {
        self.suspects.is_empty()
            && self.rounds.get(&round).is_some_and(|items| {
                items.iter().all(|item| self.changing.get(item).is_none_or(|item| item.waiting.is_empty()))
            })
    }

    /// A session has dealt with a piece of news. Returns the rounds that are ready by that.
    pub fn acknowledged(&mut self, session: SessionId, sequence: Sequence) -> Vec<RoundId> {
        if self.suspects.get(&session) == Some(&sequence) {
            return self.cleared(session);
        }
        let items = self.told.remove(&(session, sequence)).unwrap_or_default();
        self.not_waiting(session, items)
    }

    /// A session has lost its cache lease, or is over: what it held is void. Returns the rounds that are
    /// ready by that.
    pub fn gone(&mut self, session: SessionId) -> Vec<RoundId> {
        for item in self.held.remove(&session).unwrap_or_default() {
            remove_from(&mut self.holders, item, &session);
        }
        let all = (session, Sequence(0))..=(session, Sequence(u64::MAX));
        let told: Vec<_> = self.told.range(all).map(|(key, _)| *key).collect();
        told.iter().for_each(|key| drop(self.told.remove(key)));
        // Not only what it was told of: it may be gone because it could not be told.
        let is_waited_for = |(_, changing): &(&Item, &Changing)| changing.waiting.contains(&session);
        let items = self.changing.iter().filter(is_waited_for).map(|(item, _)| item.clone()).collect();
        let mut ready = self.not_waiting(session, items);
        ready.extend(self.cleared(session));
        ready
    }

    /// The change is done, or will not be: its items may be cached again, unless others change them too.
    pub fn finish(&mut self, round: RoundId) {
        for item in self.rounds.remove(&round).unwrap_or_default() {
            if let Some(changing) = self.changing.get_mut(&item) {
                changing.rounds.remove(&round);
                self.tidy(&item);
            }
        }
    }

    /// How many items are registered, once for each session: for reports.
    pub fn registrations(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }

    /// How many rounds are not finished.
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    fn cleared(&mut self, session: SessionId) -> Vec<RoundId> {
        if self.suspects.remove(&session).is_none() || !self.suspects.is_empty() {
            return Vec::new();
        }
        self.rounds.keys().copied().filter(|round| self.is_ready(*round)).collect()
    }

    fn not_waiting(&mut self, session: SessionId, items: Vec<Item>) -> Vec<RoundId> {
        let mut touched = BTreeSet::new();
        for item in items {
            let Some(changing) = self.changing.get_mut(&item) else { continue };
            if changing.waiting.remove(&session) && changing.waiting.is_empty() {
                touched.extend(changing.rounds.iter().copied());
                self.tidy(&item);
            }
        }
        touched.into_iter().filter(|round| self.is_ready(*round)).collect()
    }

    fn tidy(&mut self, item: &Item) {
        let is_idle = |changing: &Changing| changing.rounds.is_empty() && changing.waiting.is_empty();
        if self.changing.get(item).is_some_and(is_idle) {
            self.changing.remove(item);
        }
    }

    /// Walks everything. For tests.
    ///
    /// # Panics
    /// If something that must always hold does not.
    pub fn check_invariants(&self) {
        for (item, sessions) in &self.holders {
            assert!(!sessions.is_empty(), "nobody holds {item:?}");
            assert!(!self.changing.contains_key(item), "cache-1: {item:?} is cached while it changes");
            for session in sessions {
                assert!(self.held[session].contains(item), "{session:?} holds {item:?}");
            }
        }
        let pairs: usize = self.holders.values().map(BTreeSet::len).sum();
        assert_eq!(pairs, self.registrations(), "both ways round");
        for (item, changing) in &self.changing {
            assert!(!changing.rounds.is_empty() || !changing.waiting.is_empty(), "{item:?} is idle");
            for round in &changing.rounds {
                assert!(self.rounds[round].contains(item), "{round:?} changes {item:?}");
            }
        }
    }
}

fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let std::collections::btree_map::Entry::Occupied(mut set) = sets.entry(key) {
        set.get_mut().remove(value);
        if set.get().is_empty() {
            set.remove();
        }
    }
}

#[cfg(test)]
mod tests;
