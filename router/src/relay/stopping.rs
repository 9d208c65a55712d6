//! How a relay ends: its clients drop what it let them cache, are sent elsewhere, and then the cells hear
//! that it is gone. A cell that heard it earlier would change what clients may still use (P-LEASE).
//!
//! ```text
//! stopping: copies below are taken back -- all dropped, or patience over --> clients sent elsewhere
//!           -- no cache lease that was granted here holds any more --> own sessions end
//! ```

use std::time::Duration;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::position::Position;
use hasp_proto::time::Time;

use super::{Phase, RelayCore};

/// How long clients have to drop what they cached before they are sent elsewhere all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has not begun.
    #[default]
    No,
    /// Clients drop their copies, until then.
    TakingBack(Time),
    /// Clients are sent elsewhere; cache leases may still hold.
    Waiting,
    /// The own sessions end.
    Ending,
}

impl RelayCore {
    pub(super) fn stop(&mut self, now: Time) {
        if self.stop != Stop::No {
            return;
        }
        self.phase = self.phase.max(Phase::Stopping);
        self.stop = Stop::TakingBack(now + PATIENCE);
        for cell in self.above.cells().to_vec() {
            let source = self.sources.entry(cell.clone()).or_default();
            let floor =
                source.seen().cloned().unwrap_or(Position { cell: cell.clone(), ..Position::default() });
            let items = source.cachers.items();
            self.take_back(now, &cell, None, items, &floor);
        }
    }

    /// Does the next step of the end, if it can be done; whether it was.
    pub(super) fn stop_goes_on(&mut self, now: Time) -> bool {
        let is_held = || self.sources.values().any(|source| source.cachers.sessions().next().is_some());
        match self.stop {
            Stop::TakingBack(until) if now >= until || !is_held() => {
                self.send_elsewhere(now);
                true
            }
            Stop::Waiting if self.fading.first().is_none() => {
                self.stop = Stop::Ending;
                self.upstream.end(now);
                true
            }
            Stop::No | Stop::TakingBack(_) | Stop::Waiting | Stop::Ending => false,
        }
    }

    fn send_elsewhere(&mut self, now: Time) {
        self.stop = Stop::Waiting;
        let holders: Vec<_> =
            self.sources.values().flat_map(|source| source.cachers.sessions().collect::<Vec<_>>()).collect();
        for session in holders {
            if let Some(end) = self.server.cache_end(session) {
                self.fade(now, session, end);
            }
        }
        self.server.stop(&stopping());
    }

    /// When the next step is due by itself.
    pub(super) fn stop_due(&self) -> Option<Time> {
        match self.stop {
            Stop::TakingBack(until) => Some(until),
            Stop::No | Stop::Waiting | Stop::Ending => None,
        }
    }
}

/// What clients are told that come, or are still here.
pub(super) fn stopping() -> Error {
    ErrorCode::Unavailable.because("this host is stopping")
}
