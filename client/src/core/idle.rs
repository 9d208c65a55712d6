//! When a session is ended because nobody needs it (paper §2.8): there has been no handle of the
//! application's and no call for a minute. Idle handles that are only kept for later do not count.

use std::collections::BTreeMap;

use hasp_proto::client::Event;
use hasp_proto::handle::HandleBody;
use hasp_proto::id::CellName;
use hasp_proto::limits::IDLE;
use hasp_proto::time::Time;

use super::ApplicationCore;
use super::interface::Output;

#[derive(Clone, Debug)]
pub(super) struct Idle {
    is_wanted: bool,
    /// When a handle of the session at that cell was closed last.
    closed_at: BTreeMap<Option<CellName>, Time>,
}

impl Idle {
    /// Sessions rest only if that is wanted.
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, closed_at: BTreeMap::new() }
    }

    /// A handle of the session at that cell was closed.
    pub(super) fn closed(&mut self, now: Time, cell: Option<CellName>) {
        self.closed_at.insert(cell, now);
    }
}

impl ApplicationCore {
    /// When the next session may rest.
    pub(super) fn rest_at(&self) -> Option<Time> {
        self.upstream.sessions().filter_map(|held| self.session_rests_at(held.cell)).min()
    }

    /// Ends the sessions that nobody needs.
    pub(super) fn rest(&mut self, now: Time) {
        let cells: Vec<Option<CellName>> = self.upstream.sessions().map(|held| held.cell.cloned()).collect();
        for cell in cells {
            if self.session_rests_at(cell.as_ref()).is_some_and(|at| at <= now) {
                self.forget_session(cell.as_ref());
                self.upstream.rest(now, cell.as_ref());
                self.collect(now);
            }
        }
    }

    fn session_rests_at(&self, cell: Option<&CellName>) -> Option<Time> {
        if !self.idle.is_wanted || self.handles.count(cell) > 0 {
            return None;
        }
        let used = self.upstream.idle_since(cell)?;
        let closed = self.idle.closed_at.get(&cell.cloned()).copied().unwrap_or(Time::ZERO);
        Some(used.max(closed) + IDLE)
    }

    /// The session at that cell is over, or will be: what was kept under it is void.
    pub(super) fn forget_session(&mut self, cell: Option<&CellName>) {
        let is_its = |body: &HandleBody| cell.is_none_or(|cell| body.cell == *cell);
        self.spares.forget(is_its);
        let hidden = self.cached.flush(cell, None);
        self.hide(hidden);
        self.outputs.push_back(Output::CacheLease(cell.cloned(), None));
    }

    /// Ends everything. Who listens learns of it also if there is no session to end.
    pub(super) fn end(&mut self, now: Time) {
        self.upstream.end(now);
        if self.upstream.sessions().next().is_none() {
            self.outputs.push_back(Output::Event(None, Event::Closed));
        }
    }
}
