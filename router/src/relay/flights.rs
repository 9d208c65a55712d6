//! Requests that were passed on upstream and have no answer yet: whose they are, and at which cell.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::client::cache::FillTicket;
use hasp_proto::error::{Error, ErrorCode, Retry};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};

use crate::upstream::Ticket;
use hasp_proto::request::{Answer, Reply};

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It goes to the session that asked.
    Answer(SessionId, RequestNumber),
    /// It is one of several, and the session that asked gets one answer for all.
    Part(SessionId, RequestNumber),
    /// The session, which comes from elsewhere, is let in when its claim was noted.
    Claim(SessionId, Claim),
    /// The guest, which was let in without the cell, hears what that says when it asks the next time.
    LateClaim(SessionId, Claim),
    /// Nobody waits for it.
    Note,
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) purpose: Purpose,
    /// Behind which gate it is; `None` while that is not known.
    pub(super) gate: Option<CellName>,
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
    /// Of a claim.
    claim: Option<Claimed>,
}

/// What has become of a claim so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Claimed {
    /// Cells that have not noted it, since there is no session with them.
    pub(super) without: Vec<CellName>,
    /// Why another could not, which may the next time.
    failure: Option<Error>,
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
            Purpose::Claim(..) | Purpose::LateClaim(..) | Purpose::Note => {}
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

    /// The parts of this request are those of a claim, which these cells hear of later.
    pub(super) fn claims(&mut self, session: SessionId, number: RequestNumber, without: Vec<CellName>) {
        let parts = self.parts_left.entry((session, number)).or_default();
        parts.claim = Some(Claimed { without, failure: None });
    }

    /// Counts one part, which was asked behind that gate, as answered. After the last, `Some` with what is to be said.
    ///
    /// A cell that could not note something else than a claim has lost what there was to note, or will by itself.
    pub(super) fn last_part(
        &mut self,
        (session, number): (SessionId, RequestNumber),
        gate: Option<&CellName>,
        answer: &Answer,
    ) -> Option<Answer> {
        let parts = self.parts_left.get_mut(&(session, number))?;
        parts.left -= 1;
        let is_refused = answer.result.as_ref().is_err_and(|error| error.code.retry() == Retry::NewSession);
        match (&mut parts.claim, &answer.result) {
            _ if is_refused && answer.position.is_some() => parts.refusal = Some(answer.clone()),
            // The own session there is over.
            (Some(claim), Err(_)) if is_refused => claim.without.extend(gate.cloned()),
            (Some(claim), Err(error)) => claim.failure = Some(error.clone()),
            (Some(claim), Ok(Reply::ClaimedWithout(cells))) => claim.without.extend(cells.iter().cloned()),
            (None, _) | (Some(_), Ok(_)) => {}
        }
        if parts.left > 0 {
            return None;
        }
        let Parts { refusal, claim, .. } = self.parts_left.remove(&(session, number))?;
        if let Some(refusal) = refusal {
            return Some(Answer { number, ..refusal });
        }
        let result = match claim {
            Some(Claimed { failure: Some(error), .. }) => Err(ErrorCode::Unavailable.because(error.detail)),
            Some(Claimed { without, .. }) if !without.is_empty() => Ok(Reply::ClaimedWithout(without)),
            Some(_) | None => Ok(Reply::Noted),
        };
        Some(Answer::plain(number, result))
    }

    pub(super) fn ticket(&self, session: SessionId, number: RequestNumber) -> Option<Ticket> {
        self.by_request.get(&(session, number)).copied()
    }

    /// Those that wait to be answered to `session`, oldest first.
    pub(super) fn of(&self, session: SessionId) -> impl Iterator<Item = Ticket> {
        let all = (session, RequestNumber(0))..=(session, RequestNumber(u64::MAX));
        self.by_request.range(all).map(|(_, ticket)| *ticket)
    }

    /// Whether something that `session` asked is under way behind `gate`, or somewhere not known yet.
    /// What clients asked behind these gates may be elsewhere by now.
    pub(super) fn displace(&mut self, gates: &BTreeSet<CellName>) {
        for flight in self.by_ticket.values_mut() {
            if matches!(flight.purpose, Purpose::Answer(..))
                && flight.gate.as_ref().is_some_and(|gate| gates.contains(gate))
            {
                flight.gate = None;
            }
        }
    }

    pub(super) fn is_at(&self, session: SessionId, gate: &CellName) -> bool {
        self.of(session).any(|ticket| {
            let flight = &self.by_ticket[&ticket];
            flight.gate.as_ref().is_none_or(|at| at == gate)
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
