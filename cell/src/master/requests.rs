//! What a request means, given the replicated state: an answer, a write for the log, a place in a
//! queue, or a refusal. And what to say of an outcome. No effects here, only decisions.

use std::time::Duration;

use hasp_proto::crossing::{Anchor, CrossOp, Evidence, Need, Root, Vouch};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::{EventMask, HandleId};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Claim, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::limits::{CONTENTS_BYTES_MAX, LISTING_BYTES_MAX, LOCK_DELAY_MAX};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, LockMode, NodeKind, Stat};
use hasp_proto::request::{EndCause, Op, Open, Reply, Request, Use};
use hasp_proto::sequencer::{SequencerBody, SequencerToken};
use hasp_proto::server;
use hasp_proto::stream::Hello;
use hasp_proto::trace::TraceContext;

use super::handles::Handles;
use crate::state::{
    Access, ClientWrite, Create, Guard, Holder, HolderId, Node, Outcome, Refusal, SessionRecord, State, Who,
    Write, needs_a_router,
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
    /// A directory, for the cell of its children.
    Root(Name),
    /// The file of an ACL, for a router.
    Acl(Name),
    /// The partition map, for a router.
    Map,
    /// A part of what moves to another cell.
    Parcel {
        version: u64,
        to: CellName,
        part: u64,
    },
    /// The children of a directory whose node another cell holds, which has these ACL names; none if no child was ever
    /// made here.
    RootChildren {
        name: Name,
        acls: AclNames,
        is_known: bool,
    },
}

/// An `Open` of a node that exists, or need not.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) name: Name,
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

