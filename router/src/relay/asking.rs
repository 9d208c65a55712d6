//! Requests of sessions below, and what becomes of their answers.
//!
//! ```text
//! read:   received -- kept here --> answered       -- the same is under way --> waits for the next
//!             '------ else ----> asked above -- answered --> kept, if the cell lets us --> answered
//! other:  received -- within quota --> asked above --> answered
//! ```

use hasp_proto::client::Ask;
use hasp_proto::crossing::CrossOp;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::HandleId;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, RequestNumber, SessionId};
use hasp_proto::item::ItemKinds;
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, OnBehalf, Op, Reply, Request};
use hasp_proto::stream::Role;
use hasp_proto::time::Time;

use super::caching::Copy;
use super::flights::{Fill, Flight, Purpose};
use super::reads::{Landed, Reader, Target};
use super::{Output, RelayCore, Show};
use crate::upstream::{Ticket, UpstreamCore};

/// What this host keeps of an answer.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) name: Name,
    pub(super) kinds: ItemKinds,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressee {
    pub(super) session: SessionId,
    pub(super) number: RequestNumber,
    /// It would keep what it is told.
    pub(super) caches: bool,
}

impl From<&Reader> for Addressee {
    fn from(Reader { session, request, .. }: &Reader) -> Self {
        Self { session: *session, number: request.number, caches: request.caches }
    }
}

impl RelayCore {
    pub(super) fn request(&mut self, now: Time, session: SessionId, mut request: Request) {
        let Some(holder) = self.server.holder(session) else { return };
        let number = request.number;
        if (request.on_behalf.is_some() || request.op.is_tier_only()) && !holder.role.is_tier() {
            let error = ErrorCode::PermissionDenied.because("only proxies and routers speak for others");
            return self.refuse(session, number, error);
        }
        if let Some(client) = &request.on_behalf {
            let client = client.clone();
            return self.request_of_guest(now, session, client, request);
        }
        match &request.op {
            Op::Settle(_) => self.ask_all(now, Purpose::Part(session, number), &request.op, None),
            Op::EndClient(_) | Op::Claim => {
                self.refuse(session, number, ErrorCode::InvalidArgument.because("on whose behalf?"));
            }
            Op::Cross(_) => self.refuse(session, number, for_cells()),
            _ => {
                self.globalize(&mut request.op);
                match self.quotas.take(session, number, &request.op) {
                    Ok(()) => self.take_up(now, Reader::new(session, request)),
                    Err(error) => self.refuse(session, number, error),
                }
            }
        }
    }

    /// Answers a client's request from what is kept here, or sees that it is asked.
    fn take_up(&mut self, now: Time, reader: Reader) {
        if let Op::Close(handle) = &reader.request.op {
            self.closing(reader.client(), handle);
            if self.is_closed_here(reader.client(), handle) {
                let Addressee { session, number, .. } = Addressee::from(&reader);
                return self.server.answer(session, Answer::plain(number, Ok(Reply::Closed)));
            }
        }
        let target = self.target_of(&reader);
        if self.answer_here(now, &reader, target.as_ref()) {
            return;
        }
        match target {
            Some(target) => {
                self.counts.misses += 1;
                if let Some(reader) = self.reads.join(&target, reader) {
                    self.ask_for(now, target, vec![reader]);
                }
            }
            None => drop(self.ask_alone(now, reader)),
        }
    }

    /// Asks once for all of these, who have come before.
    fn ask_for(&mut self, now: Time, target: Target, readers: Vec<Reader>) {
        let mut readers = readers.into_iter();
        let Some(mut first) = readers.next() else { return };
        let riders: Vec<_> = readers.collect();
        let needs_the_cell = |reader: &Reader| !self.may_be_served(reader, &target.cell);
        if riders.iter().any(needs_the_cell) {
            first.needs_the_cell = true;
        }
        for rider in &riders {
            self.footprints.entry(rider.session).or_default().note_use(&target.cell);
        }
        let ticket = self.ask_alone(now, first);
        self.reads.ask(target, ticket, riders);
    }

