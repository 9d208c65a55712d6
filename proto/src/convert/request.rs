//! Requests and answers.

use std::time::Duration;

use bytes::Bytes;

use super::crossing::{needs_from_wire, needs_to_wire};
use super::{Malformed, malformed};
use crate::crossing::SealTicket;
use crate::error::{Error, ErrorCode};
use crate::event::EventMask;
use crate::handle::HandleToken;
use crate::id::{CellName, Claim, Generation, RequestNumber, SessionId};
use crate::item::ItemKinds;
use crate::limits::{LOCK_DELAY, PRINCIPAL_BYTES_MAX};
use crate::name::Name;
use crate::request::{Answer, Create, EndCause, OnBehalf, Op, Open, Reply, Request, Use};
use crate::sequencer::SequencerToken;
use crate::time::micros;
use crate::trace::TraceContext;
use crate::wire::{tier, v1};

impl From<Use> for v1::open::Use {
    fn from(r#use: Use) -> Self {
        match r#use {
            Use::Read => Self::Read,
            Use::WriteAndLock => Self::WriteAndLock,
            Use::ChangeAcl => Self::ChangeAcl,
        }
    }
}

impl TryFrom<v1::open::Use> for Use {
    type Error = Malformed;

    fn try_from(r#use: v1::open::Use) -> Result<Self, Malformed> {
        match r#use {
            v1::open::Use::Read => Ok(Self::Read),
            v1::open::Use::WriteAndLock => Ok(Self::WriteAndLock),
            v1::open::Use::ChangeAcl => Ok(Self::ChangeAcl),
            v1::open::Use::Unspecified => Err(malformed("use of a handle")),
        }
    }
}

impl From<EndCause> for tier::v1::end_client::Cause {
    fn from(cause: EndCause) -> Self {
        match cause {
            EndCause::Closed => Self::Closed,
            EndCause::Failed => Self::Failed,
        }
    }
}

impl TryFrom<tier::v1::end_client::Cause> for EndCause {
    type Error = Malformed;

    fn try_from(cause: tier::v1::end_client::Cause) -> Result<Self, Malformed> {
        match cause {
            tier::v1::end_client::Cause::Closed => Ok(Self::Closed),
            tier::v1::end_client::Cause::Failed => Ok(Self::Failed),
            tier::v1::end_client::Cause::Unspecified => Err(malformed("cause of a client's end")),
        }
    }
}

fn session(bytes: &Bytes) -> Result<SessionId, Malformed> {
    SessionId::from_bytes(bytes).ok_or(malformed("session id"))
}

impl From<OnBehalf> for tier::v1::OnBehalf {
    fn from(on_behalf: OnBehalf) -> Self {
        Self {
            session: on_behalf.session.to_bytes(),
            number: on_behalf.number.0,
            settled_below: on_behalf.settled_below.0,
            claim: on_behalf.claim.0,
            principal: on_behalf.principal,
            mover: on_behalf.is_mover,
            evidence: on_behalf.evidence.map(|evidence| (*evidence).into()),
        }
    }
}

impl TryFrom<tier::v1::OnBehalf> for OnBehalf {
    type Error = Malformed;

    fn try_from(on_behalf: tier::v1::OnBehalf) -> Result<Self, Malformed> {
        if on_behalf.principal.len() > PRINCIPAL_BYTES_MAX {
            return Err(malformed("principal of a client"));
        }
        Ok(Self {
            session: session(&on_behalf.session)?,
            number: RequestNumber(on_behalf.number),
            settled_below: RequestNumber(on_behalf.settled_below),
            claim: Claim(on_behalf.claim),
            principal: on_behalf.principal,
            is_mover: on_behalf.mover,
            evidence: on_behalf.evidence.map(|evidence| evidence.try_into().map(Box::new)).transpose()?,
        })
    }
}

impl From<Open> for v1::Open {
    fn from(open: Open) -> Self {
        Self {
            name: open.name.to_string(),
            r#use: v1::open::Use::from(open.r#use).into(),
            create: open.create.map(|create| v1::open::Create {
                must: create.must,
                kind: v1::NodeKind::from(create.kind).into(),
                contents: create.contents,
                ephemeral: create.ephemeral,
                acls: create.acls.map(Into::into),
            }),
            lock_delay_us: Some(micros(open.lock_delay)),
            relative_to: open.relative_to.map(|handle| handle.as_bytes().clone()).unwrap_or_default(),
            events: open.events.bits(),
        }
    }
}

