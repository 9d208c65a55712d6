//! Requests: what the master does about each, as `requests` decides.

use hasp_proto::crossing::Anchor;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::HandleId;
use hasp_proto::handle::HandleBody;
use hasp_proto::id::{Claim, RequestNumber, SessionId};
use hasp_proto::item::ItemKinds;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, EndCause, Op, Reply, Request};
use hasp_proto::time::Time;

use super::MasterCore;
use super::proposals::Purpose;
use super::requests::{self, Actor, Answered, Asking, Decision, LockRequest, Read};
use super::subscriptions::Subscription;
use super::waiting::{GivenUp, Waiter};
use crate::state::{AppliedOutcome, ClientWrite, Command, Holder, HolderId, Refusal, Write};

/// Whether an answer that nobody should ask for so often may be kept back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Little,
    None,
}

impl MasterCore {
    pub(super) fn request(&mut self, now: Time, session: SessionId, request: Request) {
        self.look_at(now, session, request, Patience::Little);
    }

    /// Opens of absent files whose time has come: they may be there by now.
    pub(super) fn take_up_postponed(&mut self, now: Time) {
        while let Some(entry) = self.postponed.first_entry()
            && entry.key().0 <= now
        {
            let (session, request) = entry.remove();
            self.look_at(now, session, request, Patience::None);
        }
    }

    fn look_at(&mut self, now: Time, session: SessionId, request: Request, patience: Patience) {
        let Some(holder) = self.server.holder(session) else { return };
        let number = request.number;
        let actor = match Actor::of(session, holder, &request) {
            Ok(actor) => actor,
            Err(error) => return self.answer(session, number, Err(error)),
        };
        if let Some(newer) = self.newer_claim(&actor) {
            let detail = format!("claim {} is outdated, the client speaks under claim {newer}", actor.claim);
            return self.answer(session, number, Err(ErrorCode::SessionMoved.because(detail)));
        }
        if actor.via.is_none() {
            self.handles.hear(session, holder.first_request);
        }
        if let Some(kept) = self.state.answered(actor.client, actor.number) {
            let kept = kept.clone();
            return match actor.via.filter(|_| !self.is_its_speaker(&actor)) {
                Some(via) => self.recall(via, actor, request),
                None => self.answer_outcome(session, &actor, &request, kept),
            };
        }
        let actor = self.weighed(session, actor);
        let guarded = actor.clone().guarded(&self.state, request.guard.as_ref());
        let actor = match guarded {
            Ok(actor) => actor,
            Err(Refusal::Error(error)) => return self.answer(session, number, Err(error)),
            Err(Refusal::Need(need)) => {
                let result = actor.told_to_bring(need, self.anchor());
                return self.answer(session, number, result);
            }
        };
        let is_busy = self.proposals.is_busy(actor.client);
        let asking = Asking { state: &self.state, actor: &actor, handles: &self.handles, is_busy };
        let decision = asking.decide(&request.op);
        if patience == Patience::Little {
            self.load.count(now, &decision);
        }
        match decision {
            Decision::Refuse(error) => self.answer(session, number, Err(error)),
            Decision::Need(need) => {
                let result = actor.told_to_bring(need, self.anchor());
                self.answer(session, number, result);
            }
            Decision::Vouch(vouch) => {
                self.vouches.heard(session, self.anchor(), vouch);
                self.answer(session, number, Ok(Reply::Anchored(self.anchor())));
            }
            Decision::Watch { name, instance, handle, events } => {
                let mask = events.of_children();
                let (claim, principal) = (actor.claim, actor.principal.clone());
                let subscription = Subscription { speaker: session, claim, instance, mask, principal };
                self.subscriptions.subscribe(handle, &name, subscription);
                self.answer(session, number, Ok(Reply::Noted));
            }
            Decision::Chores => {
                self.chores.ask(session, number);
                self.hand_out_chores(now);
            }
            Decision::Cross(op) => {
                let purpose = Purpose::Crossing { speaker: session, number, op: op.clone() };
                self.cross(op, purpose);
            }
            Decision::Read(_) if !self.lease.holds(now) => self.stalled.push_back((session, request)),
            Decision::Read(read) => self.read(session, &actor, request, read, patience),
            Decision::Write(write) => self.propose_write(session, actor, request, write),
            Decision::Lock(waiter) => self.lock(session, actor, request, waiter),
            Decision::Close { holder, needs_log } => {
                self.handles.closed(actor.client, holder.opened_by);
                let handle = HandleId { session: actor.client, opened_by: holder.opened_by };
                self.subscriptions.unsubscribe(handle);
                for waiter in self.queues.drop_handle(&holder, actor.client) {
                    self.answer(waiter.speaker, waiter.number, Err(GivenUp::HandleClosed.error()));
                }
                if self.proposals.is_busy(actor.client) {
                    let is_its = |waiter: &Waiter| waiter.is_at(&holder, actor.client);
                    self.proposals.give_up(GivenUp::HandleClosed, is_its);
                }
                if needs_log {
                    self.propose_write(session, actor, request, Write::CloseHandle { holder });
                } else {
                    self.answer(session, number, Ok(Reply::Closed));
                }
            }
            Decision::EndClient(cause) => self.end_client(session, &actor, number, cause),
            Decision::Settle(marks) => {
                for (client, below) in marks {
                    self.settle(now, client, below);
                }
                self.answer(session, number, Ok(Reply::Noted));
            }
            Decision::Claim => self.claim_client(session, &actor, number),
        }
    }

