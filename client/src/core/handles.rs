//! The application's open handles.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::error::Error;
use hasp_proto::event::{HandleId, NodeEvent};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::CellName;
use hasp_proto::name::Name;

use crate::node_events::LossCause;

use super::interface::{HandleNumber, Opening};

/// The table. By number, and those with events by their node's name.
#[derive(Clone, Debug, Default)]
pub(super) struct Handles {
    last: u64,
    open: BTreeMap<HandleNumber, Handle>,
    listening: BTreeMap<Name, BTreeSet<HandleNumber>>,
    by_cell: BTreeMap<CellName, usize>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    /// What the cell knows it by.
    pub(super) token: HandleToken,
    /// What the token says.
    pub(super) body: HandleBody,
    /// How the library treats it.
    pub(super) opening: Opening,
    /// Every call on it fails like this (paper §2.8: an outage loses a suffix of its calls).
    pub(super) over: Option<Error>,
    /// Events may have been lost, and its holder is told so once its host tells it of others again.
    lost: Option<LossCause>,
}

impl Handle {
    fn id(&self) -> HandleId {
        HandleId { session: self.body.session, opened_by: self.body.opened_by }
    }

    /// Whether that event is meant for it.
    fn hears(&self, event: &NodeEvent) -> bool {
        self.body.instance == event.instance
            && self.body.events.contains(event.kind)
            && event.to.is_none_or(|to| to == self.id())
    }
}

impl Handles {
    pub(super) fn add(&mut self, token: HandleToken, body: HandleBody, opening: Opening) -> HandleNumber {
        self.last += 1;
        let number = HandleNumber(self.last);
        *self.by_cell.entry(body.cell.clone()).or_default() += 1;
        if !body.events.is_empty() {
            self.listening.entry(body.name.clone()).or_default().insert(number);
        }
        self.open.insert(number, Handle { token, body, opening, over: None, lost: None });
        number
    }

    pub(super) fn remove(&mut self, number: HandleNumber) -> Option<Handle> {
        let handle = self.open.remove(&number)?;
        let HandleBody { name, cell, .. } = &handle.body;
        if let Some(numbers) = self.listening.get_mut(name) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.listening.remove(name);
            }
        }
        if let Some(count) = self.by_cell.get_mut(cell) {
            *count -= 1;
            if *count == 0 {
                self.by_cell.remove(cell);
            }
        }
        Some(handle)
    }

    pub(super) fn get(&self, number: HandleNumber) -> Option<&Handle> {
        self.open.get(&number)
    }

    /// Events may have been lost, until its host has taken it again.
    pub(super) fn lose_events(&mut self, number: HandleNumber, cause: &LossCause) {
        if let Some(handle) = self.open.get_mut(&number) {
            handle.lost = Some(cause.clone());
        }
    }

    /// What its holder has still to be told of a loss.
    pub(super) fn loss(&self, number: HandleNumber) -> Option<&LossCause> {
        self.open.get(&number)?.lost.as_ref()
    }

    /// Its host has taken it again: what its holder has to be told.
    pub(super) fn take_loss(&mut self, number: HandleNumber) -> Option<LossCause> {
        self.open.get_mut(&number)?.lost.take()
    }

    /// Lets every later call on it fail; whether that is new.
    pub(super) fn end(&mut self, number: HandleNumber, error: &Error) -> bool {
        match self.open.get_mut(&number) {
            Some(handle) if handle.over.is_none() => {
                handle.over = Some(error.clone());
                true
            }
            _ => false,
        }
    }

    /// How many are of that cell; `None`: of any.
    pub(super) fn count(&self, cell: Option<&CellName>) -> usize {
        match cell {
            None => self.open.len(),
            Some(cell) => self.by_cell.get(cell).copied().unwrap_or(0),
        }
    }

    /// Those of that cell (`None`: of any) that stand.
    pub(super) fn standing(&self, cell: Option<&CellName>) -> Vec<HandleNumber> {
        self.select(|handle| cell.is_none_or(|cell| handle.body.cell == *cell))
    }

    /// Those that stand and are told of events by that cell (`None`: by any). Of the children of a directory it may be
    /// another cell than that of its node which tells (`route-1`), and which one is not known here.
    pub(super) fn listening(&self, cell: Option<&CellName>) -> Vec<HandleNumber> {
        self.select(|handle| {
            let is_of_children = !handle.body.events.of_children().is_empty();
            let may_tell = |cell: &CellName| handle.body.cell == *cell || is_of_children;
            !handle.body.events.is_empty() && cell.is_none_or(may_tell)
        })
    }

    /// Those that hear of that event.
    pub(super) fn hearing(&self, event: &NodeEvent) -> Vec<HandleNumber> {
        let numbers = self.listening.get(&event.name).into_iter().flatten().copied();
        numbers
            .filter(|number| {
                self.open.get(number).is_some_and(|handle| handle.over.is_none() && handle.hears(event))
            })
            .collect()
    }

    fn select(&self, wanted: impl Fn(&Handle) -> bool) -> Vec<HandleNumber> {
        let is_wanted = |(_, handle): &(&HandleNumber, &Handle)| handle.over.is_none() && wanted(handle);
        self.open.iter().filter(is_wanted).map(|(number, _)| *number).collect()
    }

    /// Walks everything. For tests.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_cell.values().sum::<usize>(), self.open.len(), "each is of one cell");
        for number in self.listening.values().flatten() {
            assert!(self.open.contains_key(number), "{number:?} listens and is not open");
        }
    }
}
