//! Listening to what becomes of a file.

use hasp_client::{Env, EventKind, EventMask, Handle, HandleEvent};

use crate::full::history::Told;
use crate::full::journal::Journal;

/// What is listened to.
pub(super) fn events() -> EventMask {
    EventMask::of([EventKind::ContentsModified])
}

/// Notes what the handle is told, until it is closed.
pub(super) fn listen(env: &Env, journal: &Journal, client: usize, file: &'static str, handle: &Handle) {
    let (watch, journal, mut events) = (journal.watches(client, file), journal.clone(), handle.events());
    env.tasks.spawn("file-events", async move {
        while let Some(event) = events.next().await {
            match event {
                HandleEvent::Happened(event) => journal.told_of(watch, Told::Modified(event.position)),
                HandleEvent::EventsLost(_) => journal.told_of(watch, Told::Lost),
                HandleEvent::Invalid(_) => {}
            }
        }
    });
}