    /// Tells a router that asks for it what was left behind between cells.
    pub(super) fn hand_out_chores(&mut self, now: Time) {
        while let Some((session, number, chores)) = self.chores.hand_out(now) {
            self.answer(session, number, Ok(Reply::Chores(chores)));
        }
    }

    /// This moment, for a router to count from.
    pub(super) fn anchor(&self) -> Anchor {
        Anchor { epoch: self.state.epoch(), at: self.now }
    }

    /// Takes out of the evidence what its speaker does not vouch for any more (`route-5`).
    fn weighed(&mut self, speaker: SessionId, mut actor: Actor) -> Actor {
        let anchor = self.anchor();
        if let Some(evidence) = &mut actor.evidence {
            self.vouches.heard(speaker, anchor, evidence.vouch.take());
            if !self.vouches.stand(speaker, anchor.at) {
                evidence.memberships.clear();
            }
        }
        actor
    }

    /// The claim under which others speak for the client by now. Writes are checked again in the log; but what is held in
    /// memory alone, subscriptions above all, must not go back to an older speaker (`proxy-4`).
    fn newer_claim(&self, actor: &Actor) -> Option<Claim> {
        self.state.client(actor.client).map(|record| record.claim).filter(|claim| *claim > actor.claim)
    }

    /// Whether the log knows that the client speaks so.
    fn is_its_speaker(&self, actor: &Actor) -> bool {
        self.state
            .client(actor.client)
            .is_some_and(|record| (record.via, record.claim) == (actor.via, actor.claim))
    }

    /// What was done before may be undone by whoever spoke for the client then, until the log knows that another does.
    fn recall(&mut self, via: SessionId, actor: Actor, request: Request) {
        let command = Command::ClaimClient { session: actor.client, via, claim: actor.claim };
        let request = Box::new(request);
        self.proposals.add(command, Purpose::Recall { speaker: via, actor, request });
    }

    fn read(&mut self, session: SessionId, actor: &Actor, request: Request, read: Read, patience: Patience) {
        let Answered { result, cachable } = read.answer(&self.state, actor);
        let number = request.number;
        if let (Op::Open(open), Err(error)) = (&request.op, &result)
            && error.code == ErrorCode::NotFound
            && !request.caches
            && patience == Patience::Little
        {
            let delay = self.absences.delay(self.now, actor.client, &open.name);
            if !delay.is_zero() {
                self.postponed_ever += 1;
                self.postponed.insert((self.now + delay, self.postponed_ever), (session, request));
                return;
            }
        }
        if let (Op::Refresh(token), Ok(_)) = (&request.op, &result)
            && let Some(body) = token.claimed_body()
        {
            self.know_handle(session, actor, body);
        }
        let caches = match cachable {
            Some(cachable) if request.caches => self.let_cache(session, &cachable),
            _ => ItemKinds::NONE,
        };
        self.note_opened(session, actor, &result);
        let position = Some(self.state.position());
        self.server.answer(session, Answer { number, position, caches, result });
    }

    /// What comes of an `Open` is a handle to be counted, and maybe to be told of events.
    fn note_opened(&mut self, session: SessionId, actor: &Actor, result: &Result<Reply, Error>) {
        if let Ok(Reply::Opened { handle, .. }) = result
            && let Some(body) = handle.claimed_body()
        {
            self.know_handle(session, actor, body);
        }
    }

    fn know_handle(&mut self, speaker: SessionId, actor: &Actor, body: HandleBody) {
        if actor.via.is_none() {
            self.handles.opened(actor.client, body.opened_by);
        }
        let handle = HandleId { session: actor.client, opened_by: body.opened_by };
        let (claim, principal) = (actor.claim, actor.principal.clone());
        let (instance, mask) = (body.instance, body.events);
        let subscription = Subscription { speaker, claim, instance, mask, principal };
        self.subscriptions.subscribe(handle, &body.name, subscription);
    }