/// A name that does not parse is the application's mistake, not a broken peer: it must get an
/// answer. So it is told apart from [`Malformed`].
#[derive(Debug)]
pub enum BadRequest {
    /// The peer does not speak the protocol.
    Malformed(Malformed),
    /// The request can be answered: with this error.
    Refuse(RequestNumber, Error),
}

impl From<Malformed> for BadRequest {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

fn open_from_wire(number: RequestNumber, open: v1::Open) -> Result<Open, BadRequest> {
    let r#use = open.r#use().try_into()?;
    let name = Name::parse(&open.name).map_err(|error| {
        let detail = format!("{:?}: {error}", truncated(&open.name));
        BadRequest::Refuse(number, ErrorCode::InvalidName.because(detail))
    })?;
    let create = match open.create {
        Some(create) => Some(Create {
            must: create.must,
            kind: create.kind().try_into()?,
            contents: create.contents,
            ephemeral: create.ephemeral,
            acls: create.acls.map(Into::into),
        }),
        None => None,
    };
    Ok(Open {
        name,
        r#use,
        create,
        lock_delay: open.lock_delay_us.map_or(LOCK_DELAY, Duration::from_micros),
        relative_to: (!open.relative_to.is_empty()).then(|| HandleToken::new(open.relative_to)),
        events: EventMask::from_bits(open.events),
    })
}

/// The first characters of something a peer sent, for an error text.
fn truncated(text: &str) -> String {
    text.chars().take(80).collect()
}

impl From<Request> for v1::Request {
    fn from(request: Request) -> Self {
        use v1::request::Op as Wire;
        let bytes = |handle: HandleToken| handle.as_bytes().clone();
        let op = match request.op {
            Op::Open(open) => Wire::Open(open.into()),
            Op::Close(handle) => Wire::Close(v1::Close { handle: bytes(handle) }),
            Op::GetContentsAndStat(handle) => {
                Wire::GetContentsAndStat(v1::GetContentsAndStat { handle: bytes(handle) })
            }
            Op::GetStat(handle) => Wire::GetStat(v1::GetStat { handle: bytes(handle) }),
            Op::ReadDir(handle) => Wire::ReadDir(v1::ReadDir { handle: bytes(handle) }),
            Op::SetContents { handle, contents, if_generation } => Wire::SetContents(v1::SetContents {
                handle: bytes(handle),
                contents,
                if_generation: if_generation.map(|generation| generation.0),
            }),
            Op::Delete(handle) => Wire::Delete(v1::Delete { handle: bytes(handle) }),
            Op::Acquire(handle, mode) => {
                Wire::Acquire(v1::Acquire { handle: bytes(handle), mode: v1::LockMode::from(mode).into() })
            }
            Op::TryAcquire(handle, mode) => Wire::TryAcquire(v1::TryAcquire {
                handle: bytes(handle),
                mode: v1::LockMode::from(mode).into(),
            }),
            Op::Release(handle) => Wire::Release(v1::Release { handle: bytes(handle) }),
            Op::SetAcl { handle, acls, if_generation } => Wire::SetAcl(v1::SetAcl {
                handle: bytes(handle),
                acls: Some(acls.into()),
                if_generation: if_generation.map(|generation| generation.0),
            }),
            Op::GetSequencer(handle) => Wire::GetSequencer(v1::GetSequencer { handle: bytes(handle) }),
            Op::CheckSequencer(sequencer) => {
                Wire::CheckSequencer(v1::CheckSequencer { sequencer: sequencer.as_bytes().clone() })
            }
            Op::Refresh(handle) => Wire::Refresh(v1::Refresh { handle: bytes(handle) }),
            Op::EndClient(cause) => Wire::EndClient(tier::v1::EndClient {
                cause: tier::v1::end_client::Cause::from(cause).into(),
            }),
            Op::Claim => Wire::Claim(tier::v1::Claim {}),
            Op::Cross(op) => Wire::Cross(op.into()),
            Op::Settle(clients) => Wire::Settle(tier::v1::Settle {
                clients: clients
                    .into_iter()
                    .map(|(session, below)| tier::v1::Settled { session: session.to_bytes(), below: below.0 })
                    .collect(),
            }),
        };
        Self {
            number: request.number.0,
            settled_below: request.settled_below.0,
            on_behalf: request.on_behalf.map(Into::into),
            guard: request.guard.map(|guard| guard.as_bytes().clone()).unwrap_or_default(),
            caches: request.caches,
            trace: request.trace.map(|trace| trace.to_bytes()).unwrap_or_default(),
            op: Some(op),
        }
    }
}

impl TryFrom<v1::Request> for Request {
    type Error = BadRequest;