    fn ask_alone(&mut self, now: Time, mut reader: Reader) -> Ticket {
        let cell = match self.listing_elsewhere(&reader) {
            // A host above sees to it itself.
            Some((cell, _)) if self.above.is_one() => Some(cell),
            Some((cell, op)) => {
                reader.request.op = Op::Cross(op);
                Some(cell)
            }
            None => self.above.cell_of(&reader.request.op),
        };
        let is_mover = cell.as_ref().is_some_and(|cell| !self.may_be_served(&reader, cell));
        let Reader { session, request, .. } = reader;
        let Request { number, settled_below, on_behalf, guard, caches, trace, op } = request;
        let is_guest = on_behalf.is_some();
        let client = on_behalf.unwrap_or_else(|| {
            let holder = self.server.holder(session);
            let (claim, principal) = holder.map(|it| (it.claim, it.principal.clone())).unwrap_or_default();
            OnBehalf { session, number, settled_below, claim, principal, is_mover, evidence: None }
        });
        let client = OnBehalf { is_mover, ..client };
        let ask = Ask { op: op.clone(), on_behalf: Some(client.clone()), guard, caches, trace };
        let (ticket, cell) = self.ask(now, Purpose::Answer(session, number), ask, cell);
        // The cell of a directory's children keeps whom it tells of them.
        let teller = self.teller_of(&op);
        for cell in cell.iter().chain(&teller) {
            let footprint = self.footprints.entry(session).or_default();
            let gate = self.above.gate(cell);
            if is_guest {
                footprint.note_use(cell);
                self.guests.note(session, &client, (cell, gate), &op);
            } else {
                footprint.note(cell, gate, &op);
            }
        }
        ticket
    }

    /// A proxy asks for its client.
    fn request_of_guest(&mut self, now: Time, via: SessionId, client: OnBehalf, mut request: Request) {
        let number = request.number;
        let speaks_itself = self.server.holder(client.session).is_some_and(|it| it.claim >= client.claim);
        if speaks_itself || !self.guests.hear(via, &client) {
            let error = ErrorCode::SessionMoved.because("the client speaks through another host");
            return self.refuse(via, number, error);
        }
        if request.op.is_tier_only() {
            match request.op {
                Op::Claim => return self.claim_for_guest(now, via, number, &client),
                Op::Cross(_) => return self.refuse(via, number, for_cells()),
                Op::EndClient(_) => {
                    self.guests.remove(client.session);
                    self.subscriptions.forget_client(client.session);
                }
                _ => {}
            }
            return self.ask_all(now, Purpose::Part(via, number), &request.op, Some(&client));
        }
        if let Some(word) = self.guests.given_up(client.session) {
            return self.server.answer(via, Answer { number, ..word.clone() });
        }
        self.globalize(&mut request.op);
        self.take_up(now, Reader::new(via, request));
    }

    /// Asks above for somebody below; a host above will most likely ask that cell. Of what is read, this host keeps what it
    /// may, if it keeps anything.
    fn ask(
        &mut self,
        now: Time,
        purpose: Purpose,
        ask: Ask,
        by_map: Option<CellName>,
    ) -> (Ticket, Option<CellName>) {
        let fill = self.fill_of(&ask);
        let shown = if let Op::Refresh(handle) = &ask.op { Some(handle.clone()) } else { None };
        let ticket = self.upstream.submit(now, Ask { caches: fill.is_some(), ..ask });
        let cell = if self.above.is_one() { by_map } else { self.upstream.cell_of(ticket).cloned() };
        let gate = cell.as_ref().map(|cell| self.above.gate(cell).clone());
        self.flights.add(ticket, Flight { purpose, gate, fill, shown });
        (ticket, cell)
    }

    pub(super) fn ask_all(&mut self, now: Time, purpose: Purpose, op: &Op, on_behalf: Option<&OnBehalf>) {
        for gate in self.above.gates().to_vec() {
            let ask = Ask { on_behalf: on_behalf.cloned(), ..op.clone().into() };
            self.ask_gate(now, gate, purpose, ask);
        }
    }

    /// Asks something that is no read of all that is behind that gate.
    pub(super) fn ask_gate(&mut self, now: Time, gate: CellName, purpose: Purpose, ask: Ask) {
        let ticket = self.upstream.submit_to(now, &gate, ask);
        self.flights.add(ticket, Flight { purpose, gate: Some(gate), fill: None, shown: None });
    }

