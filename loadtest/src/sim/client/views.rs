//! Files that any thread of an application reads beside the machine, as the library's shell does.

use std::collections::BTreeMap;

use hasp_client::machine::Shown;
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::Reply;
use hasp_proto::time::Time;

use super::{Client, Hand};

/// What is shown, and under which cache leases.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) shown: BTreeMap<Name, (Shown, u64)>,
    /// Of each cache lease: which term, and when it ends.
    terms: BTreeMap<Option<CellName>, (u64, Time)>,
    terms_ever: u64,
    seen: BTreeMap<CellName, Position>,
}

impl Views {
    pub(super) fn set_cache_lease(&mut self, cell: Option<CellName>, end: Option<Time>) {
        match end {
            Some(end) => {
                if !self.terms.contains_key(&cell) {
                    self.terms_ever += 1;
                }
                let number = self.terms_ever;
                self.terms.entry(cell).or_insert((number, end)).1 = end;
            }
            None => drop(self.terms.remove(&cell)),
        }
    }

    pub(super) fn show(&mut self, shown: Shown) {
        if let Some((term, _)) = self.terms.get(&shown.cell) {
            self.shown.insert(shown.name.clone(), (shown, *term));
        }
    }

    pub(super) fn saw(&mut self, position: &Position) {
        let seen = self.seen.entry(position.cell.clone()).or_insert_with(|| position.clone());
        if seen.is_before(position) {
            *seen = position.clone();
        }
    }

    pub(super) fn find(&self, now: Time, hand: &Hand, name: &Name) -> Option<(Reply, Position)> {
        let (shown, term) = self.shown.get(name).filter(|(shown, _)| shown.instance == hand.instance)?;
        let (valid, end) = self.terms.get(&shown.cell)?;
        let seen = self.seen.get(&shown.position.cell).filter(|seen| shown.position.is_before(seen));
        let position = seen.unwrap_or(&shown.position).clone();
        shown.used.mark();
        let reply = Reply::Contents { contents: shown.contents.clone(), stat: shown.stat.clone() };
        (term == valid && now < *end).then_some((reply, position))
    }
}

impl Client {
    /// Files that any thread of the application could read now, beside the machine.
    pub fn shows(&self, now: Time) -> impl Iterator<Item = &Shown> {
        let Views { shown, terms, .. } = &self.views;
        let is_valid = move |shown: &Shown, term: u64| {
            terms.get(&shown.cell).is_some_and(|(valid, end)| term == *valid && now < *end)
        };
        shown.values().filter(move |(shown, term)| is_valid(shown, *term)).map(|(shown, _)| shown)
    }
}