    /// Answers a write with what came of it and the position at which it did.
    pub(super) fn answer_outcome(
        &mut self,
        session: SessionId,
        actor: &Actor,
        request: &Request,
        AppliedOutcome { position, outcome }: AppliedOutcome,
    ) {
        let result = requests::reply_of(&self.state, actor, &request.op, outcome, self.anchor());
        self.note_opened(session, actor, &result);
        let opened = match &result {
            Ok(Reply::Opened { stat, .. }) => Some(stat.instance),
            _ => None,
        };
        self.answer_at(position, session, request.number, result);
        if let (Op::Open(open), Some(instance)) = (&request.op, opened)
            && self.state.check_cell(&open.name).is_ok()
        {
            let handle = HandleId { session: actor.client, opened_by: actor.number };
            self.tell_if_gone(handle, &open.name, instance);
        }
    }

    fn propose_write(&mut self, speaker: SessionId, actor: Actor, request: Request, write: Write) {
        let command = Command::ClientWrite(actor.write(write));
        let client = actor.client;
        let gives_back = match &command {
            Command::ClientWrite(ClientWrite {
                write: Write::Release { holder } | Write::CloseHandle { holder },
                ..
            }) => Some(holder.clone()),
            _ => None,
        };
        let request = Box::new(request);
        self.change(command, Purpose::Request { speaker, actor, request });
        if let Some(Holder { name, opened_by, .. }) = gives_back
            && let Some(node) = self.state.node(&name)
        {
            let holder = HolderId { session: client, opened_by };
            for waiter in self.queues.behind_release(&name, node, holder) {
                self.propose_lock(waiter);
            }
        }
    }

    pub(super) fn propose_lock(&mut self, waiter: Waiter) {
        let command = Command::ClientWrite(waiter.actor.write(waiter.lock.write()));
        self.change(command, Purpose::Lock(Box::new(waiter)));
    }

    fn lock(&mut self, speaker: SessionId, actor: Actor, request: Request, lock: LockRequest) {
        let is_queued = self.queues.has_waiters(&lock.holder.name);
        let is_held = lock.is_held(&self.state, actor.client);
        let lock = LockRequest { trace: request.trace, ..lock };
        let waiter = self.queues.arrive(speaker, actor, request.number, lock);
        if !is_queued || is_held {
            self.propose_lock(waiter);
        } else if !waiter.lock.waits {
            self.tell_conflict(&waiter);
            self.answer(speaker, waiter.number, Err(ErrorCode::LockHeld.because("others wait for the lock")));
        } else if !self.queues.has_room(waiter.actor.client) {
            self.answer(speaker, waiter.number, Err(too_many_waits()));
        } else {
            self.tell_conflict(&waiter);
            self.queues.push(waiter);
        }
    }

    fn end_client(&mut self, session: SessionId, actor: &Actor, number: RequestNumber, cause: EndCause) {
        let (client, claim) = (actor.client, actor.claim);
        let command = Command::EndClient { session: client, via: session, claim, cause };
        self.proposals.add(command, Purpose::Word { speaker: session, number, client, claim });
    }

    /// The log says so: nobody waits for it or is told of anything any more. Before that it may be the word of one
    /// who speaks for the client no longer.
    /// Who has spoken for it with a later claim has only read since: what was ended is not what that one has.
    pub(super) fn client_ended(&mut self, client: SessionId, claim: Claim) {
        self.subscriptions.forget_client(client, claim);
        for waiter in self.queues.drop_client(client, claim) {
            let error = ErrorCode::Cancelled.because("the client is gone");
            self.answer(waiter.speaker, waiter.number, Err(error));
        }
    }

    /// Also of a client of which nothing is known: what an earlier speaker still says for it must be refused.
    fn claim_client(&mut self, session: SessionId, actor: &Actor, number: RequestNumber) {
        let (client, claim) = (actor.client, actor.claim);
        let command = Command::ClaimClient { session: client, via: session, claim };
        self.proposals.add(command, Purpose::Word { speaker: session, number, client, claim });
    }

    pub(super) fn cancel(&mut self, session: SessionId, number: RequestNumber) {
        if self.chores.cancel(session, number) || self.queues.drop_request(session, number) {
            self.answer(session, number, Err(GivenUp::ByCaller.error()));
        }
        self.proposals.give_up(GivenUp::ByCaller, |waiter| waiter.asks(session, number));
    }

    pub(super) fn answer(&mut self, session: SessionId, number: RequestNumber, result: Result<Reply, Error>) {
        self.answer_at(self.state.position(), session, number, result);
    }

    pub(super) fn answer_at(
        &mut self,
        position: Position,
        session: SessionId,
        number: RequestNumber,
        result: Result<Reply, Error>,
    ) {
        let position = Some(position);
        self.server.answer(session, Answer { position, ..Answer::plain(number, result) });
    }
}

pub(super) fn too_many_waits() -> Error {
    ErrorCode::QuotaExceeded.because("the session waits for as many locks as it may")
}
