//! Reads that are answered from what is kept here: as the cell would answer them at this moment, for whom
//! it would (`lease-3`, P-ACL, P-MONO).

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::crossing::CrossOp;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::limits::LOCK_DELAY_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{NodeKind, Stat};
use hasp_proto::request::{Answer, Op, Open, Reply, Use};
use hasp_proto::time::Time;

use super::asking::{Addressee, Kept};
use super::reads::{Part, Reader, Target};
use super::{Output, RelayCore, Show};
use crate::upstream::Ticket;

impl RelayCore {
    /// What a reader wants to read, if the answer of one such read can be made that of another: the handle
    /// is good, nothing but a read hangs on it.
    pub(super) fn target_of(&self, reader: &Reader) -> Option<Target> {
        let Reader { session, request, .. } = reader;
        if request.guard.is_some() {
            return None;
        }
        let principal = match &request.on_behalf {
            Some(client) => client.principal.clone(),
            None => self.server.holder(*session)?.principal.clone(),
        };
        let client = reader.client();
        let (cell, name, part) = match &request.op {
            Op::Open(open) if is_plain(open) => {
                let cell = self.map().owner(&open.name)?.clone();
                self.sources.get(&cell)?.key.as_ref()?;
                (cell, open.name.clone(), Part::Open)
            }
            Op::GetContentsAndStat(handle) => self.verified(client, handle, Part::Contents)?,
            Op::GetStat(handle) => self.verified(client, handle, Part::Stat)?,
            Op::ReadDir(handle) => {
                let body = self.verified_body(client, handle)?;
                (self.lister(&body)?, body.name, Part::Children(body.instance))
            }
            _ => return None,
        };
        Some(Target { cell, principal, name, part })
    }

    /// Answers a read if that can be done from here; whether it was.
    pub(super) fn answer_here(&mut self, now: Time, reader: &Reader, target: Option<&Target>) -> bool {
        let served = match (target, &reader.request.op) {
            (Some(target), _) => self.look_up(now, reader, target),
            (None, Op::Open(open)) => self.look_up_absence(now, reader, open),
            (None, _) => None,
        };
        let Some((cell, name, result, kinds)) = served else { return false };
        let Some(position) = self.sources.get(&cell).and_then(|source| source.seen().cloned()) else {
            return false;
        };
        self.hits += 1;
        self.footprints.entry(reader.session).or_default().note_use(&cell);
        let to = Addressee::from(reader);
        let answer = Answer { position: Some(position), ..Answer::plain(to.number, result) };
        if !to.caches
            && let Some(target) = target
        {
            self.show(target, &answer);
        }
        self.deliver(now, to, self.upstream.last_ticket(), Some(&Kept { name, kinds }), answer);
        true
    }

    /// Which cell lists a directory whose node another holds, and how it is asked, if that is what somebody wants whose
    /// handle is good: that cell cannot tell, since the handle is not its own.
    pub(super) fn listing_elsewhere(&self, reader: &Reader) -> Option<(CellName, CrossOp)> {
        let Op::ReadDir(handle) = &reader.request.op else { return None };
        let body = self.verified_body(reader.client(), handle)?;
        let lister = self.lister(&body).filter(|lister| Some(lister) != self.map().owner(&body.name))?;
        Some((lister, CrossOp::ListRoot { name: body.name, instance: body.instance }))
    }

    /// Which cell tells of a directory's children, if somebody wants that and its node is in another.
    pub(super) fn teller_of(&self, op: &Op) -> Option<CellName> {
        let (name, events) = match op {
            Op::Open(open) => (open.name.clone(), open.events),
            Op::Refresh(handle) => {
                let body = handle.claimed_body()?;
                (body.name, body.events)
            }
            _ => return None,
        };
        let children = self.map().children_owner(&name)?;
        let is_elsewhere = self.map().owner(&name) != Some(children) && !events.of_children().is_empty();
        is_elsewhere.then(|| children.clone())
    }

    /// Which cell lists what that handle is of: the one that holds the children of a directory (`route-1`).
    fn lister(&self, handle: &HandleBody) -> Option<CellName> {
        match handle.kind {
            NodeKind::Directory => self.map().children_owner(&handle.name).cloned(),
            NodeKind::File => self.map().owner(&handle.name).cloned(),
        }
    }

