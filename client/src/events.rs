//! What happens to a session, told to the application.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hasp_proto::client::Event;
use hasp_proto::id::{CellName, Epoch};
use hasp_proto::stream::News;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::CallError;

/// Events that a listener may be behind before it misses some.
const EVENTS_MAX: usize = 64;

/// Something that happened to the session, or to what it holds in one cell.
///
/// `cell` is `None` where one session serves all cells, as it does through a proxy or router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Nobody has answered for a whole lease: calls wait, cached knowledge is not to be relied on,
    /// and locks may be lost. `Safe`, `Expired` or `CellLost` follows.
    Jeopardy {
        /// Where.
        cell: Option<CellName>,
    },
    /// The session came through jeopardy with all that it holds.
    Safe {
        /// Where.
        cell: Option<CellName>,
    },
    /// The session is over, with all handles and locks. Nothing follows; connect anew.
    Expired(CallError),
    /// The master of a cell changed. Handles and locks stand; other events may have been missed.
    FailOver {
        /// Which cell.
        cell: CellName,
        /// The new mastership.
        epoch: Epoch,
    },
    /// All handles and locks in that cell are gone; those elsewhere stand.
    CellLost {
        /// Which cell.
        cell: CellName,
    },
    /// The listener was too slow: that many events are not told any more.
    Missed(u64),
}

/// Listens to a session's events from the moment of its making.
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<SessionEvent>>,
}

impl Events {
    /// The next event; `None` once the session is over and all was told. Cancel-safe.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(SessionEvent::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Tells events to whoever listens. Costs nothing until somebody does.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unheard,
    Heard(broadcast::Sender<SessionEvent>),
    Over,
}

impl Announcer {
    pub(crate) fn listen(&self) -> Events {
        let mut state = self.state();
        let receiver = match &*state {
            State::Over => None,
            State::Heard(sender) => Some(sender.subscribe()),
            State::Unheard => {
                let (sender, receiver) = broadcast::channel(EVENTS_MAX);
                *state = State::Heard(sender);
                Some(receiver)
            }
        };
        Events { receiver }
    }

    /// Tells what the application should know of a session's event.
    pub(crate) fn announce(&self, cell: Option<CellName>, event: &Event) {
        let mut state = self.state();
        if let (Some(event), State::Heard(sender)) = (session_event(&cell, event), &*state) {
            // That nobody listens any more is no matter.
            let _ = sender.send(event);
        }
        let is_final = match event {
            Event::Expired(_) => cell.is_none(),
            Event::Closed => true,
            Event::Welcomed { .. }
            | Event::Extended
            | Event::CacheLapsed
            | Event::Jeopardy
            | Event::Safe
            | Event::CellLost(_)
            | Event::News(..) => false,
        };
        if is_final {
            *state = State::Over;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn session_event(cell: &Option<CellName>, event: &Event) -> Option<SessionEvent> {
    match (event, cell) {
        (Event::Jeopardy, _) => Some(SessionEvent::Jeopardy { cell: cell.clone() }),
        (Event::Safe, _) => Some(SessionEvent::Safe { cell: cell.clone() }),
        (Event::Expired(error), None) => Some(SessionEvent::Expired(CallError::new(error.clone(), None))),
        (Event::Expired(_), Some(cell)) => Some(SessionEvent::CellLost { cell: cell.clone() }),
        (Event::News(_, News::FailOver { cell, epoch }), _) => {
            Some(SessionEvent::FailOver { cell: cell.clone(), epoch: *epoch })
        }
        (Event::News(_, News::CellLost { cell }) | Event::CellLost(cell), _) => {
            Some(SessionEvent::CellLost { cell: cell.clone() })
        }
        (Event::News(_, News::Invalidate { .. } | News::Event(_) | News::EventsLost { .. }), _) => None,
        (Event::Welcomed { .. } | Event::Extended | Event::CacheLapsed | Event::Closed, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::error::ErrorCode;

    use super::*;

    fn expired() -> Event {
        Event::Expired(ErrorCode::SessionExpired.because("gone"))
    }

    #[tokio::test]
    async fn events_end_with_the_session() {
        let announcer = Announcer::default();
        let mut events = announcer.listen();

        announcer.announce(None, &Event::Jeopardy);
        announcer.announce(None, &expired());

        assert_eq!(events.next().await, Some(SessionEvent::Jeopardy { cell: None }));
        assert!(matches!(events.next().await, Some(SessionEvent::Expired(_))));
        assert_eq!(events.next().await, None);
        assert_eq!(announcer.listen().next().await, None);
    }

    #[tokio::test]
    async fn a_session_lost_at_one_of_several_cells_is_a_lost_cell() {
        let announcer = Announcer::default();
        let mut events = announcer.listen();
        let cell = CellName::new("b");

        announcer.announce(Some(cell.clone()), &expired());
        announcer.announce(Some(cell.clone()), &Event::Jeopardy);

        assert_eq!(events.next().await, Some(SessionEvent::CellLost { cell: cell.clone() }));
        assert_eq!(events.next().await, Some(SessionEvent::Jeopardy { cell: Some(cell) }));
    }

    #[tokio::test]
    async fn a_slow_listener_learns_that_it_missed_some() {
        let announcer = Announcer::default();
        let mut events = announcer.listen();

        for _ in 0..EVENTS_MAX + 3 {
            announcer.announce(None, &Event::Safe);
        }

        assert_eq!(events.next().await, Some(SessionEvent::Missed(3)));
    }
}
