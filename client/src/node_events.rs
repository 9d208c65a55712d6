//! What happens to a node, told to whoever listens at a handle (P-EVENT).
//!
//! Events wait in a bounded queue of each listener's own, so that a slow one hurts only itself. One
//! queue is there from the moment the handle is opened: nothing is missed before somebody listens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::{EventKind, NodeEvent};
use hasp_proto::id::{CellName, Epoch};
use hasp_proto::position::Position;
use tokio::sync::Notify;

use crate::error::CallError;

/// Events that a listener may be behind; with more it is told to look again instead.
const EVENTS_MAX: usize = 256;

/// Something told to a handle that was opened with events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandleEvent {
    /// Something happened to the node. A read from here on shows it.
    Happened(NodeEvent),
    /// Events may have been missed: look again at what is watched. Those from here on will be told.
    EventsLost(LossCause),
    /// The handle is good for nothing any more, and its lock is gone: the node was deleted
    /// (`StaleHandle`), or the session or the cell was lost (`SessionExpired`). The last event.
    Invalid(CallError),
}

impl HandleEvent {
    /// As a cell tells it.
    pub(crate) fn of(event: &NodeEvent) -> Self {
        if event.kind == EventKind::HandleInvalid {
            let error = ErrorCode::StaleHandle.because(format!("{} was deleted", event.name));
            return Self::invalid(error, Some(event.position.clone()));
        }
        Self::Happened(event.clone())
    }

    pub(crate) fn invalid(error: Error, position: Option<Position>) -> Self {
        Self::Invalid(CallError::new(error, position))
    }
}

/// Why events may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// The listener was too slow.
    Slow,
    /// The host could not tell them all.
    Host,
    /// The master of the node's cell changed.
    FailOver {
        /// Which cell.
        cell: CellName,
        /// The new mastership.
        epoch: Epoch,
    },
    /// The session went on at another host, which did not know of it.
    NewHost,
}

/// Listens to one handle's events, in their order.
#[derive(Debug)]
pub struct NodeEvents {
    queue: Arc<Queue>,
}

impl NodeEvents {
    /// The next event; `None` after [`HandleEvent::Invalid`], or once the handle is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<HandleEvent> {
        loop {
            let told = self.queue.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            {
                let mut waiting = self.queue.waiting();
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
                if waiting.is_over {
                    return None;
                }
            }
            told.await;
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<HandleEvent>,
    is_over: bool,
}

impl Queue {
    fn push(&self, event: HandleEvent) {
        let mut waiting = self.waiting();
        if waiting.is_over {
            return;
        }
        waiting.is_over = matches!(event, HandleEvent::Invalid(_));
        if waiting.events.len() >= EVENTS_MAX {
            waiting.events.clear();
            waiting.events.push_back(HandleEvent::EventsLost(LossCause::Slow));
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.told.notify_waiters();
    }

    fn end(&self) {
        self.waiting().is_over = true;
        self.told.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a handle's events to its listeners.
#[derive(Debug)]
pub(crate) struct Teller {
    listeners: Mutex<Listeners>,
}

#[derive(Debug)]
struct Listeners {
    /// There from the start; whoever listens first takes it.
    first: Option<Arc<Queue>>,
    all: Vec<Weak<Queue>>,
    /// Nothing will be told any more: those to come learn this at once.
    last: Option<Option<HandleEvent>>,
}

impl Teller {
    /// Tells nobody yet, and remembers what will be told from here on.
    pub(crate) fn new() -> Self {
        let first = Arc::new(Queue::default());
        let listeners =
            Listeners { all: Vec::from([Arc::downgrade(&first)]), first: Some(first), last: None };
        Self { listeners: Mutex::new(listeners) }
    }

    /// The first listener hears everything since the beginning, others what is told from here on.
    pub(crate) fn listen(&self) -> NodeEvents {
        let mut listeners = self.listeners();
        if let Some(queue) = listeners.first.take() {
            return NodeEvents { queue };
        }
        let queue = Arc::new(Queue::default());
        match &listeners.last {
            None => listeners.all.push(Arc::downgrade(&queue)),
            Some(last) => {
                last.iter().for_each(|event| queue.push(event.clone()));
                queue.end();
            }
        }
        NodeEvents { queue }
    }

    pub(crate) fn tell(&self, event: &HandleEvent) {
        let mut listeners = self.listeners();
        listeners.each(|queue| queue.push(event.clone()));
        if matches!(event, HandleEvent::Invalid(_)) {
            listeners.last.get_or_insert_with(|| Some(event.clone()));
        }
    }

    /// The handle is closed: nothing follows what has been told.
    pub(crate) fn end(&self) {
        let mut listeners = self.listeners();
        listeners.each(Queue::end);
        listeners.last.get_or_insert(None);
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listeners {
    fn each(&mut self, act: impl Fn(&Queue)) {
        self.all.retain(|queue| match queue.upgrade() {
            Some(queue) => {
                act(&queue);
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests;