    pub(super) fn refuse(&mut self, session: SessionId, number: RequestNumber, error: Error) {
        self.server.answer(session, Answer::plain(number, Err(error)));
    }

    pub(super) fn cancel(&mut self, now: Time, session: SessionId, number: RequestNumber) {
        if self.reads.cancel(session, number) {
            self.quotas.answered(session, number, false);
            self.refuse(session, number, ErrorCode::Cancelled.because("by the caller"));
        } else if let Some(ticket) = self.flights.ticket(session, number) {
            self.upstream.cancel(now, ticket);
        }
    }

    pub(super) fn answered(&mut self, now: Time, ticket: Ticket, answer: Answer) {
        let landed = self.reads.land(ticket);
        let Some(Flight { purpose, fill, shown, gate }) = self.flights.land(ticket) else { return };
        if let Some(position) = &answer.position {
            self.see(&position.cell, position);
        }
        let caches = fill.as_ref().is_some_and(|fill| fill.caches);
        let kept = fill.and_then(|fill| self.keep(fill, &answer));
        match purpose {
            Purpose::Note => {}
            Purpose::Claim(session, claim) => {
                let gate = gate.expect("a claim is made at a gate");
                self.claimed(now, session, claim, gate, answer.clone());
            }
            Purpose::LateClaim(session, claim) => self.guest_claimed_since(session, claim, &answer),
            Purpose::Answer(session, number) => {
                if let Some(handle) = shown {
                    self.shown(session, &handle, &answer);
                }
                let to = Addressee { session, number, caches };
                self.deliver(now, to, ticket, kept.as_ref(), answer.clone());
                self.send_departures(now, session);
            }
            Purpose::Part(session, number) => {
                if let Some(said) = self.flights.last_part((session, number), gate.as_ref(), &answer) {
                    self.server.answer(session, said);
                }
            }
        }
        if let Some(landed) = landed {
            self.share(now, ticket, kept.as_ref(), landed, &answer);
        }
    }

    /// Gives an answer that was asked above with this ticket to one who waits for it, with leave to keep
    /// what it may.
    pub(super) fn deliver(
        &mut self,
        now: Time,
        to: Addressee,
        ticket: Ticket,
        kept: Option<&Kept>,
        answer: Answer,
    ) {
        let Addressee { session, number, caches } = to;
        self.quotas.answered(session, number, answer.result.is_ok());
        if let Ok(Reply::Opened { handle, .. }) = &answer.result {
            let teller = self.teller_to(handle, &answer);
            self.subscriptions.subscribe(session, handle, teller.as_ref());
        }
        let mut granted = ItemKinds::NONE;
        if let Some(position) = &answer.position {
            if let Some(footprint) = self.footprints.get_mut(&session) {
                footprint.note_use(&position.cell);
            }
            if self.movers.shown(session, &position.cell, ticket, &answer.result) {
                self.outputs.push_back(Output::Show(Show::CaughtUp(session, position.cell.clone())));
            }
            if let Some(Kept { name, kinds }) = kept.filter(|_| caches) {
                let copy = Copy { name, acl: read_acl(&answer.result), kinds: *kinds };
                granted = self.let_cache(now, &position.cell, session, &copy);
            }
        }
        let is_the_cells_word = answer.position.is_some();
        let result = answer.result.map_err(|error| self.for_holder(session, error, is_the_cells_word));
        self.server.answer(session, Answer { number, caches: granted, result, position: answer.position });
    }

    /// Gives an answer to those who ride on it, and takes up those who have come since.
    fn share(&mut self, now: Time, ticket: Ticket, kept: Option<&Kept>, landed: Landed, answer: &Answer) {
        let Landed { target, riders, waiting } = landed;
        for rider in riders {
            match self.result_for(&target, &rider, &answer.result) {
                Some(result) => {
                    let shared = Answer { result, ..answer.clone() };
                    self.deliver(now, Addressee::from(&rider), ticket, kept, shared);
                }
                None => drop(self.ask_alone(now, rider)),
            }
        }
        let left: Vec<_> =
            waiting.into_iter().filter(|reader| !self.answer_here(now, reader, Some(&target))).collect();
        self.ask_for(now, target, left);
    }