/// A directory whose node another cell holds, as a client that may read it sees it.
struct RootSeen {
    name: Name,
    acls: AclNames,
    /// Children may have been made here.
    is_known: bool,
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
    /// another cell cannot be checked here.
    fn base(self, open: &Open) -> Result<Option<(Name, Instance)>, Refusal> {
        let Some(token) = &open.relative_to else { return Ok(None) };
        let claimed = token.claimed_body().ok_or_else(|| ErrorCode::StaleHandle.because("not a handle"))?;
        let is_above = claimed.kind == NodeKind::Directory && open.name.is_below(&claimed.name);
        if !is_above {
            let detail = format!("{} is not below {}", open.name, claimed.name);
            return Err(ErrorCode::InvalidArgument.because(detail).into());
        }
        if self.state.check_cell(&claimed.name).is_err() {
            return Ok(None);
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
                let may_read = state.check_access(&opening.name, actor.who(), Access::Read).is_ok();
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
            Self::Root(name) => described(state, name).into(),
            Self::Acl(file) => file_of(state, file),
            Self::Map => match state.map_file().cloned() {
                Some(file) => file_of(state, file),
                None => Err(ErrorCode::Unavailable.because("the cell has not begun")).into(),
            },
            Self::Parcel { version, to, part } => {
                let exported = state.export(version, &to, part);
                exported.map(|(data, parts)| Reply::Parcel { data, parts }).into()
            }
            Self::RootChildren { name, acls, is_known } => root_listing(state, name, acls, is_known),
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
    let acls = (*directory.acls).clone();
    listed(name.clone(), children(state, &name), acls)
}

fn children(state: &State, directory: &Name) -> Vec<Child> {
    let child = |(name, node): (&Name, &Node)| Child {
        component: name.component().to_owned(),
        stat: Stat { lock_generation: Generation(0), ..node.stat() },
    };
    state.children(directory).map(child).collect()
}

fn listed(name: Name, children: Vec<Child>, acls: AclNames) -> Answered {
    let acl = Some(acls.read.clone());
    match check_listing(&name, Reply::Children { children, acls }) {
        Ok(reply) => {
            let kinds = ItemKinds::of([ItemKind::Listing]);
            Answered { result: Ok(reply), cachable: Some(Cachable { name, kinds, acl }) }
        }
        Err(error) => Err(error).into(),
    }
}

/// Of a directory of which nothing is known here there is nothing that could be invalidated either.
fn root_listing(state: &State, name: Name, acls: AclNames, is_known: bool) -> Answered {
    if is_known {
        let children = children(state, &name);
        return listed(name, children, acls);
    }
    Ok(Reply::Children { children: Vec::new(), acls }).into()
}

fn described(state: &State, name: Name) -> Result<Reply, Error> {
    let node = state.node(&name).ok_or_else(|| ErrorCode::NotFound.because(name.to_string()))?;
    if node.kind == NodeKind::File {
        return Err(ErrorCode::NotADirectory.because(format!("{name} is a file")));
    }
    let (instance, acls, acl_generation) = (node.instance, (*node.acls).clone(), node.acl_generation);
    Ok(Reply::Root(Root { name, instance, acls, acl_generation, as_of: state.position() }))
}

/// Routers read ACLs and the map whoever may: they are trusted with them (`route-5`).
fn file_of(state: &State, file: Name) -> Answered {
    let (result, kind) = match state.node(&file) {
        Some(node) => {
            (Ok(Reply::Contents { contents: node.contents.clone(), stat: node.stat() }), ItemKind::Data)
        }
        None => (Err(ErrorCode::NotFound.because(file.to_string())), ItemKind::Absence),
    };
    let kinds = ItemKinds::of([kind]);
    Answered { result, cachable: Some(Cachable { name: file, kinds, acl: None }) }
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

/// That a node of that name would be here, of which somebody shows something that another cell may have made.
fn check_is_here(state: &State, name: &Name) -> Result<(), Refusal> {
    match state.check_cell(name) {
        // A name that no cell has is nobody's.
        Err(Refusal::Error(error)) if error.code == ErrorCode::NotFound => Ok(()),
        checked => checked,
    }
}

/// What a sequencer of this cell says.
fn guard_of(state: &State, token: &SequencerToken) -> Result<Guard, Refusal> {
    let Some(body) = state.open_sequencer(token) else {
        // Of a lock that is on its way here, or was never here, nothing can be said.
        if let Ok(claimed) = token.claimed_body() {
            check_is_here(state, &claimed.name)?;
        }
        return Err(ErrorCode::SequencerInvalid.because("not a sequencer of this cell").into());
    };
    let SequencerBody { cell: _, name, instance, mode, lock_generation } = body;
    state.check_cell(&name)?;
    Ok(Guard { name, instance, mode, lock_generation })
}

/// A sequencer of this cell whose acquisition stands.
fn standing(state: &State, token: &SequencerToken) -> Result<Guard, Refusal> {
    let guard = guard_of(state, token)?;
    if state.sequencer_stands(&guard) { Ok(guard) } else { Err(does_not_stand(&guard).into()) }
}

fn does_not_stand(guard: &Guard) -> Error {
    let Guard { name, lock_generation, .. } = guard;
    let detail = format!("acquisition {lock_generation} of {name} does not stand any more");
    ErrorCode::SequencerInvalid.because(detail)
}

/// What to tell the client of an outcome of its request.
pub(super) fn reply_of(
    state: &State,
    actor: &Actor,
    op: &Op,
    outcome: Outcome,
    anchor: Anchor,
) -> Result<Reply, Error> {
    match outcome {
        Outcome::Needs(need) => actor.told_to_bring(need, anchor),
        Outcome::Created { created, stat } => {
            let Op::Open(open) = op else { return Err(other_request(actor)) };
            Ok(opened(state, actor, Opening::of(open), *stat, created))
        }
        Outcome::Written { content_generation, previous_generation } => {
            Ok(Reply::Written { content_generation, previous_generation })
        }
        Outcome::AclSet { acl_generation } => Ok(Reply::AclSet { acl_generation }),
        Outcome::Deleted => Ok(Reply::Deleted),
        Outcome::Acquired { .. } | Outcome::LockHeld | Outcome::LockDelayed { .. } => {
            lock_reply_of(actor, outcome, anchor)
        }
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
        | Outcome::Sealed(_)
        | Outcome::Noted => Err(other_request(actor)),
    }
}

/// What to tell a client of its try for a lock.
pub(super) fn lock_reply_of(actor: &Actor, outcome: Outcome, anchor: Anchor) -> Result<Reply, Error> {
    match outcome {
        Outcome::Needs(need) => actor.told_to_bring(need, anchor),
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
