//! Requests that were passed on upstream and have no answer yet: whose they are, and at which cell.

use std::collections::BTreeMap;

use hasp_proto::client::cache::FillTicket;
use hasp_proto::error::Retry;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};

use crate::upstream::Ticket;
use hasp_proto::request::Answer;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It goes to the session that asked.
    Answer(SessionId, RequestNumber),
    /// It is one of several, and the session that asked gets one answer for all.
    Part(SessionId, RequestNumber),
    /// The session, which comes from elsewhere, is let in when its claim was noted.
    Claim(SessionId, Claim),
    /// Nobody waits for it.
    Note,
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) purpose: Purpose,
    /// Where it is; `None` while that is not known.
    pub(super) cell: Option<CellName>,
    /// What may be kept of the answer.
    pub(super) fill: Option<Fill>,
    /// The handle that is shown to the cell, of a `Refresh`.
    pub(super) shown: Option<HandleToken>,
}

/// A read whose answer may be kept.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    pub(super) ticket: FillTicket,
    pub(super) principal: String,
    /// Whoever asked would keep it too.
    pub(super) caches: bool,
}

/// What is left of a request that was asked in several places.
#[derive(Clone, Debug, Default)]
struct Parts {
    left: usize,
    /// A cell's word that whoever asked does not speak for the client.
    refusal: Option<Answer>,
}

/// Every request that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights {
    by_ticket: BTreeMap<Ticket, Flight>,
    by_request: BTreeMap<(SessionId, RequestNumber), Ticket>,
    parts_left: BTreeMap<(SessionId, RequestNumber), Parts>,
}

impl Flights {
    pub(super) fn add(&mut self, ticket: Ticket, flight: Flight) {
        match flight.purpose {
            Purpose::Answer(session, number) => {
                // An earlier session of the same key may have left one behind: it is answered to nobody.
                if let Some(left) = self.by_request.insert((session, number), ticket)
                    && let Some(earlier) = self.by_ticket.get_mut(&left)
                {
                    earlier.purpose = Purpose::Note;
                }
            }
            Purpose::Part(session, number) => {
                self.parts_left.entry((session, number)).or_default().left += 1;
            }
            Purpose::Claim(..) | Purpose::Note => {}
        }
        self.by_ticket.insert(ticket, flight);
    }

    /// Takes a request off the list.
    pub(super) fn land(&mut self, ticket: Ticket) -> Option<Flight> {
        let flight = self.by_ticket.remove(&ticket)?;
        if let Purpose::Answer(session, number) = flight.purpose {
            self.by_request.remove(&(session, number));
        }
        Some(flight)
    }

    /// Counts one part as answered. After the last, `Some` with what is to be said instead of having noted it.
    pub(super) fn last_part(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        answer: &Answer,
    ) -> Option<Option<Answer>> {
        let parts = self.parts_left.get_mut(&(session, number))?;
        parts.left -= 1;
        let is_refused = answer.result.as_ref().is_err_and(|error| error.code.retry() == Retry::NewSession);
        if is_refused && answer.position.is_some() {
            parts.refusal = Some(answer.clone());
        }
        if parts.left > 0 {
            return None;
        }
        self.parts_left.remove(&(session, number)).map(|parts| parts.refusal)
    }

    pub(super) fn ticket(&self, session: SessionId, number: RequestNumber) -> Option<Ticket> {
        self.by_request.get(&(session, number)).copied()
    }

    /// Those that wait to be answered to `session`, oldest first.
    pub(super) fn of(&self, session: SessionId) -> impl Iterator<Item = Ticket> {
        let all = (session, RequestNumber(0))..=(session, RequestNumber(u64::MAX));
        self.by_request.range(all).map(|(_, ticket)| *ticket)
    }

    /// Whether something that `session` asked is under way at `cell`, or at a cell not known yet.
    pub(super) fn is_at(&self, session: SessionId, cell: &CellName) -> bool {
        self.of(session).any(|ticket| {
            let flight = &self.by_ticket[&ticket];
            flight.cell.as_ref().is_none_or(|at| at == cell)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    pub(super) fn check_invariants(&self) {
        for ((session, number), ticket) in &self.by_request {
            let purpose = self.by_ticket.get(ticket).map(|flight| flight.purpose);
            assert_eq!(purpose, Some(Purpose::Answer(*session, *number)), "a request has its flight");
        }
        assert!(self.parts_left.values().all(|parts| parts.left > 0), "answered requests have no parts");
    }
}