    fn try_from(request: v1::Request) -> Result<Self, BadRequest> {
        use v1::request::Op as Wire;
        let number = RequestNumber(request.number);
        if number.0 == 0 {
            return Err(malformed("request number 0").into());
        }
        let handle = HandleToken::new;
        let op = match request.op.ok_or(malformed("request without operation"))? {
            Wire::Open(open) => Op::Open(open_from_wire(number, open)?),
            Wire::Close(close) => Op::Close(handle(close.handle)),
            Wire::GetContentsAndStat(get) => Op::GetContentsAndStat(handle(get.handle)),
            Wire::GetStat(get) => Op::GetStat(handle(get.handle)),
            Wire::ReadDir(read) => Op::ReadDir(handle(read.handle)),
            Wire::SetContents(set) => Op::SetContents {
                handle: handle(set.handle),
                contents: set.contents,
                if_generation: set.if_generation.map(Generation),
            },
            Wire::Delete(delete) => Op::Delete(handle(delete.handle)),
            Wire::Acquire(acquire) => {
                let mode = acquire.mode().try_into()?;
                Op::Acquire(handle(acquire.handle), mode)
            }
            Wire::TryAcquire(acquire) => {
                let mode = acquire.mode().try_into()?;
                Op::TryAcquire(handle(acquire.handle), mode)
            }
            Wire::Release(release) => Op::Release(handle(release.handle)),
            Wire::SetAcl(set) => Op::SetAcl {
                handle: handle(set.handle),
                acls: set.acls.ok_or(malformed("ACL names to set"))?.into(),
                if_generation: set.if_generation.map(Generation),
            },
            Wire::GetSequencer(get) => Op::GetSequencer(handle(get.handle)),
            Wire::CheckSequencer(check) => Op::CheckSequencer(SequencerToken::new(check.sequencer)),
            Wire::Refresh(refresh) => Op::Refresh(handle(refresh.handle)),
            Wire::EndClient(end) => Op::EndClient(end.cause().try_into()?),
            Wire::Claim(_) => Op::Claim,
            Wire::Cross(cross) => Op::Cross(cross.try_into()?),
            Wire::Settle(settle) => Op::Settle(
                settle
                    .clients
                    .iter()
                    .map(|settled| Ok((session(&settled.session)?, RequestNumber(settled.below))))
                    .collect::<Result<_, Malformed>>()?,
            ),
        };
        Ok(Self {
            number,
            settled_below: RequestNumber(request.settled_below),
            on_behalf: request.on_behalf.map(TryInto::try_into).transpose()?,
            guard: (!request.guard.is_empty()).then(|| SequencerToken::new(request.guard)),
            caches: request.caches,
            trace: TraceContext::from_bytes(&request.trace),
            op,
        })
    }
}

impl From<Answer> for v1::Answer {
    fn from(answer: Answer) -> Self {
        use v1::answer::Result as Wire;
        let result = match answer.result {
            Err(error) => Wire::Error(error.into()),
            Ok(Reply::Opened { handle, created, stat }) => Wire::Opened(v1::Opened {
                handle: handle.as_bytes().clone(),
                created,
                stat: Some(stat.into()),
            }),
            Ok(Reply::Closed) => Wire::Closed(v1::Closed {}),
            Ok(Reply::Contents { contents, stat }) => {
                Wire::Contents(v1::Contents { contents, stat: Some(stat.into()) })
            }
            Ok(Reply::Stat(stat)) => Wire::Stat(stat.into()),
            Ok(Reply::Children { children, acls }) => Wire::Children(v1::Children {
                children: children.into_iter().map(Into::into).collect(),
                acls: Some(acls.into()),
            }),
            Ok(Reply::Written { content_generation, previous_generation }) => Wire::Written(v1::Written {
                content_generation: content_generation.0,
                previous_generation: previous_generation.0,
            }),
            Ok(Reply::Deleted) => Wire::Deleted(v1::Deleted {}),
            Ok(Reply::Acquired { lock_generation }) => {
                Wire::Acquired(v1::Acquired { lock_generation: lock_generation.0 })
            }
            Ok(Reply::Released) => Wire::Released(v1::Released {}),
            Ok(Reply::Noted) => Wire::Noted(v1::Noted { without_cells: Vec::new() }),
            Ok(Reply::ClaimedWithout(cells)) => {
                Wire::Noted(v1::Noted { without_cells: cells.iter().map(CellName::to_string).collect() })
            }
            Ok(Reply::AclSet { acl_generation }) => {
                Wire::AclSet(v1::AclSet { acl_generation: acl_generation.0 })
            }
            Ok(Reply::Sequencer(sequencer)) => {
                Wire::Sequencer(v1::Sequencer { sequencer: sequencer.as_bytes().clone() })
            }
            Ok(Reply::SequencerStands) => Wire::SequencerStands(v1::SequencerStands {}),
            Ok(Reply::Needs(need, anchor)) => Wire::Needs(needs_to_wire(need, anchor)),
            Ok(Reply::Root(root)) => Wire::Root(root.into()),
            Ok(Reply::Sealed(ticket)) => Wire::Sealed(tier::v1::Sealed { ticket: ticket.0 }),
            Ok(Reply::Anchored(anchor)) => Wire::Anchored(anchor.into()),
            Ok(Reply::Parcel { data, parts }) => Wire::Parcel(tier::v1::Parcel { data, parts }),
            Ok(Reply::Chores(chores)) => {
                Wire::Chores(tier::v1::Chores { chores: chores.into_iter().map(Into::into).collect() })
            }
        };
        Self {
            number: answer.number.0,
            position: answer.position.map(Into::into),
            caches: answer.caches.bits(),
            result: Some(result),
        }
    }
}

impl TryFrom<v1::Answer> for Answer {
    type Error = Malformed;