    /// What an answer means to somebody else who read the same and waited for it; `None` if it has to ask
    /// for itself.
    pub(super) fn result_for(
        &self,
        target: &Target,
        rider: &Reader,
        result: &Result<Reply, Error>,
    ) -> Option<Result<Reply, Error>> {
        match (result, &rider.request.op) {
            (Ok(Reply::Opened { stat, .. }), Op::Open(open)) => {
                self.opened(&target.cell, rider, open, stat).map(Ok)
            }
            (Ok(Reply::Opened { .. }), _) => None,
            (Ok(reply), _) => Some(Ok(reply.clone())),
            (Err(error), _) => is_of_the_node(&error.code).then(|| Err(error.clone())),
        }
    }

    /// Whether closing this handle changes nothing at the cell: there is nothing on record of it.
    pub(super) fn is_closed_here(&self, session: SessionId, handle: &HandleToken) -> bool {
        self.verified_body(session, handle)
            .is_some_and(|body| body.r#use == Use::Read && body.events.is_empty() && !body.ephemeral)
    }

    fn look_up(&mut self, now: Time, reader: &Reader, target: &Target) -> Option<Served> {
        let Target { cell, principal, name, part } = target;
        if !self.may_serve(now, reader, cell) {
            return None;
        }
        let of_node = ItemKinds::of([ItemKind::Data, ItemKind::Lock, ItemKind::Acl]);
        let (at, reply, kinds) = match part {
            Part::Open => {
                let Op::Open(open) = &reader.request.op else { return None };
                if let Some(absent) = self.look_up_absence(now, reader, open) {
                    return Some(absent);
                }
                let hit = self.cache.stat(name, None, principal)?;
                (hit.position.cell, self.opened(cell, reader, open, &hit.value)?, of_node)
            }
            Part::Contents(instance) => {
                let hit = self.cache.contents(name, Some(*instance), principal)?;
                let (contents, stat) = hit.value;
                (hit.position.cell, Reply::Contents { contents, stat }, of_node)
            }
            Part::Stat(instance) => {
                let hit = self.cache.stat(name, Some(*instance), principal)?;
                (hit.position.cell, Reply::Stat(hit.value), of_node)
            }
            Part::Children(instance) => {
                let hit = self.cache.listing(name, Some(*instance), principal)?;
                let reply = Reply::Children { children: hit.value.children.to_vec(), acls: hit.value.acls };
                (hit.position.cell, reply, ItemKinds::of([ItemKind::Listing, ItemKind::Acl]))
            }
        };
        (at == *cell).then(|| (cell.clone(), name.clone(), Ok(reply), kinds))
    }

    /// That there is no such node is no secret, and the same for every use.
    fn look_up_absence(&mut self, now: Time, reader: &Reader, open: &Open) -> Option<Served> {
        if open.create.is_some() || open.relative_to.is_some() || reader.request.guard.is_some() {
            return None;
        }
        let cell = self.map().owner(&open.name)?.clone();
        if !self.may_serve(now, reader, &cell) || self.cache.absence(&open.name)?.cell != cell {
            return None;
        }
        let error = ErrorCode::NotFound.because(open.name.to_string());
        Some((cell, open.name.clone(), Err(error), ItemKinds::of([ItemKind::Absence])))
    }

    /// Under the own cache lease, to a session that has seen nothing newer elsewhere.
    fn may_serve(&self, now: Time, reader: &Reader, cell: &CellName) -> bool {
        self.keeps
            && self.upstream.cache_end(cell).is_some_and(|end| end > now)
            && self.may_be_served(reader, cell)
    }

    /// Whether a copy is as good to the reader as the cell's word: it has seen nothing elsewhere that could be newer, nor
    /// has the client that it asks for.
    pub(super) fn may_be_served(&self, reader: &Reader, cell: &CellName) -> bool {
        !reader.needs_the_cell
            && !reader.request.on_behalf.as_ref().is_some_and(|client| client.is_mover)
            && self.movers.may_be_served(reader.session, cell)
    }

    /// A handle for reading such as the cell would make. Those that keep a node in being it must make
    /// itself.
    fn opened(&self, cell: &CellName, reader: &Reader, open: &Open, stat: &Stat) -> Option<Reply> {
        if stat.ephemeral || !is_plain(open) {
            return None;
        }
        let source = self.sources.get(cell)?;
        let handle = source.key.as_ref()?.seal(&HandleBody {
            cell: cell.clone(),
            name: open.name.clone(),
            instance: stat.instance,
            kind: stat.kind,
            r#use: open.r#use,
            session: reader.client(),
            opened_by: reader.number(),
            epoch: source.epoch,
            lock_delay: open.lock_delay,
            events: open.events,
            ephemeral: false,
        });
        Some(Reply::Opened { handle, created: false, stat: stat.clone() })
    }

    fn verified(
        &self,
        session: SessionId,
        handle: &HandleToken,
        part: impl FnOnce(hasp_proto::id::Instance) -> Part,
    ) -> Option<(CellName, Name, Part)> {
        let HandleBody { name, instance, .. } = self.verified_body(session, handle)?;
        Some((self.map().owner(&name)?.clone(), name, part(instance)))
    }

    /// What a handle says, if the cell made it for that session.
    fn verified_body(&self, session: SessionId, handle: &HandleToken) -> Option<HandleBody> {
        let claimed = handle.claimed_body().filter(|body| body.session == session)?;
        self.sources.get(&claimed.cell)?.key.as_ref()?.open(handle)
    }

    /// Lets the concurrent view answer the next such read.
    fn show(&mut self, target: &Target, answer: &Answer) {
        let (Part::Contents(instance) | Part::Stat(instance) | Part::Children(instance)) = target.part else {
            return;
        };
        if let Ok(reply) = &answer.result {
            let (Target { cell, principal, name, .. }, reply) = (target.clone(), reply.clone());
            self.outputs.push_back(Output::Show(Show::Copy { cell, principal, name, instance, reply }));
        }
    }
}

/// Of which cell and name, the answer, and what of it may be kept.
type Served = (CellName, Name, Result<Reply, Error>, ItemKinds);

/// Whether an `Open` leaves nothing behind at the cell.
fn is_plain(open: &Open) -> bool {
    open.r#use == Use::Read
        && open.create.is_none()
        && open.relative_to.is_none()
        && open.events.is_empty()
        && open.lock_delay <= LOCK_DELAY_MAX
}

/// Whether everybody who reads this node as this principal gets this error.
fn is_of_the_node(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotFound
            | ErrorCode::PermissionDenied
            | ErrorCode::StaleHandle
            | ErrorCode::NotADirectory
            | ErrorCode::TooLarge
    )
}

