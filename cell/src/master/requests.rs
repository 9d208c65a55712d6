//! What a request means, given the replicated state: an answer, a write for the log, a place in a
//! queue, or a refusal. And what to say of an outcome. No effects here, only decisions.

use std::time::Duration;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Claim, Instance, RequestNumber, SessionId};
use hasp_proto::limits::{CONTENTS_BYTES_MAX, LISTING_BYTES_MAX, LOCK_DELAY_MAX};
use hasp_proto::name::Name;
use hasp_proto::node::{Child, LockMode, NodeKind};
use hasp_proto::request::{EndCause, Op, Open, Reply, Request, Use};
use hasp_proto::server;
use hasp_proto::stream::Hello;

use crate::state::{ClientWrite, Create, Holder, HolderId, Node, Outcome, SessionRecord, State, Write};

/// For whom a request is done, and by which number it is known for P-ONCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    pub(super) client: SessionId,
    /// The proxy's or router's session, if one speaks for the client.
    via: Option<SessionId>,
    pub(super) claim: Claim,
    pub(super) number: RequestNumber,
    settled_below: RequestNumber,
    principal: String,
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
            },
            None => Self {
                client: speaker,
                via: None,
                claim: holder.claim,
                number: request.number,
                settled_below: request.settled_below,
                principal: holder.principal.clone(),
            },
        })
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
            write,
        }
    }
}

/// What is to be done about a request.
#[derive(Debug)]
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
#[derive(Debug)]
pub(super) enum Read {
    Open(Opening),
    Contents(Name, Instance),
    Stat(Name, Instance),
    Children(Name, Instance),
}

/// An `Open` of a node that exists.
#[derive(Debug)]
pub(super) struct Opening {
    name: Name,
    r#use: Use,
    lock_delay: Duration,
}

/// A request for a lock, with a handle that was verified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LockRequest {
    pub(super) holder: Holder,
    pub(super) mode: LockMode,
    /// `Acquire` waits, `TryAcquire` does not.
    pub(super) waits: bool,
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

/// What to do about `op`. `is_busy`: the client has commands in the log that are not applied yet.
pub(super) fn decide(state: &State, actor: &Actor, op: &Op, is_busy: bool) -> Decision {
    decided(state, actor, op, is_busy).unwrap_or_else(Decision::Refuse)
}

fn decided(state: &State, actor: &Actor, op: &Op, is_busy: bool) -> Result<Decision, Error> {
    Ok(match op {
        Op::Open(open) => decide_open(state, open)?,
        Op::Close(token) => decide_close(state, actor, token, is_busy)?,
        Op::GetContentsAndStat(token) => {
            let body = readable(state, actor, token)?;
            if body.kind == NodeKind::Directory {
                let detail = format!("{} is a directory: it has children, not contents", body.name);
                return Err(ErrorCode::InvalidArgument.because(detail));
            }
            Decision::Read(Read::Contents(body.name, body.instance))
        }
        Op::GetStat(token) => {
            let body = readable(state, actor, token)?;
            Decision::Read(Read::Stat(body.name, body.instance))
        }
        Op::ReadDir(token) => {
            let body = readable(state, actor, token)?;
            if body.kind == NodeKind::File {
                return Err(ErrorCode::NotADirectory.because(format!("{} is a file", body.name)));
            }
            check_children_owner(state, &body.name)?;
            Decision::Read(Read::Children(body.name, body.instance))
        }
        Op::SetContents { handle, contents, if_generation } => {
            let holder = holder(writable(state, actor, handle)?);
            check_length(contents.len())?;
            Decision::Write(Write::SetContents {
                holder,
                contents: contents.clone(),
                if_generation: *if_generation,
            })
        }
        Op::Delete(token) => {
            Decision::Write(Write::Delete { holder: holder(writable(state, actor, token)?) })
        }
        Op::Acquire(token, mode) => Decision::Lock(LockRequest {
            holder: holder(writable(state, actor, token)?),
            mode: *mode,
            waits: true,
        }),
        Op::TryAcquire(token, mode) => Decision::Lock(LockRequest {
            holder: holder(writable(state, actor, token)?),
            mode: *mode,
            waits: false,
        }),
        Op::Release(token) => {
            Decision::Write(Write::Release { holder: holder(writable(state, actor, token)?) })
        }
        Op::EndClient(cause) if actor.via.is_some() => Decision::EndClient(*cause),
        Op::Claim if actor.via.is_some() => Decision::Claim,
        Op::EndClient(_) | Op::Claim => {
            return Err(ErrorCode::InvalidArgument.because("on whose behalf?"));
        }
        Op::Settle(marks) => Decision::Settle(marks.clone()),
    })
}

