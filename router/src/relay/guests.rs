//! Clients of proxies that hold their session here: to the cells, this host speaks for them, so it
//! has to do for them what a cell does for the clients of a proxy that is gone (`proxy-3`).
//!
//! It does the same for its own clients that were claimed and then did not come to hold a session here.
//!
//! ```text
//! claimed, wrote --> known -- its proxy's session ends --> orphaned -- claim window over --> ended as failed
//!                      ^------ asks through any proxy -------'
//! ```

use std::collections::BTreeMap;

use hasp_proto::deadlines::Deadlines;
use hasp_proto::id::{CellName, Claim, SessionId};
use hasp_proto::limits::CLAIM_WINDOW;
use hasp_proto::request::{Answer, OnBehalf, Op};
use hasp_proto::time::Time;

use super::footprints::Footprint;

/// A client that may have left something at a cell.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) session: SessionId,
    pub(super) claim: Claim,
    pub(super) principal: String,
    pub(super) footprint: Footprint,
    /// Session of the proxy it was last heard through.
    via: SessionId,
    /// What a cell said that has given it up, and heard of its claim only after it was let in.
    given_up: Option<Answer>,
}

/// Guests that wrote something or were claimed, and were not heard to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests {
    all: BTreeMap<SessionId, Guest>,
    orphans: Deadlines<SessionId>,
}

impl Guests {
    /// The proxy with session `via` speaks for a client; `false` if another does by now (`proxy-4`).
    pub(super) fn hear(&mut self, via: SessionId, client: &OnBehalf) -> bool {
        let Some(guest) = self.all.get_mut(&client.session) else { return true };
        let is_current =
            if guest.via == via { client.claim >= guest.claim } else { client.claim > guest.claim };
        if is_current {
            (guest.via, guest.claim) = (via, client.claim);
            guest.principal.clone_from(&client.principal);
            self.orphans.set(client.session, None);
        }
        is_current
    }

    /// A request of a client went to that cell.
    pub(super) fn note(
        &mut self,
        via: SessionId,
        client: &OnBehalf,
        (cell, gate): (&CellName, &CellName),
        op: &Op,
    ) {
        let mut footprint = Footprint::default();
        footprint.note(cell, gate, op);
        if let Some(guest) = self.all.get_mut(&client.session) {
            guest.footprint.note(cell, gate, op);
        } else if !footprint.wrote().is_empty() {
            let OnBehalf { session, claim, principal, .. } = client.clone();
            self.all.insert(session, Guest { session, claim, principal, footprint, via, given_up: None });
        }
    }

    /// The session `via` has the client claimed behind all these gates. Through whom it spoke there before does not count
    /// any more, so what it has left there is for this host to end.
    pub(super) fn note_claim<'a>(
        &mut self,
        via: SessionId,
        client: &OnBehalf,
        gates: impl IntoIterator<Item = &'a CellName>,
        cells: &[CellName],
    ) {
        let OnBehalf { session, claim, principal, .. } = client.clone();
        let mut footprint = self.all.remove(&session).map(|guest| guest.footprint).unwrap_or_default();
        gates.into_iter().for_each(|gate| footprint.note_all(gate));
        cells.iter().for_each(|cell| footprint.note_use(cell));
        self.all.insert(session, Guest { session, claim, principal, footprint, via, given_up: None });
    }

    /// A client that was claimed is about to hold a session here: if it does not come to that it is ended like an orphan.
    pub(super) fn expect_back(&mut self, now: Time, client: SessionId) {
        self.orphans.set(client, Some(now + CLAIM_WINDOW));
    }

    /// A cell that heard of the claim late has given the client up: until it is claimed anew, whatever it asks is answered
    /// with that.
    pub(super) fn give_up(&mut self, session: SessionId, claim: Claim, word: Answer) {
        if let Some(guest) = self.all.get_mut(&session).filter(|guest| guest.claim >= claim) {
            guest.given_up = Some(word);
        }
    }

    /// The word of the cell that has given the client up, if one has.
    pub(super) fn given_up(&self, session: SessionId) -> Option<&Answer> {
        self.all.get(&session)?.given_up.as_ref()
    }

    /// The client was ended by its proxy, or holds a session here itself by now.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Guest> {
        self.orphans.set(session, None);
        self.all.remove(&session)
    }

    /// The proxy's session is over: its clients have the claim window to be heard again.
    pub(super) fn orphan(&mut self, now: Time, via: SessionId) {
        for guest in self.all.values().filter(|guest| guest.via == via) {
            self.orphans.set(guest.session, Some(now + CLAIM_WINDOW));
        }
    }

    /// What was left in one cell may be in the other now. Those that left something, as they are spoken for.
    pub(super) fn moved(&mut self, from: &CellName, to: &CellName) -> Vec<(SessionId, Claim, String)> {
        let left = self.all.values_mut().filter(|guest| guest.footprint.wrote().contains(from));
        let moved = left.map(|guest| {
            guest.footprint.note_all(to);
            (guest.session, guest.claim, guest.principal.clone())
        });
        moved.collect()
    }

    /// The next orphan whose claim window is over.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Guest> {
        let session = self.orphans.pop_due(now)?;
        self.all.remove(&session)
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.orphans.first()
    }
}
