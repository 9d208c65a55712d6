//! What a request means, given the replicated state: an answer, a write for the log, a place in a
//! queue, or a refusal. And what to say of an outcome. No effects here, only decisions.

mod reading;
mod replies;
mod sequencers;

use hasp_proto::crossing::{Anchor, CrossOp, Evidence, Need, Vouch};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::{EventMask, HandleId};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{Claim, Instance, RequestNumber, SessionId};
use hasp_proto::limits::{CONTENTS_BYTES_MAX, LOCK_DELAY_MAX};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};
use hasp_proto::request::{EndCause, Op, Open, Reply, Request, Use};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::server;
use hasp_proto::stream::Hello;
use hasp_proto::trace::TraceContext;

pub(super) use self::reading::{Answered, Cachable, Opening, Read};
pub(super) use self::replies::{lock_reply_of, reply_of};
use self::sequencers::{guard_of, standing};
use super::handles::Handles;
use crate::state::{
    Access, ClientWrite, Create, Guard, Holder, HolderId, Node, Refusal, SessionRecord, State, Who, Write,
    needs_a_router,
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
    /// What other cells say of it.
    pub(super) evidence: Option<Box<Evidence>>,
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
                evidence: client.evidence.clone(),
            },
            None => Self {
                client: speaker,
                via: None,
                claim: holder.claim,
                number: request.number,
                settled_below: request.settled_below,
                principal: holder.principal.clone(),
                guard: None,
                evidence: None,
            },
        })
    }

    /// Under the condition that an acquisition stands.
    ///
    /// # Errors
    /// It is no sequencer of this cell, or it does not stand as it is.
    pub(super) fn guarded(mut self, state: &State, token: Option<&SequencerToken>) -> Result<Self, Refusal> {
        if let Some(token) = token {
            self.guard = Some(standing(state, token)?);
        }
        Ok(self)
    }

    pub(super) fn who(&self) -> Who<'_> {
        Who { principal: &self.principal, evidence: self.evidence.as_deref() }
    }

    /// What to say if the cell lacks something to decide the request: whoever cannot bring it is refused.
    pub(super) fn told_to_bring(&self, need: Need, anchor: Anchor) -> Result<Reply, Error> {
        if self.via.is_some() { Ok(Reply::Needs(need, anchor)) } else { Err(needs_a_router(&need)) }
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
            evidence: self.evidence.clone(),
            write,
        }
    }
}

/// What is to be done about a request.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    Refuse(Error),
    /// Nothing can be decided without this.
    Need(Need),
    /// Does this for the sake of another cell.
    Cross(CrossOp),
    /// What was said of ACLs holds for longer.
    Vouch(Option<Vouch>),
    /// Tells a client of the children of a directory whose node another cell holds.
    Watch {
        name: Name,
        instance: Instance,
        handle: HandleId,
        events: EventMask,
    },
    /// Says what was left behind between cells, once there is something.
    Chores,
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

