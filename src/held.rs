//! What a command holds for as long as it runs, a lock or an open handle, and how it learns that it is lost.

use hasp_client::{
    CallError, CellName, Client, ErrorCode, EventKind, EventMask, Events, Handle, HandleEvent, NodeEvents,
    SessionEvent,
};

use crate::exit::{Failure, tell};

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The handle, and its lock.
    Lock,
    /// The handle.
    Handle,
}

/// Watches over what is held.
pub struct Watch {
    held: Held,
    handle: Handle,
    session: Events,
    node: NodeEvents,
    /// Where the node lives, if it is known.
    cell: Option<CellName>,
    /// Something may have been missed: the cell has to be asked.
    must_look: bool,
}

/// The events that a handle to be watched over is opened with.
pub fn events() -> EventMask {
    EventMask::of([EventKind::HandleInvalid])
}

impl Watch {
    /// Watches over a handle; to be called before what it is about can be lost unseen.
    pub fn over(held: Held, client: &Client, handle: &Handle, cell: Option<CellName>) -> Self {
        let (session, node) = (client.events(), handle.events());
        // What happened before anybody listened is found out by asking.
        Self { held, handle: handle.clone(), session, node, cell, must_look: client.is_over() }
    }

    /// Waits until it is lost, and says why; tells of jeopardy on stderr meanwhile. Cancel-safe.
    pub async fn lost(&mut self) -> Failure {
        loop {
            // The events are cancel-safe, and a question that is cancelled is asked again.
            let lost = tokio::select! {
                biased;
                event = self.session.next() => self.heed_session(event),
                event = self.node.next() => self.heed_node(event),
                lost = look(self.held, &self.handle), if self.must_look => {
                    self.must_look = false;
                    lost
                }
            };
            if let Some(error) = lost {
                return Failure::from(error);
            }
        }
    }

    fn heed_session(&mut self, event: Option<SessionEvent>) -> Option<CallError> {
        match event {
            Some(SessionEvent::Jeopardy { cell }) if self.concerns(cell.as_ref()) => {
                tell("the session is in jeopardy: nobody answers, what it holds may be lost");
            }
            Some(SessionEvent::Safe { cell }) if self.concerns(cell.as_ref()) => {
                tell("the session is safe again");
            }
            Some(SessionEvent::CellLost { cell }) if self.concerns(Some(&cell)) => {
                return Some(expired(&format!("the session at cell {cell} is over")));
            }
            Some(
                SessionEvent::Jeopardy { .. } | SessionEvent::Safe { .. } | SessionEvent::CellLost { .. },
            ) => {}
            Some(SessionEvent::FailOver { .. } | SessionEvent::Missed(_)) => self.must_look = true,
            Some(SessionEvent::Expired(error)) => return Some(error),
            None => return Some(expired("the session is over")),
        }
        None
    }

    fn heed_node(&mut self, event: Option<HandleEvent>) -> Option<CallError> {
        match event {
            Some(HandleEvent::Happened(event)) if event.kind == EventKind::HandleInvalid => {
                Some(stale(&format!("{} was deleted", event.name)))
            }
            Some(HandleEvent::Happened(_)) => None,
            Some(HandleEvent::EventsLost(_)) => {
                self.must_look = true;
                None
            }
            Some(HandleEvent::Invalid(error)) => Some(error),
            None => Some(stale("the handle is closed")),
        }
    }

    /// Whether what happens at one cell, or at all, concerns what is held.
    fn concerns(&self, at: Option<&CellName>) -> bool {
        at.is_none() || self.cell.is_none() || at == self.cell.as_ref()
    }
}

/// Asks the cell whether it is held still.
async fn look(held: Held, handle: &Handle) -> Option<CallError> {
    let answer = match held {
        Held::Lock => handle.get_sequencer().await.map(drop),
        Held::Handle => handle.get_stat().await.map(drop),
    };
    answer.err().filter(|error| is_loss(&error.code))
}

/// Whether an error says that it is lost, and not only that it cannot be told.
fn is_loss(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::LockNotHeld
            | ErrorCode::StaleHandle
            | ErrorCode::SequencerInvalid
            | ErrorCode::SessionExpired
            | ErrorCode::SessionMoved
    )
}

fn expired(detail: &str) -> CallError {
    CallError { code: ErrorCode::SessionExpired, detail: detail.into(), position: None }
}

fn stale(detail: &str) -> CallError {
    CallError { code: ErrorCode::StaleHandle, detail: detail.into(), position: None }
}
