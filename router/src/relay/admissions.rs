//! Sessions that come from elsewhere. They are promised nothing before the cells know through whom they speak from
//! here on: else whoever spoke for them before could end what they were just told is safe (`proxy-4`, P-LEASE).
//!
//! ```text
//! Hello -- claimed at every cell -- all have noted it --------------------> admitted
//!             |                 '-- the own session at one is over -------> admitted, told that the cell is lost,
//!             |                                                             and claimed there when it is back
//!             |-- a cell knows it elsewhere ------------------------------> comes again, with a newer claim
//!             |-- a cell knows its end -----------------------------------> refused for good --.
//!             '-- its connection is gone, and no other came for a while ----------------------+--> ended as failed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_proto::client::{Ask, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};
use hasp_proto::request::{Answer, OnBehalf, Op, Reply};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Hello, Role};
use hasp_proto::time::Time;

use super::departures::speak_for;
use super::flights::Purpose;
use super::stopping::stopping;
use super::{Phase, RelayCore};
use crate::upstream::Held;

/// For how long after its start a cell that has not welcomed this host is waited for.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A session that waits to be let in.
#[derive(Clone, Debug)]
struct Admission {
    connection: ConnectionId,
    claim: Claim,
    principal: String,
    /// Cells that have not noted the claim.
    waits_for: BTreeSet<CellName>,
    /// Cells that cannot: there is no session with them.
    lost: BTreeSet<CellName>,
    /// The same of the host above.
    lost_above: BTreeSet<CellName>,
}

/// All that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Admissions {
    waiting: BTreeMap<SessionId, Admission>,
    /// Claims under way. One at a time for each session and cell, however often it comes back.
    asked: BTreeSet<(SessionId, CellName)>,
}

impl RelayCore {
    /// Lets a session in: one that begins at once, one that comes from elsewhere when it was claimed.
    pub(super) fn admit(&mut self, now: Time, connection: ConnectionId, session: SessionId, hello: &Hello) {
        if self.phase >= Phase::Stopping {
            return self.server.refuse(connection, stopping());
        }
        let is_from_elsewhere = hello.known_since.is_some() || self.server.holder(session).is_some();
        if hello.role != Role::Client {
            // Its clients are claimed one by one.
            self.server.admit(now, connection);
            self.adopt_guest(session);
            if is_from_elsewhere {
                self.movers.came(session, self.upstream.last_ticket());
            }
        } else if is_from_elsewhere {
            self.claim(now, connection, session, hello);
        } else {
            self.server.admit(now, connection);
        }
    }

    fn claim(&mut self, now: Time, connection: ConnectionId, session: SessionId, hello: &Hello) {
        let (waits_for, lost): (BTreeSet<_>, BTreeSet<_>) =
            self.above.gates().iter().cloned().partition(|gate| self.counts_on(now, gate));
        if waits_for.is_empty() {
            let error = ErrorCode::Unavailable.because("no cell can be asked at the moment");
            return self.server.refuse(connection, error);
        }
        let principal = hello.principal.clone();
        // If its connection is lost before it is let in, this host is the only one that can still end it.
        let on_behalf = speak_for(session, hello.claim, &principal, RequestNumber(0));
        let behind: &[CellName] = if self.above.is_one() { self.above.cells() } else { &[] };
        self.guests.note_claim(session, &on_behalf, &waits_for, behind);
        self.guests.expect_back(now, session);
        let claim = hello.claim;
        let admission = Admission {
            connection,
            claim,
            principal,
            waits_for: waits_for.clone(),
            lost,
            lost_above: BTreeSet::new(),
        };
        self.admissions.waiting.insert(session, admission);
        for cell in waits_for {
            self.ask_claim(now, session, cell);
        }
    }

    /// A proxy claims its client. Cells with which there is no session hear of it when they are back, before anything else
    /// that is asked there for the client, and the proxy hears which these are.
    pub(super) fn claim_for_guest(
        &mut self,
        now: Time,
        via: SessionId,
        number: RequestNumber,
        client: &OnBehalf,
    ) {
        let (gates, lost): (Vec<_>, Vec<_>) =
            self.above.gates().iter().cloned().partition(|gate| self.counts_on(now, gate));
        // If it is lost together with its proxy before it asks anything, this host is the only one that can still end it.
        self.guests.note_claim(via, client, self.above.gates(), self.above.cells());
        let claim = || Ask { on_behalf: Some(client.clone()), ..Op::Claim.into() };
        for gate in &lost {
            self.ask_gate(now, gate.clone(), Purpose::LateClaim(client.session, client.claim), claim());
        }
        if gates.is_empty() {
            let error = ErrorCode::Unavailable.because("no cell can be asked at the moment");
            return self.refuse(via, number, error);
        }
        // It may have something in any of them.
        let footprint = self.footprints.entry(via).or_default();
        self.above.cells().iter().for_each(|cell| footprint.note_use(cell));
        self.flights.claims(via, number, lost);
        for gate in gates {
            self.ask_gate(now, gate, Purpose::Part(via, number), claim());
        }
    }

    /// Whether a session stands at the cell, or will in a moment.
    fn counts_on(&self, now: Time, cell: &CellName) -> bool {
        let is_there = |held: &Held<'_>| held.cell.is_none_or(|at| at == cell);
        let stands =
            |held: Held<'_>| is_there(&held) && matches!(held.status, Status::Safe | Status::Jeopardy);
        let stands = self.upstream.sessions().any(stands);
        stands || (!self.welcomed.contains(cell) && now < self.started + START_PATIENCE)
    }

