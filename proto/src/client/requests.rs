//! Requests that have no final answer yet, by number: asked again after a lost connection with
//! the same number, so that a write takes effect at most once (P-ONCE).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::ErrorCode;
use crate::id::RequestNumber;
use crate::request::Request;
use crate::time::Time;

use super::Ask;

/// Pause before a request is asked again that the host could not do just now.
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    last: RequestNumber,
    waiting: BTreeMap<RequestNumber, Waiting>,
    /// Refused for the moment; asked again then.
    repeats: BTreeSet<(Time, RequestNumber)>,
}

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) ask: Ask,
    pub(super) cancelled: bool,
    pub(super) was_sent: bool,
}

impl Requests {
    pub(super) fn add(&mut self, ask: Ask) -> RequestNumber {
        self.last = self.last.next();
        self.waiting.insert(self.last, Waiting { ask, cancelled: false, was_sent: false });
        self.last
    }

    /// The number of the next one.
    pub(super) fn next(&self) -> RequestNumber {
        self.last.next()
    }

    pub(super) fn get_mut(&mut self, number: RequestNumber) -> Option<&mut Waiting> {
        self.waiting.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: RequestNumber) -> bool {
        self.waiting.remove(&number).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// In the order they were asked.
    pub(super) fn all(&self) -> Vec<RequestNumber> {
        self.waiting.keys().copied().collect()
    }

    /// Everything below has its final answer.
    pub(super) fn settled_below(&self) -> RequestNumber {
        self.waiting.keys().next().copied().unwrap_or(self.next())
    }

    /// The message for the host, and whether a Cancel has to follow it.
    pub(super) fn message(&mut self, number: RequestNumber) -> Option<(Request, bool)> {
        let settled_below = self.settled_below();
        let waiting = self.waiting.get_mut(&number)?;
        waiting.was_sent = true;
        let Ask { op, on_behalf, guard, caches, trace } = waiting.ask.clone();
        let request = Request { number, settled_below, on_behalf, guard, caches, trace, op };
        Some((request, waiting.cancelled))
    }

    pub(super) fn repeat_later(&mut self, now: Time, number: RequestNumber, code: &ErrorCode) {
        let pause = match code {
            ErrorCode::RateLimited { retry_after } => (*retry_after).max(REPEAT_PAUSE),
            _ => REPEAT_PAUSE,
        };
        self.repeats.insert((now + pause, number));
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.repeats.first().map(|(at, _)| *at)
    }

    pub(super) fn take_due(&mut self, now: Time) -> Option<RequestNumber> {
        let (at, number) = *self.repeats.first()?;
        if at > now {
            return None;
        }
        self.repeats.pop_first();
        Some(number)
    }
}