    fn fill_of(&mut self, ask: &Ask) -> Option<Fill> {
        if !self.keeps {
            return None;
        }
        let (name, instance) = match &ask.op {
            Op::Open(open) => (open.name.clone(), None),
            Op::GetContentsAndStat(handle)
            | Op::GetStat(handle)
            | Op::ReadDir(handle)
            | Op::Refresh(handle) => {
                let body = handle.claimed_body()?;
                (body.name, Some(body.instance))
            }
            Op::Cross(CrossOp::ListRoot { name, instance }) => (name.clone(), Some(*instance)),
            _ => return None,
        };
        let principal = ask.on_behalf.as_ref()?.principal.clone();
        Some(Fill { ticket: self.cache.ticket(name, instance), principal, caches: ask.caches })
    }

    fn keep(&mut self, Fill { ticket, principal, .. }: Fill, answer: &Answer) -> Option<Kept> {
        let name = ticket.name().clone();
        let kinds = self.cache.fill(ticket, &principal, answer);
        self.counts.evictions += self.cache.shrink(|_| false).len() as u64;
        (!kinds.is_empty()).then_some(Kept { name, kinds })
    }

    /// A handle was shown to its cell: it hears of events from here on, or does no longer.
    fn shown(&mut self, speaker: SessionId, handle: &HandleToken, answer: &Answer) {
        if answer.result.is_ok() {
            let teller = self.teller_to(handle, answer);
            self.subscriptions.subscribe(speaker, handle, teller.as_ref());
        } else if let Some(body) = handle.claimed_body() {
            self.subscriptions.unsubscribe(HandleId { session: body.session, opened_by: body.opened_by });
        }
    }

    /// The cell that tells of a handle's node: that which gave it out or took it for good. The map of a host behind others
    /// may be older.
    fn teller_to(&self, handle: &HandleToken, answer: &Answer) -> Option<CellName> {
        match &answer.position {
            Some(position) => Some(position.cell.clone()),
            None => self.above.map().owner(&handle.claimed_body()?.name).cloned(),
        }
    }

    /// What a client closes counts no longer, and is told of nothing.
    fn closing(&mut self, client: SessionId, handle: &HandleToken) {
        if let Some(body) = handle.claimed_body().filter(|body| body.session == client) {
            self.quotas.closed(client, body.opened_by);
            self.subscriptions.unsubscribe(HandleId { session: client, opened_by: body.opened_by });
        }
    }

    fn globalize(&self, op: &mut Op) {
        if let Op::Open(open) = op
            && let Some(name) = UpstreamCore::globalized(self.above.map(), &open.name)
        {
            open.name = name;
        }
    }

    /// What an error means to the session that asked. That our own session at a cell is over is not its
    /// end; and a client that is heard here speaks from here, so a cell that does not take its claim will,
    /// once it has seen the end of whoever spoke for it before. In both cases it asks again with the same
    /// number, and what was done is not done twice (P-ONCE). A cell that says itself that the client was given
    /// up has the last word.
    fn for_holder(&self, session: SessionId, error: Error, is_the_cells_word: bool) -> Error {
        let is_client = self.server.holder(session).is_some_and(|holder| holder.role == Role::Client);
        match error.code {
            ErrorCode::SessionExpired if is_the_cells_word => error,
            ErrorCode::SessionExpired => ErrorCode::Unavailable.because(error.detail),
            ErrorCode::SessionMoved if is_client => ErrorCode::Unavailable.because(error.detail),
            _ => error,
        }
    }
}

fn for_cells() -> Error {
    ErrorCode::InvalidArgument.because("only a host between cells asks this, and only cells")
}

/// The ACL that decides who may be shown what an answer shows.
fn read_acl(result: &Result<Reply, Error>) -> Option<&str> {
    match result {
        Ok(Reply::Opened { stat, .. } | Reply::Contents { stat, .. } | Reply::Stat(stat)) => {
            Some(&stat.acls.read)
        }
        Ok(Reply::Children { acls, .. }) => Some(&acls.read),
        Ok(_) | Err(_) => None,
    }
}