    fn ask_claim(&mut self, now: Time, session: SessionId, cell: CellName) {
        let Some(admission) = self.admissions.waiting.get(&session) else { return };
        if !self.admissions.asked.insert((session, cell.clone())) {
            return; // The newer claim follows when that one has landed.
        }
        let claim = admission.claim;
        let on_behalf = speak_for(session, claim, &admission.principal, RequestNumber(0));
        let ask = Ask { on_behalf: Some(on_behalf), ..Op::Claim.into() };
        self.ask_gate(now, cell, Purpose::Claim(session, claim), ask);
    }

    /// A cell has answered a claim.
    pub(super) fn claimed(
        &mut self,
        now: Time,
        session: SessionId,
        claim: Claim,
        cell: CellName,
        answer: Answer,
    ) {
        self.admissions.asked.remove(&(session, cell.clone()));
        let Some(admission) = self.admissions.waiting.get_mut(&session) else {
            return self.claimed_since(session, claim, answer);
        };
        if !admission.waits_for.contains(&cell) {
            return;
        }
        if claim < admission.claim {
            return self.ask_claim(now, session, cell);
        }
        let is_the_cells_word = answer.position.is_some();
        match answer.result {
            Ok(reply) => {
                admission.waits_for.remove(&cell);
                if let Reply::ClaimedWithout(cells) = reply {
                    // The host above has them hear of it.
                    admission.lost_above.extend(cells);
                }
            }
            Err(error) if is_the_cells_word && error.code == ErrorCode::SessionExpired => {
                return self.turn_away(session, error);
            }
            Err(error) if error.code == ErrorCode::SessionExpired => {
                admission.waits_for.remove(&cell);
                admission.lost.insert(cell);
            }
            // Its next claim may be taken. That the cell knows it elsewhere is no proof that it is: this claim may have gone
            // there before, through a host or a session whose end the cell has not seen (`proxy-4`).
            Err(error) => {
                let connection = admission.connection;
                self.admissions.waiting.remove(&session);
                return self.server.refuse(connection, ErrorCode::Unavailable.because(error.detail));
            }
        }
        if self.admissions.waiting[&session].waits_for.is_empty() {
            self.let_in(now, session);
        }
    }

    fn let_in(&mut self, now: Time, session: SessionId) {
        let Some(Admission { connection, claim, principal, lost, lost_above, .. }) =
            self.admissions.waiting.remove(&session)
        else {
            return;
        };
        if self.phase >= Phase::Stopping {
            return self.server.refuse(connection, stopping());
        }
        let is_known = self.server.holder(session).is_some();
        self.server.admit_without(now, connection, lost.union(&lost_above).cloned().collect());
        if self.server.holder(session).is_none_or(|holder| holder.claim != claim) {
            return; // Gone again; it is waited for.
        }
        self.counts.taken_over += u64::from(!is_known);
        self.adopt_guest(session);
        self.movers.came(session, self.upstream.last_ticket());
        // Whoever spoke for it there before does so until the cell knows better, and what it asks comes after this.
        // What it has left there before is this host's to end.
        for cell in lost {
            self.footprints.entry(session).or_default().note_all(&cell);
            let on_behalf = speak_for(session, claim, &principal, RequestNumber(0));
            let ask = Ask { on_behalf: Some(on_behalf), ..Op::Claim.into() };
            self.ask_gate(now, cell, Purpose::Claim(session, claim), ask);
        }
    }

    /// A cell that was lost when the session was let in has heard of it. If it has ended the client meanwhile, what the
    /// client did there since then is void, though it may have come again. If it knows the client elsewhere, and that did not
    /// come again, it has to, with a newer claim.
    fn claimed_since(&mut self, session: SessionId, claim: Claim, answer: Answer) {
        let (Some(holder), Err(error)) = (self.server.holder(session), answer.result) else { return };
        let is_over = error.code == ErrorCode::SessionExpired && holder.claim >= claim;
        let is_elsewhere = error.code == ErrorCode::SessionMoved && holder.claim == claim;
        if answer.position.is_none() {
            return;
        }
        if is_over {
            self.counts.expelled += 1;
            self.server.expel(session, error);
        } else if is_elsewhere {
            self.server.turn_out(session, ErrorCode::Unavailable.because(error.detail));
        }
    }

    /// The same of a guest. There is no way to tell it at once; its proxy hears with its next answer.
    ///
    /// That the client has moved on is nothing to keep: the cell says so itself to whoever has an outdated claim, and may
    /// take this one once it has seen the end of the speaker before.
    pub(super) fn guest_claimed_since(&mut self, session: SessionId, claim: Claim, answer: &Answer) {
        let is_over = answer.result.as_ref().is_err_and(|error| error.code == ErrorCode::SessionExpired);
        if is_over && answer.position.is_some() {
            self.guests.give_up(session, claim, answer.clone());
        }
    }

    /// What was left at the cells while others spoke for the session is its own from here on.
    fn adopt_guest(&mut self, session: SessionId) {
        if let Some(guest) = self.guests.remove(session) {
            self.footprints.entry(session).or_default().join(&guest.footprint);
        }
    }

    /// One cell has ended the client: it is not let in. What it has left elsewhere goes when nothing that it was promised
    /// before can still stand: like that of one who does not come.
    fn turn_away(&mut self, session: SessionId, error: Error) {
        if let Some(admission) = self.admissions.waiting.remove(&session) {
            self.counts.expelled += 1;
            self.server.refuse(admission.connection, error);
        }
    }
}
