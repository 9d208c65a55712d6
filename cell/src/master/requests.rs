//! What a request means, given the replicated state: an answer, a write for the log, a place in a
//! queue, or a refusal. And what to say of an outcome. No effects here, only decisions.

use std::time::Duration;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Claim, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::limits::{CONTENTS_BYTES_MAX, LISTING_BYTES_MAX, LOCK_DELAY_MAX};
use hasp_proto::name::Name;
use hasp_proto::node::{Child, LockMode, NodeKind, Stat};
use hasp_proto::request::{EndCause, Op, Open, Reply, Request, Use};
use hasp_proto::sequencer::{SequencerBody, SequencerToken};
use hasp_proto::server;
use hasp_proto::stream::Hello;
use hasp_proto::trace::TraceContext;

use super::handles::Handles;
use crate::state::{
    Access, ClientWrite, Create, Guard, Holder, HolderId, Node, Outcome, SessionRecord, State, Write,
};

/// For whom a request is done, and by which number it is known for P-ONCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    pub(super) client: SessionId,
    /// The proxy's or router's session, if one speaks for the client.
    pub(super) via: Option<SessionId>,
    pub(super) claim: Claim,
    pub(super) number: RequestNumber,
    settled_below: RequestNumber,
    pub(super) principal: String,
    /// An acquisition that must stand.
    guard: Option<Guard>,
}

impl Actor {
    /// Who acts when `speaker` asks this.
    ///
    /// # Errors
    /// Somebody who is not trusted to asks for others, or uses what only proxies and routers may (`proxy-6`).
    pub(super) fn of(speaker: SessionId, holder: &server::Holder, request: &Request) -> Result<Self, Error> {
        if (request.op.is_tier_only() || request.on_behalf.is_some()) && !holder.role.is_tier() {
            return Err(ErrorCode::PermissionDenied.because("only proxies and routers speak for others"));
        }
        Ok(match &request.on_behalf {
            Some(client) => Self {
                client: client.session,
                via: Some(speaker),
                claim: client.claim,
                number: client.number,
                settled_below: client.settled_below,
                principal: client.principal.clone(),
                guard: None,
            },
            None => Self {
                client: speaker,
                via: None,
                claim: holder.claim,
                number: request.number,
                settled_below: request.settled_below,
                principal: holder.principal.clone(),
                guard: None,
            },
        })
    }

    /// Under the condition that an acquisition stands.
    ///
    /// # Errors
    /// It is no sequencer of this cell, or it does not stand as it is.
    pub(super) fn guarded(mut self, state: &State, token: Option<&SequencerToken>) -> Result<Self, Error> {
        if let Some(token) = token {
            self.guard = Some(standing(state, token)?);
        }
        Ok(self)
    }

    /// The command that does `write` for the client.
    pub(super) fn write(&self, write: Write) -> ClientWrite {
        ClientWrite {
            session: self.client,
            via: self.via,
            claim: self.claim,
            number: self.number,
            settled_below: self.settled_below,
            principal: self.principal.clone(),
            guard: self.guard.clone(),
            write,
        }
    }
}

/// What is to be done about a request.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    Refuse(Error),
    /// Answer from the state, under the master lease.
    Read(Read),
    Write(Write),
    Lock(LockRequest),
    Close {
        holder: Holder,
        needs_log: bool,
    },
    EndClient(EndCause),
    Settle(Vec<(SessionId, RequestNumber)>),
    Claim,
}

/// Something that the state answers.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Open(Opening),
    Contents(Name, Instance),
    Stat(Name, Instance),
    Children(Name, Instance),
    Sequencer(Name, HolderId),
    SequencerStands(Guard),
    Refresh(HandleBody),
}

/// An `Open` of a node that exists, or need not.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    name: Name,
    r#use: Use,
    lock_delay: Duration,
    events: EventMask,
}