fn decide_open(state: &State, open: &Open) -> Result<Decision, Error> {
    check_owner(state, &open.name)?;
    if open.lock_delay > LOCK_DELAY_MAX {
        let detail = format!("a lock-delay of {:?}, the bound is {LOCK_DELAY_MAX:?}", open.lock_delay);
        return Err(ErrorCode::InvalidArgument.because(detail));
    }
    let exists = state.node(&open.name).is_some();
    Ok(match &open.create {
        None if !exists => return Err(ErrorCode::NotFound.because(open.name.to_string())),
        Some(create) if create.must || !exists => {
            check_length(create.contents.len())?;
            Decision::Write(Write::Create(Create {
                name: open.name.clone(),
                must: create.must,
                kind: create.kind,
                contents: create.contents.clone(),
                ephemeral: create.ephemeral,
                acls: create.acls.clone(),
            }))
        }
        None | Some(_) => {
            let (name, r#use, lock_delay) = (open.name.clone(), open.r#use, open.lock_delay);
            Decision::Read(Read::Open(Opening { name, r#use, lock_delay }))
        }
    })
}

/// Closing needs the log only if the handle holds the lock, or may be about to.
fn decide_close(state: &State, actor: &Actor, token: &HandleToken, is_busy: bool) -> Result<Decision, Error> {
    let body = verified(state, actor, token)?;
    let id = HolderId { session: actor.client, opened_by: body.opened_by };
    let holds = state.node(&body.name).is_some_and(|node| node.lock.is_held_by(id));
    let may_lock = body.r#use >= Use::WriteAndLock;
    Ok(Decision::Close { needs_log: may_lock && (holds || is_busy), holder: holder(body) })
}

impl Read {
    /// The answer, from the state as it is.
    pub(super) fn answer(self, state: &State, actor: &Actor) -> Result<Reply, Error> {
        match self {
            Self::Open(opening) => {
                let node = state
                    .node(&opening.name)
                    .ok_or_else(|| ErrorCode::NotFound.because(opening.name.to_string()))?;
                Ok(opened(state, actor, opening, node, false))
            }
            Self::Contents(name, instance) => {
                let node = same_instance(state, &name, instance)?;
                Ok(Reply::Contents { contents: node.contents.clone(), stat: node.stat() })
            }
            Self::Stat(name, instance) => Ok(Reply::Stat(same_instance(state, &name, instance)?.stat())),
            Self::Children(name, instance) => {
                same_instance(state, &name, instance)?;
                let child = |(name, node): (&Name, &Node)| Child {
                    component: name.component().to_owned(),
                    stat: node.stat(),
                };
                let children: Vec<_> = state.children(&name).map(child).collect();
                check_listing(&name, Reply::Children(children))
            }
        }
    }
}

/// What to tell the client of an outcome of its request.
pub(super) fn reply_of(state: &State, actor: &Actor, op: &Op, outcome: Outcome) -> Result<Reply, Error> {
    match outcome {
        Outcome::Created { created, instance, .. } => {
            let Op::Open(open) = op else { return Err(other_request(actor)) };
            let node = same_instance(state, &open.name, instance)?;
            let (name, r#use, lock_delay) = (open.name.clone(), open.r#use, open.lock_delay);
            Ok(opened(state, actor, Opening { name, r#use, lock_delay }, node, created))
        }
        Outcome::Written { content_generation, previous_generation } => {
            Ok(Reply::Written { content_generation, previous_generation })
        }
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
        | Outcome::Noted => Err(other_request(actor)),
    }
}

/// What to tell a client of its try for a lock.
pub(super) fn lock_reply_of(outcome: Outcome) -> Result<Reply, Error> {
    match outcome {
        Outcome::Acquired { lock_generation } => Ok(Reply::Acquired { lock_generation }),
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

fn opened(state: &State, actor: &Actor, opening: Opening, node: &Node, created: bool) -> Reply {
    let genesis = state.genesis().expect("a cell that serves has begun");
    let handle = genesis.handle_key.seal(&HandleBody {
        cell: genesis.cell.clone(),
        name: opening.name,
        instance: node.instance,
        kind: node.kind,
        r#use: opening.r#use,
        session: actor.client,
        opened_by: actor.number,
        epoch: state.epoch(),
        lock_delay: opening.lock_delay,
    });
    Reply::Opened { handle, created, stat: node.stat() }
}

/// A handle of this cell and client.
fn verified(state: &State, actor: &Actor, token: &HandleToken) -> Result<HandleBody, Error> {
    let genesis = state.genesis().expect("a cell that serves has begun");
    let body = genesis
        .handle_key
        .open(token)
        .ok_or_else(|| ErrorCode::StaleHandle.because("not a handle of this cell"))?;
    if body.session != actor.client {
        return Err(ErrorCode::StaleHandle.because("a handle of another session"));
    }
    Ok(body)
}

/// A verified handle whose node still exists.
fn readable(state: &State, actor: &Actor, token: &HandleToken) -> Result<HandleBody, Error> {
    let body = verified(state, actor, token)?;
    check_owner(state, &body.name)?;
    same_instance(state, &body.name, body.instance)?;
    Ok(body)
}

fn writable(state: &State, actor: &Actor, token: &HandleToken) -> Result<HandleBody, Error> {
    let body = readable(state, actor, token)?;
    if body.r#use < Use::WriteAndLock {
        return Err(ErrorCode::PermissionDenied.because("the handle was opened for reading"));
    }
    Ok(body)
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
    }
}

/// How a session that was just created enters the session machine.
pub(super) fn holder_of_hello(hello: &Hello) -> server::Holder {
    server::Holder {
        role: hello.role,
        principal: hello.principal.clone(),
        advertise: hello.advertise.clone(),
        claim: hello.claim,
    }
}