    fn try_from(answer: v1::Answer) -> Result<Self, Malformed> {
        use v1::answer::Result as Wire;
        let result = match answer.result.ok_or(malformed("answer without result"))? {
            Wire::Error(error) => Err(error.try_into()?),
            Wire::Opened(opened) => Ok(Reply::Opened {
                handle: HandleToken::new(opened.handle),
                created: opened.created,
                stat: opened.stat.ok_or(malformed("opened without stat"))?.try_into()?,
            }),
            Wire::Closed(_) => Ok(Reply::Closed),
            Wire::Contents(read) => Ok(Reply::Contents {
                contents: read.contents,
                stat: read.stat.ok_or(malformed("contents without stat"))?.try_into()?,
            }),
            Wire::Stat(stat) => Ok(Reply::Stat(stat.try_into()?)),
            Wire::Children(list) => Ok(Reply::Children {
                children: list.children.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                acls: list.acls.ok_or(malformed("listing without ACL names"))?.into(),
            }),
            Wire::Written(written) => Ok(Reply::Written {
                content_generation: Generation(written.content_generation),
                previous_generation: Generation(written.previous_generation),
            }),
            Wire::Deleted(_) => Ok(Reply::Deleted),
            Wire::Acquired(acquired) => {
                Ok(Reply::Acquired { lock_generation: Generation(acquired.lock_generation) })
            }
            Wire::Released(_) => Ok(Reply::Released),
            Wire::Noted(noted) if noted.without_cells.is_empty() => Ok(Reply::Noted),
            Wire::Noted(noted) => Ok(Reply::ClaimedWithout(
                noted.without_cells.iter().map(|cell| CellName::new(cell)).collect(),
            )),
            Wire::AclSet(set) => Ok(Reply::AclSet { acl_generation: Generation(set.acl_generation) }),
            Wire::Sequencer(got) => Ok(Reply::Sequencer(SequencerToken::new(got.sequencer))),
            Wire::SequencerStands(_) => Ok(Reply::SequencerStands),
            Wire::Needs(needs) => {
                let (need, anchor) = needs_from_wire(needs)?;
                Ok(Reply::Needs(need, anchor))
            }
            Wire::Root(root) => Ok(Reply::Root(root.try_into()?)),
            Wire::Sealed(sealed) => Ok(Reply::Sealed(SealTicket(sealed.ticket))),
            Wire::Anchored(anchor) => Ok(Reply::Anchored(anchor.into())),
            Wire::Parcel(tier::v1::Parcel { data, parts }) => Ok(Reply::Parcel { data, parts }),
            Wire::Chores(list) => {
                let chores = list.chores.into_iter().map(TryInto::try_into);
                Ok(Reply::Chores(chores.collect::<Result<_, Malformed>>()?))
            }
        };
        Ok(Self {
            number: RequestNumber(answer.number),
            position: answer.position.map(Into::into),
            caches: ItemKinds::from_bits(answer.caches),
            result,
        })
    }
}