/// A directory whose node another cell holds, as a client that may read it sees it.
struct RootSeen {
    name: Name,
    acls: AclNames,
    /// Children may have been made here.
    is_known: bool,
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
        self.decided(op).unwrap_or_else(|refusal| match refusal {
            Refusal::Error(error) => Decision::Refuse(error),
            Refusal::Need(need) => Decision::Need(need),
        })
    }

    fn decided(self, op: &Op) -> Result<Decision, Refusal> {
        Ok(match op {
            Op::Open(open) => self.open(open)?,
            Op::Close(token) => self.close(token)?,
            Op::GetContentsAndStat(token) => {
                let body = self.readable(token)?;
                if body.kind == NodeKind::Directory {
                    let detail = format!("{} is a directory: it has children, not contents", body.name);
                    return Err(ErrorCode::InvalidArgument.because(detail).into());
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
                    return Err(ErrorCode::NotADirectory.because(format!("{} is a file", body.name)).into());
                }
                self.state.check_children_cell(&body.name)?;
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
                    return Err(ErrorCode::PermissionDenied.because(detail).into());
                }
                if self.actor.via.is_none() && self.state.has_children_elsewhere(&body.name) {
                    return Err(needs_a_router(&Need::Root(body.name)).into());
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
                return Err(ErrorCode::InvalidArgument.because("on whose behalf?").into());
            }
            Op::Settle(marks) => Decision::Settle(marks.clone()),
            Op::Cross(op) => self.cross(op)?,
        })
    }

    fn cross(self, op: &CrossOp) -> Result<Decision, Refusal> {
        Ok(match op {
            CrossOp::DescribeRoot(name) => {
                self.state.check_cell(name)?;
                Decision::Read(Read::Root(name.clone()))
            }
            CrossOp::ReadAcl(acl) => {
                let file = self.state.acl_file(acl).ok_or_else(|| {
                    ErrorCode::InvalidArgument.because(format!("{acl:?} is no name of an ACL"))
                })?;
                self.state.check_cell(&file)?;
                Decision::Read(Read::Acl(file))
            }
            // It came here before it was asked for, node and children.
            CrossOp::ListRoot { name, instance } if self.state.check_cell(name).is_ok() => {
                self.state.check_children_cell(name)?;
                same_instance(self.state, name, *instance)?;
                self.state.check_access(name, self.actor.who(), Access::Read)?;
                Decision::Read(Read::Children(name.clone(), *instance))
            }
            CrossOp::ListRoot { name, instance } => {
                let RootSeen { name, acls, is_known } = self.readable_root(name, *instance)?;
                Decision::Read(Read::RootChildren { name, acls, is_known })
            }
            CrossOp::WatchRoot { name, instance, opened_by, events } => {
                if !events.is_empty() {
                    self.readable_root(name, *instance)?;
                }
                let handle = HandleId { session: self.actor.client, opened_by: *opened_by };
                Decision::Watch { name: name.clone(), instance: *instance, handle, events: *events }
            }
            CrossOp::ReadMap => Decision::Read(Read::Map),
            CrossOp::Export { version, to, part } => {
                Decision::Read(Read::Parcel { version: *version, to: to.clone(), part: *part })
            }
            CrossOp::Chores => Decision::Chores,
            CrossOp::Vouch(vouch) => Decision::Vouch(*vouch),
            CrossOp::Seal { .. }
            | CrossOp::VoidSeals { .. }
            | CrossOp::Unseal { .. }
            | CrossOp::DropRoot { .. }
            | CrossOp::ReapRoot { .. }
            | CrossOp::Propagated { .. }
            | CrossOp::Adopt(_)
            | CrossOp::Pack { .. }
            | CrossOp::Import { .. }
            | CrossOp::Finish { .. }
            | CrossOp::GiveUp { .. }
            | CrossOp::Announced { .. }
            | CrossOp::UpdateRoot(_) => Decision::Cross(op.clone()),
        })
    }

    /// `route-1`: a directory is listed by the cell that holds its children. Of one of which nothing is known here, or
    /// which is sealed, the cell of its node has to say that it is there; it has no child then.
    fn readable_root(self, name: &Name, instance: Instance) -> Result<RootSeen, Refusal> {
        self.state.check_children_cell(name)?;
        let known = self.state.root(name).filter(|root| root.instance >= instance || root.is_of(instance));
        let described = self.state.described(name, self.actor.evidence.as_deref());
        let (is_of, acls) = match (known, described) {
            (Some(root), _) => (root.is_of(instance), &*root.acls),
            (None, Some(root)) => (root.instance == instance, &root.acls),
            (None, None) => return Err(Need::Root(name.clone()).into()),
        };
        if !is_of {
            return Err(ErrorCode::StaleHandle.because(format!("{name} was deleted")).into());
        }
        self.state.check_acls(acls, name, self.actor.who(), Access::Read)?;
        Ok(RootSeen { name: name.clone(), acls: acls.clone(), is_known: known.is_some() })
    }

    fn open(self, open: &Open) -> Result<Decision, Refusal> {
        self.state.check_cell(&open.name)?;
        if open.lock_delay > LOCK_DELAY_MAX {
            let detail = format!("a lock-delay of {:?}, the bound is {LOCK_DELAY_MAX:?}", open.lock_delay);
            return Err(ErrorCode::InvalidArgument.because(detail).into());
        }
        if self.actor.via.is_none() && !self.handles.has_room(self.actor.client) {
            let detail = "the session has as many handles as it may";
            return Err(ErrorCode::QuotaExceeded.because(detail).into());
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
                self.state.check_access(&open.name, self.actor.who(), access(open.r#use))?;
                Decision::Read(Read::Open(Opening::of(open)))
            }
            (_, None) => Decision::Read(Read::Open(Opening::of(open))),
        })
    }

    /// The directory that the name is relative to, which must be the one that was opened. A handle of
    /// another cell cannot be opened here, but says which directory it means: lies in it only get their teller refused.
    fn base(self, open: &Open) -> Result<Option<(Name, Instance)>, Refusal> {
        let Some(token) = &open.relative_to else { return Ok(None) };
        let claimed = token.claimed_body().ok_or_else(|| ErrorCode::StaleHandle.because("not a handle"))?;
        let is_above = claimed.kind == NodeKind::Directory && open.name.is_below(&claimed.name);
        if !is_above {
            let detail = format!("{} is not below {}", open.name, claimed.name);
            return Err(ErrorCode::InvalidArgument.because(detail).into());
        }
        if self.state.check_cell(&claimed.name).is_err() {
            if self.state.has_later_root(&claimed.name, claimed.instance) {
                let detail = format!("directory {} of {} is gone", claimed.instance, claimed.name);
                return Err(ErrorCode::StaleHandle.because(detail).into());
            }
            return Ok(Some((claimed.name, claimed.instance)));
        }
        let body = self.standing(token)?;
        Ok(Some((body.name, body.instance)))
    }

    /// Closing needs the log only if something is on record of the handle, or may be about to be. It
    /// never fails: a handle that was closed is closed. What it holds may have gone to another cell.
    fn close(self, token: &HandleToken) -> Result<Decision, Refusal> {
        let body = self.verified(token)?;
        self.state.check_cell(&body.name)?;
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

    /// A handle of this cell and client. One that another cell made may be known here only when its node has come: until
    /// then it is the cell that is wrong, not the handle.
    fn verified(self, token: &HandleToken) -> Result<HandleBody, Refusal> {
        let Some(body) = self.state.open_handle(token) else {
            if let Some(claimed) = token.claimed_body() {
                check_is_here(self.state, &claimed.name)?;
            }
            return Err(ErrorCode::StaleHandle.because("not a handle of this cell").into());
        };
        if body.session != self.actor.client {
            return Err(ErrorCode::StaleHandle.because("a handle of another session").into());
        }
        Ok(body)
    }

    /// A verified handle that was not closed and whose node still exists.
    fn standing(self, token: &HandleToken) -> Result<HandleBody, Refusal> {
        let body = self.verified(token)?;
        if self.actor.via.is_none() && !self.handles.is_open(self.actor.client, body.opened_by) {
            let detail = format!("this handle on {} was closed", body.name);
            return Err(ErrorCode::StaleHandle.because(detail).into());
        }
        self.state.check_cell(&body.name)?;
        same_instance(self.state, &body.name, body.instance)?;
        Ok(body)
    }

    fn readable(self, token: &HandleToken) -> Result<HandleBody, Refusal> {
        let body = self.standing(token)?;
        self.state.check_access(&body.name, self.actor.who(), Access::Read)?;
        Ok(body)
    }

    /// That the node's ACL lets the client write is decided when the write is applied.
    fn writable(self, token: &HandleToken) -> Result<HandleBody, Refusal> {
        let body = self.standing(token)?;
        if body.r#use < Use::WriteAndLock {
            return Err(ErrorCode::PermissionDenied.because("the handle was opened for reading").into());
        }
        Ok(body)
    }
}

/// That a node of that name would be here, of which somebody shows something that another cell may have made.
fn check_is_here(state: &State, name: &Name) -> Result<(), Refusal> {
    match state.check_cell(name) {
        // A name that no cell has is nobody's.
        Err(Refusal::Error(error)) if error.code == ErrorCode::NotFound => Ok(()),
        checked => checked,
    }
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