/// Clients that held their session elsewhere before they came, and may have seen there what has not
/// reached this host: of each cell they are asked above until an answer from there has come that was
/// asked since (P-MONO).
#[derive(Clone, Debug, Default)]
pub(super) struct Movers {
    since: BTreeMap<SessionId, (Ticket, BTreeSet<CellName>)>,
}

impl Movers {
    /// The session came from elsewhere; what is asked for it from here on has greater tickets.
    pub(super) fn came(&mut self, session: SessionId, last: Ticket) {
        self.since.insert(session, (last, BTreeSet::new()));
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.since.remove(&session);
    }

    pub(super) fn is_mover(&self, session: SessionId) -> bool {
        self.since.contains_key(&session)
    }

    /// It was shown something of a cell, which was asked with that ticket; whether it can be served from
    /// here by that. Answers of writes may be old ones, given again.
    pub(super) fn shown(
        &mut self,
        session: SessionId,
        cell: &CellName,
        ticket: Ticket,
        result: &Result<Reply, Error>,
    ) -> bool {
        let is_read = matches!(result, Ok(Reply::Contents { .. } | Reply::Stat(_) | Reply::Children { .. }));
        let Some((since, cells)) = self.since.get_mut(&session) else { return false };
        is_read && ticket > *since && cells.insert(cell.clone())
    }

    fn may_be_served(&self, session: SessionId, cell: &CellName) -> bool {
        self.since.get(&session).is_none_or(|(_, cells)| cells.contains(cell))
    }
}
