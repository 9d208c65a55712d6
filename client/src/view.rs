//! Files that were read, as any thread may look at them without waiting for the core.
//!
//! Only the core says what is shown; here it is carried out. It hides a file before it acknowledges the
//! file's invalidation, so whoever still finds it looked before the change was done (P-LIN). And a
//! *term* is the time for which a cache lease holds without a gap: what is shown hangs on the term in
//! which it was read, and the end of the term is looked at last (`lease-3`), so nothing that was found
//! while the lease was over can pass for valid because it was extended since.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hasp_proto::id::{CellName, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::Stat;
use hasp_proto::position::Position;
use hasp_proto::time::Time;
use hasp_rt::clock::Clock;

use crate::core::{Shown, Used};

/// What is shown of one name.
#[derive(Debug, Default)]
pub(crate) struct View {
    file: ArcSwapOption<File>,
}

#[derive(Debug)]
struct File {
    instance: Instance,
    contents: Bytes,
    stat: Stat,
    position: Position,
    term: Arc<Term>,
    used: Used,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) contents: Bytes,
    pub(crate) stat: Stat,
    pub(crate) position: Position,
}

impl View {
    /// The file, if it is shown, is that instance, and the cache lease is valid.
    pub(crate) fn find(&self, instance: Instance, seen: &Seen, clock: &dyn Clock) -> Option<Found> {
        // Before the file: it is current at every position that was seen before it was found.
        let seen = seen.latest.load();
        let file = self.file.load();
        let file = file.as_deref().filter(|file| file.instance == instance)?;
        let position = match seen.as_deref() {
            Some(seen) if seen.cell != file.position.cell => return None,
            Some(seen) if file.position.is_before(seen) => seen,
            Some(_) | None => &file.position,
        };
        let found =
            Found { contents: file.contents.clone(), stat: file.stat.clone(), position: position.clone() };
        file.used.mark();
        file.term.is_valid_at(clock.now()).then_some(found)
    }
}

/// Until when a cache lease holds without a gap; in microseconds of the process's clock.
#[derive(Debug, Default)]
struct Term {
    end: AtomicU64,
}

impl Term {
    fn is_valid_at(&self, now: Time) -> bool {
        now.as_micros() < self.end.load(Ordering::Acquire)
    }
}

/// The latest position of a cell that the application was shown (P-MONO).
#[derive(Debug, Default)]
pub(crate) struct Seen {
    latest: ArcSwapOption<Position>,
}

/// All views of a client. Changed by the core's outputs only, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Views {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<Name, Weak<View>>,
    terms: BTreeMap<Option<CellName>, Arc<Term>>,
    seen: BTreeMap<CellName, Arc<Seen>>,
    /// With so many views it is looked which of them nobody uses.
    prune_at: usize,
}

impl Views {
    /// What is shown of a name, to be looked at by a handle; and what was seen of its cell.
    pub(crate) fn of(&self, name: &Name, cell: &CellName) -> (Arc<View>, Arc<Seen>) {
        let mut state = self.state();
        let view = state.views.get(name).and_then(Weak::upgrade).unwrap_or_else(|| state.add(name));
        (view, state.seen(cell))
    }

    /// The application is shown something at that position.
    pub(crate) fn saw(&self, position: &Position) {
        let seen = self.state().seen(&position.cell);
        let is_later = seen.latest.load().as_deref().is_none_or(|latest| latest.is_before(position));
        if is_later {
            seen.latest.store(Some(Arc::new(position.clone())));
        }
    }

    /// Shows a file, if somebody could look at it and its cache lease holds.
    pub(crate) fn show(&self, shown: Shown) {
        let state = self.state();
        let view = state.views.get(&shown.name).and_then(Weak::upgrade);
        let (Some(view), Some(term)) = (view, state.terms.get(&shown.cell)) else { return };
        let Shown { instance, contents, stat, position, used, .. } = shown;
        let file = File { instance, contents, stat, position, term: term.clone(), used };
        view.file.store(Some(Arc::new(file)));
    }

    /// Shows it no more.
    pub(crate) fn hide(&self, name: &Name) {
        if let Some(view) = self.state().views.get(name).and_then(Weak::upgrade) {
            view.file.store(None);
        }
    }

    /// The cache lease ends then; `None`: its term is over.
    pub(crate) fn set_cache_lease(&self, cell: Option<CellName>, end: Option<Time>) {
        let mut state = self.state();
        match end {
            Some(end) => {
                let term = state.terms.entry(cell).or_default();
                term.end.store(end.as_micros(), Ordering::Release);
            }
            None => {
                if let Some(term) = state.terms.remove(&cell) {
                    term.end.store(0, Ordering::Release);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, name: &Name) -> Arc<View> {
        if self.views.len() >= self.prune_at {
            self.views.retain(|_, view| view.strong_count() > 0);
            self.prune_at = 2 * self.views.len() + 16;
        }
        let view = Arc::new(View::default());
        self.views.insert(name.clone(), Arc::downgrade(&view));
        view
    }

    fn seen(&mut self, cell: &CellName) -> Arc<Seen> {
        self.seen.entry(cell.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests;