impl Opening {
    fn of(open: &Open) -> Self {
        let Open { name, r#use, lock_delay, events, .. } = open;
        Self { name: name.clone(), r#use: *r#use, lock_delay: *lock_delay, events: *events }
    }
}

/// What came of a read, and what may be cached of it.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) result: Result<Reply, Error>,
    pub(super) cachable: Option<Cachable>,
}

/// What an answer shows of a node.
#[derive(Clone, Debug)]
pub(super) struct Cachable {
    pub(super) name: Name,
    pub(super) kinds: ItemKinds,
    /// The ACL that let it be read.
    pub(super) acl: Option<String>,
}

impl From<Result<Reply, Error>> for Answered {
    fn from(result: Result<Reply, Error>) -> Self {
        Self { result, cachable: None }
    }
}

/// A request for a lock, with a handle that was verified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LockRequest {
    pub(super) holder: Holder,
    pub(super) mode: LockMode,
    /// `Acquire` waits, `TryAcquire` does not.
    pub(super) waits: bool,
    /// Of the request, for those who follow it.
    pub(super) trace: Option<TraceContext>,
}

impl LockRequest {
    pub(super) fn write(&self) -> Write {
        Write::Acquire { holder: self.holder.clone(), mode: self.mode }
    }

    /// Whether the handle has the lock already, in whatever mode.
    pub(super) fn is_held(&self, state: &State, client: SessionId) -> bool {
        let id = HolderId { session: client, opened_by: self.holder.opened_by };
        state.node(&self.holder.name).is_some_and(|node| node.lock.is_held_by(id))
    }
}

/// A request and what it is judged by.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) state: &'a State,
    pub(super) actor: &'a Actor,
    pub(super) handles: &'a Handles,
    /// The client has commands in the log, or on their way there, that are not applied yet.
    pub(super) is_busy: bool,
}

