//! What a fence remembers of each lock: the newest sequencer it was shown, and what still runs under it.
//!
//! Pure: no clock, runtime or cell. An entry is *pinned* while somebody asks about it or works under
//! it; only idle ones are forgotten, the longest unused first.
//!
//! ```text
//!            pin                      last unpin, a sequencer is known
//!   absent ───────▶ pinned ────────────────────────────────────────────▶ idle ──┐
//!     ▲               │  ▲                        pin                      │    │ room is needed
//!     │◀──────────────┘  └────────────────────────────────────────────────┘    │
//!     │   last unpin, none is known                                             │
//!     └──────────────────────────────────── floor rises to what it knew ◀───────┘
//! ```
//!
//! Forgetting must let nothing older in. Generations are stamps that grow for ever (P-SEQ), so one
//! number is enough: the *floor*, the greatest generation ever forgotten. Of a lock that nothing is
//! known of, a sequencer above the floor cannot be older than what was forgotten; of one at or below
//! it that cannot be told here. The floor is one for all locks and not one for each cell, since a
//! lock may have moved to another cell since.

use std::collections::BTreeMap;

use hasp_proto::id::Generation;
use hasp_proto::name::Name;

use crate::sequencer::Sequencer;

/// How a sequencer compares with what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the newest one remembered, byte for byte.
    Known,
    /// It is newer, or the same acquisition in other bytes.
    Newer,
    /// The first of its lock.
    First,
    /// Nothing is known of its lock, and it may be older than what was forgotten.
    Forgotten,
}

/// Why a sequencer must not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The lock has been acquired since, in this generation.
    Outdated(Generation),
    /// It cannot be true if the one of this generation, seen before, is.
    Contradictory(Generation),
}

/// All entries are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Whether work under a sequencer may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It has started.
    Now,
    /// Work under an older sequencer is still going on.
    AfterOlder,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Name, Entry>,
    /// Entries without pins, by their last use.
    idle: BTreeMap<u64, Name>,
    uses: u64,
    floor: Generation,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Entry {
    newest: Option<Sequencer>,
    running: Option<Running>,
    pins: usize,
    /// Its key in `idle`, if it is there.
    last_use: u64,
}

/// Work under one sequencer.
#[derive(Clone, Copy, Debug)]
struct Running {
    generation: Generation,
    count: usize,
}

impl Ledger {
    /// Remembers up to so many locks; at least one.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max: entries_max.max(1), ..Self::default() }
    }

    /// Keeps what is known of a lock from being forgotten, until as many [`unpin`](Self::unpin)s.
    pub(super) fn pin(&mut self, name: &Name) -> Result<(), Full> {
        if !self.entries.contains_key(name) {
            self.make_room()?;
        }
        let entry = self.entries.entry(name.clone()).or_default();
        if entry.pins == 0 {
            self.idle.remove(&entry.last_use);
        }
        entry.pins += 1;
        Ok(())
    }

    pub(super) fn unpin(&mut self, name: &Name) {
        let entry = self.entries.get_mut(name).expect("what is pinned has an entry");
        entry.pins = entry.pins.checked_sub(1).expect("every unpin follows its pin");
        if entry.pins > 0 {
            return;
        }
        if entry.newest.is_none() {
            self.entries.remove(name);
            return;
        }
        self.uses += 1;
        entry.last_use = self.uses;
        self.idle.insert(self.uses, name.clone());
    }

    /// Compares with what is remembered; changes nothing.
    pub(super) fn compare(&self, shown: &Sequencer) -> Result<Standing, Refused> {
        let generation = shown.lock_generation();
        let Some(newest) = self.entries.get(shown.name()).and_then(|entry| entry.newest.as_ref()) else {
            return Ok(if generation > self.floor { Standing::First } else { Standing::Forgotten });
        };
        let known = newest.lock_generation();
        if generation < known {
            return Err(Refused::Outdated(known));
        }
        let (is_same_node, is_same_mode) =
            (shown.instance() == newest.instance(), shown.mode() == newest.mode());
        let is_possible = if generation == known {
            is_same_node && is_same_mode
        } else {
            shown.instance() >= newest.instance()
        };
        match is_possible {
            false => Err(Refused::Contradictory(known)),
            true if shown == newest => Ok(Standing::Known),
            true => Ok(Standing::Newer),
        }
    }

    /// Accepts a sequencer of a pinned lock: nothing older is accepted from here on.
    pub(super) fn admit(&mut self, shown: &Sequencer) -> Result<(), Refused> {
        // It may have been overtaken while the cell was asked about it.
        if self.compare(shown)? != Standing::Known {
            let entry = self.entries.get_mut(shown.name()).expect("what is admitted is pinned");
            entry.newest = Some(shown.clone());
        }
        Ok(())
    }

    /// Starts work under an admitted sequencer, unless older work has to end first.
    pub(super) fn start(&mut self, shown: &Sequencer) -> Result<Start, Refused> {
        let entry = self.entries.get_mut(shown.name()).expect("what is started is pinned");
        let generation = shown.lock_generation();
        let newest = entry.newest.as_ref().expect("what is started was admitted").lock_generation();
        if generation < newest {
            return Err(Refused::Outdated(newest));
        }
        match &mut entry.running {
            Some(running) if running.generation == generation => running.count += 1,
            Some(_) => return Ok(Start::AfterOlder),
            None => entry.running = Some(Running { generation, count: 1 }),
        }
        Ok(Start::Now)
    }

    /// Ends work that was started.
    pub(super) fn finish(&mut self, name: &Name) {
        let entry = self.entries.get_mut(name).expect("where work goes on there is an entry");
        let running = entry.running.as_mut().expect("every end follows its start");
        running.count -= 1;
        if running.count == 0 {
            entry.running = None;
        }
    }

    fn make_room(&mut self) -> Result<(), Full> {
        if self.entries.len() < self.entries_max {
            return Ok(());
        }
        let (_, name) = self.idle.pop_first().ok_or(Full)?;
        let forgotten = self.entries.remove(&name).and_then(|entry| entry.newest);
        let forgotten = forgotten.expect("an idle entry knows a sequencer").lock_generation();
        self.floor = self.floor.max(forgotten);
        Ok(())
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.entries.len() <= self.entries_max);
        for (name, entry) in &self.entries {
            let is_idle = self.idle.get(&entry.last_use) == Some(name);
            assert_eq!(is_idle, entry.pins == 0, "{name}");
            assert!(entry.pins > 0 || entry.newest.is_some(), "{name}: nothing to remember");
            if let Some(running) = entry.running {
                let newest = entry.newest.as_ref().map(|newest| newest.lock_generation());
                assert!(running.count > 0 && entry.pins >= running.count, "{name}");
                assert!(Some(running.generation) <= newest, "{name}: work under what was never admitted");
            }
        }
        assert_eq!(self.idle.len(), self.entries.values().filter(|entry| entry.pins == 0).count());
    }
}

#[cfg(test)]
mod tests;
