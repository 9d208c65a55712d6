//! Clients that are gone, until the cells behind each gate where they left something were told (`proxy-2`).
//!
//! A cell is told once nothing that the client asked is under way there any more: what came after
//! the word would leave something behind that nobody ever frees.

use std::collections::BTreeMap;

use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};
use hasp_proto::request::{EndCause, OnBehalf};

use super::flights::Flights;

/// For whom, and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    pub(super) on_behalf: OnBehalf,
    pub(super) cause: EndCause,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    waiting: BTreeMap<(SessionId, Claim, CellName), Departure>,
}

impl Departures {
    pub(super) fn add(&mut self, gate: &CellName, departure: Departure) {
        let key = (departure.on_behalf.session, departure.on_behalf.claim, gate.clone());
        self.waiting.insert(key, departure);
    }

    /// Those of `session` that can be told, and behind which gate.
    pub(super) fn take_ready(&mut self, session: SessionId, flights: &Flights) -> Vec<(CellName, Departure)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let all = (session, Claim(0), CellName::default())..(session, Claim(u64::MAX), CellName::default());
        let ready: Vec<_> = self
            .waiting
            .range(all)
            .map(|(key, _)| key.clone())
            .filter(|(_, _, gate)| !flights.is_at(session, gate))
            .collect();
        ready.into_iter().filter_map(|key| Some((key.2.clone(), self.waiting.remove(&key)?))).collect()
    }
}

/// Speaks for a client outside of its own requests, whose numbers start at 1.
pub(super) fn speak_for(
    session: SessionId,
    claim: Claim,
    principal: &str,
    settled_below: RequestNumber,
) -> OnBehalf {
    let principal = principal.to_owned();
    OnBehalf {
        session,
        number: RequestNumber(0),
        settled_below,
        claim,
        principal,
        is_mover: false,
        evidence: None,
    }
}
