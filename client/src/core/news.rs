//! What happens to the sessions, and what their hosts tell of nodes.

use hasp_proto::client::{Event, NewsId, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::{EventKind, NodeEvent};
use hasp_proto::handle::HandleBody;
use hasp_proto::id::{CellName, Epoch};
use hasp_proto::request::{Answer, Op};
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use crate::node_events::{HandleEvent, LossCause};

use super::interface::{Call, HandleNumber, Output};
use super::{ApplicationCore, Caller, Late};

impl ApplicationCore {
    pub(super) fn happened(&mut self, now: Time, cell: Option<CellName>, event: Event) {
        match &event {
            Event::Extended => self.extend_cache_lease(cell.as_ref()),
            // lease-4
            Event::CacheLapsed | Event::Jeopardy => self.flush_session(now, cell.as_ref()),
            Event::Welcomed { resumed: false, .. } => self.welcomed_anew(now, cell.as_ref()),
            Event::Welcomed { .. } | Event::Safe => {}
            Event::Expired(error) => self.session_lost(now, cell.as_ref(), error),
            Event::Closed => {
                self.session_lost(now, cell.as_ref(), &ErrorCode::SessionExpired.because("closed"));
            }
            Event::CellLost(cell) => self.cell_lost(now, cell),
            Event::News(id, news) => self.told(now, cell.as_ref(), *id, news),
        }
        self.follow(now, &event);
        self.outputs.push_back(Output::Event(cell, event));
    }

    fn told(&mut self, now: Time, session: Option<&CellName>, id: NewsId, news: &News) {
        match news {
            News::Invalidate { items, floor } => {
                let hidden = self.cached.invalidate(items, floor);
                self.hide(hidden);
                self.drop_spares(now);
            }
            News::FailOver { cell, epoch } => self.failed_over(now, cell, *epoch),
            News::CellLost { cell } => self.cell_lost(now, cell),
            News::Event(event) => self.node_event(now, event),
            News::EventsLost { cell } => self.events_lost(now, cell.as_ref()),
        }
        match news {
            // Only then may the change go on: nothing else is waited for.
            News::Invalidate { .. } => self.upstream.acknowledge(now, session, id),
            // What was told is dealt with once it is told.
            _ => self.late.push(Late::Acknowledge(session.cloned(), id)),
        }
    }

    fn node_event(&mut self, now: Time, event: &NodeEvent) {
        for number in self.handles.hearing(event) {
            if event.kind == EventKind::LockConflict {
                self.lock_wanted(now, number);
            }
            // It may come of an earlier subscription, which the host has kept: some before it may be missing.
            if let Some(cause) = self.handles.loss(number).cloned() {
                self.tell_loss(number, cause);
            }
            let told = self.handles.get(number).map(|handle| handle.opening.told);
            if told.is_some_and(|told| told.contains(event.kind)) {
                self.late.push(Late::Tell(number, HandleEvent::of(event)));
            }
        }
    }

    fn failed_over(&mut self, now: Time, cell: &CellName, epoch: Epoch) {
        let hidden = self.cached.flush(Some(cell), Some(epoch));
        self.hide(hidden);
        self.drop_spares(now);
        self.refresh(now, Some(cell), &LossCause::FailOver { cell: cell.clone(), epoch });
    }

    fn cell_lost(&mut self, now: Time, cell: &CellName) {
        let hidden = self.cached.flush(Some(cell), None);
        self.hide(hidden);
        self.spares.forget(|body: &HandleBody| body.cell == *cell);
        let error = ErrorCode::SessionExpired.because(format!("the host lost its session with cell {cell}"));
        for handle in self.handles.standing(Some(cell)) {
            self.end_handle(now, handle, &error);
        }
    }

    /// The host does not know the session, or what it may cache.
    fn welcomed_anew(&mut self, now: Time, cell: Option<&CellName>) {
        if cell.is_none() {
            self.cached.forget_namespace();
        }
        self.flush_session(now, cell);
        self.refresh(now, cell, &LossCause::NewHost);
    }

    fn session_lost(&mut self, now: Time, cell: Option<&CellName>, error: &Error) {
        self.forget_session(cell);
        for handle in self.handles.standing(cell) {
            self.end_handle(now, handle, error);
        }
    }

    fn flush_session(&mut self, now: Time, cell: Option<&CellName>) {
        let hidden = self.cached.flush(cell, None);
        self.hide(hidden);
        self.outputs.push_back(Output::CacheLease(cell.cloned(), None));
        self.extend_cache_lease(cell);
        self.drop_spares(now);
    }

    fn extend_cache_lease(&mut self, cell: Option<&CellName>) {
        let session = self.upstream.sessions().find(|held| held.cell == cell);
        let Some(held) = session.filter(|held| held.status == Status::Safe) else { return };
        let end = held.ends.cache;
        self.outputs.push_back(Output::CacheLease(cell.cloned(), Some(end)));
    }

    /// Shows the host every handle that is to be told of events, so that it tells them from here on. Only then its
    /// holder is told to look again: what it sees before that may be older than what it is told of.
    fn refresh(&mut self, now: Time, cell: Option<&CellName>, cause: &LossCause) {
        for number in self.handles.listening(cell) {
            // A conflict may be among what is lost.
            self.lock_wanted(now, number);
            self.handles.lose_events(number, cause);
            let Some(handle) = self.handles.get(number) else { continue };
            let op = Op::Refresh(handle.token.clone());
            self.send(now, Caller::Nobody, Call { on: Some(number), ..op.into() });
        }
    }

    pub(super) fn refreshed(&mut self, now: Time, number: HandleNumber, answer: &Answer) {
        self.note_end(now, Some(number), answer);
        let Err(error) = &answer.result else {
            if let Some(cause) = self.handles.take_loss(number) {
                self.tell_loss(number, cause);
            }
            return;
        };
        let is_over = match error.code {
            // Without a proxy or router there is no way to where it has moved.
            ErrorCode::StaleHandle | ErrorCode::PermissionDenied | ErrorCode::WrongCell { .. } => true,
            _ => false,
        };
        if is_over {
            let invalid = HandleEvent::invalid(error.clone(), answer.position.clone());
            self.late.push(Late::Tell(number, invalid));
        }
    }

    fn events_lost(&mut self, now: Time, cell: Option<&CellName>) {
        for number in self.handles.listening(cell) {
            // A conflict may be among them.
            self.lock_wanted(now, number);
            self.tell_loss(number, LossCause::Host);
        }
    }

    fn tell_loss(&mut self, number: HandleNumber, cause: LossCause) {
        let told = self.handles.get(number).map(|handle| handle.opening.told);
        if told.is_some_and(|told| !told.is_empty()) {
            self.late.push(Late::Tell(number, HandleEvent::EventsLost(cause)));
        }
    }
}
