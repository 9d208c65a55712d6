//! One of the holder's sessions: the one at one cell, or the only one.
//!
//! A session that is over is followed by another with a new key. To the outside their connections
//! are numbered on, so that nothing late from the old one is taken for the new one's.

use std::collections::BTreeMap;

use hasp_proto::client::{Attempt, ClientConfig, ClientCore};
use hasp_proto::id::{CellName, RequestNumber};
use hasp_proto::time::Time;

use super::{Asked, LinkId};

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) cell: Option<CellName>,
    /// Where the hosts are; none if the map names none.
    pub(super) targets: Vec<String>,
    /// The session; `None` while none has begun.
    pub(super) client: Option<Box<ClientCore>>,
    /// Requests without an answer, by their number in the session.
    pub(super) asked: BTreeMap<RequestNumber, Asked>,
    /// Requests that were asked here and wait for other cells.
    pub(super) crossing: usize,
    /// When to begin the next session, if that is to happen by itself.
    pub(super) begin_at: Option<Time>,
    /// The session was welcomed once.
    pub(super) was_welcomed: bool,
    /// When something was asked or answered last, or the session began.
    pub(super) used_at: Time,
    /// The session is being ended because nobody needs it.
    pub(super) is_resting: bool,
    /// A session rested here: the next begins when something is asked.
    pub(super) begins_at_use: bool,
    /// Requests that wait for the end of the session that rests.
    pub(super) held_back: Vec<Asked>,
    /// Attempts of earlier sessions.
    attempts_before: u64,
    /// Attempts, those of earlier sessions included.
    attempts: u64,
    keep_alives_before: u64,
}

impl Slot {
    pub(super) fn new(cell: Option<CellName>, targets: Vec<String>) -> Self {
        Self {
            cell,
            targets,
            client: None,
            asked: BTreeMap::new(),
            crossing: 0,
            begin_at: None,
            was_welcomed: false,
            used_at: Time::ZERO,
            is_resting: false,
            begins_at_use: false,
            held_back: Vec::new(),
            attempts_before: 0,
            attempts: 0,
            keep_alives_before: 0,
        }
    }

    pub(super) fn begin(&mut self, now: Time, config: ClientConfig) {
        assert!(self.client.is_none(), "one session at a cell at a time");
        self.begin_at = None;
        self.was_welcomed = false;
        self.used_at = now;
        self.attempts_before = self.attempts;
        self.client = Some(Box::new(ClientCore::new(now, config)));
    }

    /// Drops the session, which is over.
    pub(super) fn forget(&mut self) {
        if let Some(client) = self.client.take() {
            assert!(self.asked.is_empty(), "nothing waits on a session that is over");
            self.keep_alives_before += client.keep_alives_sent();
        }
    }

    pub(super) fn keep_alives_sent(&self) -> u64 {
        self.keep_alives_before + self.client.as_ref().map_or(0, |client| client.keep_alives_sent())
    }

    /// The session's attempt as the outside knows it.
    pub(super) fn link(&mut self, attempt: Attempt) -> LinkId {
        let attempt = Attempt(self.attempts_before + attempt.0);
        self.attempts = self.attempts.max(attempt.0);
        LinkId { cell: self.cell.clone(), attempt }
    }

    /// The attempt as the session knows it; `None` if it was an earlier session's.
    pub(super) fn attempt(&self, link: &LinkId) -> Option<Attempt> {
        link.attempt.0.checked_sub(self.attempts_before).filter(|attempt| *attempt > 0).map(Attempt)
    }
}