impl Asking<'_> {
    /// What to do about `op`.
    pub(super) fn decide(self, op: &Op) -> Decision {
        self.decided(op).unwrap_or_else(Decision::Refuse)
    }

    fn decided(self, op: &Op) -> Result<Decision, Error> {
        Ok(match op {
            Op::Open(open) => self.open(open)?,
            Op::Close(token) => self.close(token)?,
            Op::GetContentsAndStat(token) => {
                let body = self.readable(token)?;
                if body.kind == NodeKind::Directory {
                    let detail = format!("{} is a directory: it has children, not contents", body.name);
                    return Err(ErrorCode::InvalidArgument.because(detail));
                }
                Decision::Read(Read::Contents(body.name, body.instance))
            }
            Op::GetStat(token) => {
                let body = self.readable(token)?;
                Decision::Read(Read::Stat(body.name, body.instance))
            }
            Op::ReadDir(token) => {
                let body = self.readable(token)?;
                if body.kind == NodeKind::File {
                    return Err(ErrorCode::NotADirectory.because(format!("{} is a file", body.name)));
                }
                check_children_owner(self.state, &body.name)?;
                Decision::Read(Read::Children(body.name, body.instance))
            }
            Op::SetContents { handle, contents, if_generation } => {
                let holder = holder(self.writable(handle)?);
                check_length(contents.len())?;
                Decision::Write(Write::SetContents {
                    holder,
                    contents: contents.clone(),
                    if_generation: *if_generation,
                })
            }
            Op::SetAcl { handle, acls, if_generation } => {
                let body = self.standing(handle)?;
                if body.r#use < Use::ChangeAcl {
                    let detail = "the handle was not opened for changing ACLs";
                    return Err(ErrorCode::PermissionDenied.because(detail));
                }
                Decision::Write(Write::SetAcl {
                    holder: holder(body),
                    acls: acls.clone(),
                    if_generation: *if_generation,
                })
            }
            Op::Delete(token) => Decision::Write(Write::Delete { holder: holder(self.writable(token)?) }),
            Op::Acquire(token, mode) => {
                let holder = holder(self.writable(token)?);
                Decision::Lock(LockRequest { holder, mode: *mode, waits: true, trace: None })
            }
            Op::TryAcquire(token, mode) => {
                let holder = holder(self.writable(token)?);
                Decision::Lock(LockRequest { holder, mode: *mode, waits: false, trace: None })
            }
            Op::Release(token) => Decision::Write(Write::Release { holder: holder(self.writable(token)?) }),
            Op::GetSequencer(token) => {
                let body = self.standing(token)?;
                let id = self.id(&body);
                Decision::Read(Read::Sequencer(body.name, id))
            }
            Op::CheckSequencer(token) => Decision::Read(Read::SequencerStands(guard_of(self.state, token)?)),
            Op::Refresh(token) => Decision::Read(Read::Refresh(self.readable(token)?)),
            Op::EndClient(cause) if self.actor.via.is_some() => Decision::EndClient(*cause),
            Op::Claim if self.actor.via.is_some() => Decision::Claim,
            Op::EndClient(_) | Op::Claim => {
                return Err(ErrorCode::InvalidArgument.because("on whose behalf?"));
            }
            Op::Settle(marks) => Decision::Settle(marks.clone()),
        })
    }

    fn open(self, open: &Open) -> Result<Decision, Error> {
        check_owner(self.state, &open.name)?;
        if open.lock_delay > LOCK_DELAY_MAX {
            let detail = format!("a lock-delay of {:?}, the bound is {LOCK_DELAY_MAX:?}", open.lock_delay);
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        if self.actor.via.is_none() && !self.handles.has_room(self.actor.client) {
            return Err(ErrorCode::QuotaExceeded.because("the session has as many handles as it may"));
        }
        let relative_to = self.base(open)?;
        let node = self.state.node(&open.name);
        Ok(match (&open.create, node) {
            (Some(create), _) if create.must || node.is_none() => {
                check_length(create.contents.len())?;
                Decision::Write(Write::Create(Create {
                    name: open.name.clone(),
                    must: create.must,
                    kind: create.kind,
                    contents: create.contents.clone(),
                    ephemeral: create.ephemeral,
                    acls: create.acls.clone(),
                    r#use: open.r#use,
                    relative_to,
                }))
            }
            (_, Some(node)) if node.ephemeral => {
                let holder = Holder {
                    name: open.name.clone(),
                    instance: node.instance,
                    opened_by: self.actor.number,
                    lock_delay: open.lock_delay,
                };
                Decision::Write(Write::OpenEphemeral { holder, r#use: open.r#use })
            }
            (_, Some(_)) => {
                self.state.check_access(&open.name, &self.actor.principal, access(open.r#use))?;
                Decision::Read(Read::Open(Opening::of(open)))
            }
            (_, None) => Decision::Read(Read::Open(Opening::of(open))),
        })
    }

    /// The directory that the name is relative to, which must be the one that was opened. A handle of
    /// another cell cannot be checked here.
    fn base(self, open: &Open) -> Result<Option<(Name, Instance)>, Error> {
        let Some(token) = &open.relative_to else { return Ok(None) };
        let claimed = token.claimed_body().ok_or_else(|| ErrorCode::StaleHandle.because("not a handle"))?;
        let is_above = claimed.kind == NodeKind::Directory && open.name.is_below(&claimed.name);
        if !is_above {
            let detail = format!("{} is not below {}", open.name, claimed.name);
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        let genesis = self.state.genesis().expect("a cell that serves has begun");
        if claimed.cell != genesis.cell {
            return Ok(None);
        }
        let body = self.standing(token)?;
        Ok(Some((body.name, body.instance)))
    }

    /// Closing needs the log only if something is on record of the handle, or may be about to be. It
    /// never fails: a handle that was closed is closed.
    fn close(self, token: &HandleToken) -> Result<Decision, Error> {
        let body = self.verified(token)?;
        let id = self.id(&body);
        let holds = self.state.node(&body.name).is_some_and(|node| node.lock.is_held_by(id));
        let keeps = body.ephemeral && self.state.keeps_open(&body.name, id);
        let may_be_on_record = body.ephemeral || body.r#use >= Use::WriteAndLock;
        let needs_log = holds || keeps || (may_be_on_record && self.is_busy);
        Ok(Decision::Close { needs_log, holder: holder(body) })
    }

    fn id(self, body: &HandleBody) -> HolderId {
        HolderId { session: self.actor.client, opened_by: body.opened_by }
    }

    /// A handle of this cell and client.
    fn verified(self, token: &HandleToken) -> Result<HandleBody, Error> {
        let genesis = self.state.genesis().expect("a cell that serves has begun");
        let body = genesis
            .handle_key
            .open(token)
            .ok_or_else(|| ErrorCode::StaleHandle.because("not a handle of this cell"))?;
        if body.session != self.actor.client {
            return Err(ErrorCode::StaleHandle.because("a handle of another session"));
        }
        Ok(body)
    }

    /// A verified handle that was not closed and whose node still exists.
    fn standing(self, token: &HandleToken) -> Result<HandleBody, Error> {
        let body = self.verified(token)?;
        if self.actor.via.is_none() && !self.handles.is_open(self.actor.client, body.opened_by) {
            return Err(ErrorCode::StaleHandle.because(format!("this handle on {} was closed", body.name)));
        }
        check_owner(self.state, &body.name)?;
        same_instance(self.state, &body.name, body.instance)?;
        Ok(body)
    }

    fn readable(self, token: &HandleToken) -> Result<HandleBody, Error> {
        let body = self.standing(token)?;
        self.state.check_access(&body.name, &self.actor.principal, Access::Read)?;
        Ok(body)
    }

    /// That the node's ACL lets the client write is decided when the write is applied.
    fn writable(self, token: &HandleToken) -> Result<HandleBody, Error> {
        let body = self.standing(token)?;
        if body.r#use < Use::WriteAndLock {
            return Err(ErrorCode::PermissionDenied.because("the handle was opened for reading"));
        }
        Ok(body)
    }
}

impl Read {
    /// The answer, from the state as it is.
    pub(super) fn answer(self, state: &State, actor: &Actor) -> Answered {
        match self {
            Self::Open(opening) => {
                let Some(node) = state.node(&opening.name) else {
                    let error = ErrorCode::NotFound.because(opening.name.to_string());
                    let kinds = ItemKinds::of([ItemKind::Absence]);
                    let cachable = Some(Cachable { name: opening.name, kinds, acl: None });
                    return Answered { result: Err(error), cachable };
                };
                let may_read = state.check_access(&opening.name, &actor.principal, Access::Read).is_ok();
                let cachable = may_read.then(|| of_node(&opening.name, node));
                Answered { result: Ok(opened(state, actor, opening, node.stat(), false)), cachable }
            }
            Self::Contents(name, instance) => read_node(state, &name, instance, |node| {
                Ok(Reply::Contents { contents: node.contents.clone(), stat: node.stat() })
            }),
            Self::Stat(name, instance) => {
                read_node(state, &name, instance, |node| Ok(Reply::Stat(node.stat())))
            }
            Self::Refresh(body) => {
                read_node(state, &body.name, body.instance, |node| Ok(Reply::Stat(node.stat())))
            }
            Self::Children(name, instance) => listing(state, name, instance),
            Self::Sequencer(name, holder) => sequencer(state, &name, holder).into(),
            Self::SequencerStands(guard) => if state.sequencer_stands(&guard) {
                Ok(Reply::SequencerStands)
            } else {
                Err(does_not_stand(&guard))
            }
            .into(),
        }
    }
}

fn of_node(name: &Name, node: &Node) -> Cachable {
    let kinds = ItemKinds::of([ItemKind::Data, ItemKind::Lock]);
    Cachable { name: name.clone(), kinds, acl: Some(node.acls.read.clone()) }
}

fn read_node(
    state: &State,
    name: &Name,
    instance: Instance,
    read: impl FnOnce(&Node) -> Result<Reply, Error>,
) -> Answered {
    match same_instance(state, name, instance) {
        Ok(node) => Answered { result: read(node), cachable: Some(of_node(name, node)) },
        Err(error) => Err(error).into(),
    }
}

fn listing(state: &State, name: Name, instance: Instance) -> Answered {
    let directory = match same_instance(state, &name, instance) {
        Ok(node) => node,
        Err(error) => return Err(error).into(),
    };
    let child = |(name, node): (&Name, &Node)| Child {
        component: name.component().to_owned(),
        stat: Stat { lock_generation: Generation(0), ..node.stat() },
    };
    let children: Vec<_> = state.children(&name).map(child).collect();
    let reply = Reply::Children { children, acls: (*directory.acls).clone() };
    match check_listing(&name, reply) {
        Ok(reply) => {
            let kinds = ItemKinds::of([ItemKind::Listing]);
            let acl = Some(directory.acls.read.clone());
            Answered { result: Ok(reply), cachable: Some(Cachable { name, kinds, acl }) }
        }
        Err(error) => Err(error).into(),
    }
}

fn sequencer(state: &State, name: &Name, holder: HolderId) -> Result<Reply, Error> {
    let not_held = || ErrorCode::LockNotHeld.because("this handle does not hold the lock");
    let node = state.node(name).filter(|node| node.lock.is_held_by(holder)).ok_or_else(not_held)?;
    let genesis = state.genesis().expect("a cell that serves has begun");
    Ok(Reply::Sequencer(genesis.handle_key.seal_sequencer(&SequencerBody {
        cell: genesis.cell.clone(),
        name: name.clone(),
        instance: node.instance,
        mode: node.lock.mode().ok_or_else(not_held)?,
        lock_generation: node.lock_generation,
    })))
}

/// What a sequencer of this cell says.
fn guard_of(state: &State, token: &SequencerToken) -> Result<Guard, Error> {
    let genesis = state.genesis().expect("a cell that serves has begun");
    let body = genesis
        .handle_key
        .open_sequencer(token)
        .ok_or_else(|| ErrorCode::SequencerInvalid.because("not a sequencer of this cell"))?;
    let SequencerBody { cell: _, name, instance, mode, lock_generation } = body;
    check_owner(state, &name)?;
    Ok(Guard { name, instance, mode, lock_generation })
}

/// A sequencer of this cell whose acquisition stands.
fn standing(state: &State, token: &SequencerToken) -> Result<Guard, Error> {
    let guard = guard_of(state, token)?;
    if state.sequencer_stands(&guard) { Ok(guard) } else { Err(does_not_stand(&guard)) }
}

fn does_not_stand(guard: &Guard) -> Error {
    let Guard { name, lock_generation, .. } = guard;
    let detail = format!("acquisition {lock_generation} of {name} does not stand any more");
    ErrorCode::SequencerInvalid.because(detail)
}

/// What to tell the client of an outcome of its request.
pub(super) fn reply_of(state: &State, actor: &Actor, op: &Op, outcome: Outcome) -> Result<Reply, Error> {
    match outcome {
        Outcome::Created { created, stat } => {
            let Op::Open(open) = op else { return Err(other_request(actor)) };
            Ok(opened(state, actor, Opening::of(open), *stat, created))
        }
        Outcome::Written { content_generation, previous_generation } => {
            Ok(Reply::Written { content_generation, previous_generation })
        }
        Outcome::AclSet { acl_generation } => Ok(Reply::AclSet { acl_generation }),
        Outcome::Deleted => Ok(Reply::Deleted),
        Outcome::Acquired { .. } | Outcome::LockHeld | Outcome::LockDelayed { .. } => lock_reply_of(outcome),
        Outcome::Released => Ok(Reply::Released),
        Outcome::Closed => Ok(Reply::Closed),
        Outcome::Failed(error) => Err(error),
        Outcome::Rejected(_) => Err(ErrorCode::Unavailable.because("the master changed")),
        Outcome::EpochBegun(_)
        | Outcome::SessionCreated { .. }
        | Outcome::SessionEnded { .. }
        | Outcome::ClientEnded { .. }
        | Outcome::Reaped { .. }
        | Outcome::ChecksumTaken { .. }
        | Outcome::Diverged { .. }
        | Outcome::Noted => Err(other_request(actor)),
    }
}

/// What to tell a client of its try for a lock.
pub(super) fn lock_reply_of(outcome: Outcome) -> Result<Reply, Error> {
    match outcome {
        Outcome::Acquired { lock_generation, .. } => Ok(Reply::Acquired { lock_generation }),
        Outcome::LockHeld => Err(ErrorCode::LockHeld.because("somebody else holds the lock")),
        Outcome::LockDelayed { longest } => {
            Err(ErrorCode::LockDelayed { retry_after: longest }.because("the lock's last holder failed"))
        }
        Outcome::Failed(error) => Err(error),
        other => Err(ErrorCode::InvalidArgument
            .because(format!("the request's number was used for another: {other:?}"))),
    }
}

/// A number must not be used for two requests; a client that does gets no answer to the second.
fn other_request(actor: &Actor) -> Error {
    ErrorCode::InvalidArgument
        .because(format!("request number {} was used for another request", actor.number))
}

fn opened(state: &State, actor: &Actor, opening: Opening, stat: Stat, created: bool) -> Reply {
    let genesis = state.genesis().expect("a cell that serves has begun");
    let handle = genesis.handle_key.seal(&HandleBody {
        cell: genesis.cell.clone(),
        name: opening.name,
        instance: stat.instance,
        kind: stat.kind,
        r#use: opening.r#use,
        session: actor.client,
        opened_by: actor.number,
        epoch: state.epoch(),
        lock_delay: opening.lock_delay,
        events: opening.events,
        ephemeral: stat.ephemeral,
    });
    Reply::Opened { handle, created, stat }
}

/// What a handle of this use needs to be opened.
const fn access(r#use: Use) -> Access {
    match r#use {
        Use::Read => Access::Read,
        Use::WriteAndLock => Access::Write,
        Use::ChangeAcl => Access::ChangeAcl,
    }
}

fn same_instance<'a>(state: &'a State, name: &Name, instance: Instance) -> Result<&'a Node, Error> {
    state
        .node(name)
        .filter(|node| node.instance == instance)
        .ok_or_else(|| ErrorCode::StaleHandle.because(format!("{name} was deleted")))
}

fn check_owner(state: &State, name: &Name) -> Result<(), Error> {
    let map = &state.genesis().expect("a cell that serves has begun").map;
    check_is_ours(state, name, map.owner(name))
}

fn check_children_owner(state: &State, name: &Name) -> Result<(), Error> {
    let map = &state.genesis().expect("a cell that serves has begun").map;
    check_is_ours(state, name, map.children_owner(name))
}

fn check_is_ours(state: &State, name: &Name, owner: Option<&CellName>) -> Result<(), Error> {
    let genesis = state.genesis().expect("a cell that serves has begun");
    match owner {
        Some(cell) if *cell == genesis.cell => Ok(()),
        Some(cell) => {
            let detail = format!("{name} belongs to cell {cell}, this is cell {}", genesis.cell);
            Err(ErrorCode::WrongCell { map_version: genesis.map.version }.because(detail))
        }
        None => {
            let detail = format!("{name}: this cell serves the namespace {}", genesis.map.namespace);
            Err(ErrorCode::NotFound.because(detail))
        }
    }
}

/// A listing must fit into one message.
fn check_listing(name: &Name, listing: Reply) -> Result<Reply, Error> {
    let bytes = listing.weight();
    if bytes > LISTING_BYTES_MAX {
        let detail =
            format!("the listing of {name} has about {bytes} bytes, the limit is {LISTING_BYTES_MAX}");
        return Err(ErrorCode::TooLarge.because(detail));
    }
    Ok(listing)
}

fn check_length(length: usize) -> Result<(), Error> {
    if length > CONTENTS_BYTES_MAX {
        let detail = format!("contents of {length} bytes, the limit is {CONTENTS_BYTES_MAX}");
        return Err(ErrorCode::TooLarge.because(detail));
    }
    Ok(())
}

fn holder(body: HandleBody) -> Holder {
    Holder {
        name: body.name,
        instance: body.instance,
        opened_by: body.opened_by,
        lock_delay: body.lock_delay,
    }
}

/// How a recorded session enters the session machine.
pub(super) fn holder_of(state: &State, id: SessionId, record: &SessionRecord) -> server::Holder {
    server::Holder {
        role: record.role,
        principal: record.principal.clone(),
        advertise: record.advertise.clone(),
        claim: state.client(id).map_or(Claim(0), |client| client.claim),
        first_request: RequestNumber(0),
    }
}

/// How a session that was just created enters the session machine.
pub(super) fn holder_of_hello(hello: &Hello) -> server::Holder {
    server::Holder {
        role: hello.role,
        principal: hello.principal.clone(),
        advertise: hello.advertise.clone(),
        claim: hello.claim,
        first_request: hello.next_request,
    }
}
