//! As little of a master around the two cells' states as these requests need, and what can be left out of a move.
//!
//! A request is decided and done at once. What a master would look at before it proposes a write is looked at only as far as
//! the log does not: whose handle it is. So each write is also one that was proposed long before.

use bytes::Bytes;
use hasp_cell::state::{
    AppliedOutcome, ClientWrite, Command, Create, Holder, Outcome, Refusal, State, Write,
};
use hasp_proto::crossing::{Anchor, CrossOp, Root};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Claim, Epoch, Generation, RequestNumber, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::Stat;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Open, Reply, Request};
use hasp_proto::stream::Role;
use hasp_proto::time::Time;
use hasp_proto::wire::log::v1 as log;
use hasp_proto::wire::log::v1::snapshot_record::Record;
use prost::Message as _;

use crate::model::Omission;
use crate::model::crossing::cells::{self, CELLS, Commits, client_id};
use crate::model::hashed::Hashed;
use crate::model::world::Committed;

/// The home cell: it has the map, and everything to begin with.
pub(super) const HOME: usize = 0;
/// Who may write the map, straight at the home cell.
const ADMINISTRATOR: usize = 10;

/// What is below that directory moves.
pub(super) fn prefix() -> Name {
    Name::parse("/ls/dev/p").expect("a good name")
}

/// The file that everything is about.
pub(super) fn file() -> Name {
    prefix().child("f").expect("short")
}

/// The map that the cells are founded with.
pub(super) fn map() -> PartitionMap {
    cells::map(&[("/ls/dev", CELLS[HOME])])
}

/// Both cells as they were founded; the administrator has a session.
pub(super) fn begun(commits: &Commits, cell: usize, routers: &[SessionId]) -> Hashed<Committed> {
    let mut begun = commits.begun(cell, map(), routers);
    commits.connect(&mut begun, client_id(ADMINISTRATOR), Role::Client, "admin");
    begun
}

/// The administrator writes that map: a change begins, or is given up. It is a good one.
pub(super) fn write_map(
    commits: &Commits,
    home: &mut Hashed<Committed>,
    map: &PartitionMap,
) -> Option<AppliedOutcome> {
    let name = home.state.map_file()?.clone();
    let instance = home.state.node(&name)?.instance;
    let holder = Holder { name, instance, opened_by: cells::OPENED_BY, lock_delay: LOCK_DELAY };
    let contents = Bytes::from(map.to_file());
    // The version is one that was not written before.
    let number = RequestNumber(map.version);
    let write = ClientWrite {
        session: client_id(ADMINISTRATOR),
        via: None,
        claim: Claim(0),
        number,
        settled_below: number,
        principal: "admin".into(),
        guard: None,
        evidence: None,
        write: Write::SetContents { holder, contents, if_generation: None },
    };
    let applied = commits.commit(home, Command::ClientWrite(write));
    matches!(applied.outcome, Outcome::Written { .. }).then(|| (*applied).clone())
}

/// What a client's write did, when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) client: SessionId,
    /// The client's number of it.
    pub(super) number: u64,
    pub(super) what: What,
}

/// What came of a write that has changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Created(Box<Stat>),
    Written(Generation, Bytes),
    Acquired(Generation),
    Released,
    Deleted,
}

impl What {
    fn of(op: &Op, outcome: &Outcome) -> Option<Self> {
        match (op, outcome) {
            (_, Outcome::Created { created: true, stat }) => Some(Self::Created(stat.clone())),
            (Op::SetContents { contents, .. }, Outcome::Written { content_generation, .. }) => {
                Some(Self::Written(*content_generation, contents.clone()))
            }
            (_, Outcome::Acquired { lock_generation, is_first: true }) => {
                Some(Self::Acquired(*lock_generation))
            }
            (_, Outcome::Released) => Some(Self::Released),
            (_, Outcome::Deleted) => Some(Self::Deleted),
            _ => None,
        }
    }

    /// What was given out for it: an instance number or a generation.
    pub(super) fn stamp(&self) -> Option<u64> {
        match self {
            Self::Created(stat) => Some(stat.instance.0),
            Self::Written(generation, _) | Self::Acquired(generation) => Some(generation.0),
            Self::Released | Self::Deleted => None,
        }
    }
}

/// A cell, and what is left out of the protocol there.
pub(super) struct Master<'a> {
    pub(super) commits: &'a Commits,
    pub(super) cell: &'a mut Hashed<Committed>,
    pub(super) omission: Option<Omission>,
}

impl Master<'_> {
    /// What the master answers to a request on that session, and what that has done for a client.
    pub(super) fn answer(&mut self, speaker: SessionId, request: &Request) -> (Answer, Option<Effect>) {
        let (position, result, effect) = match &request.op {
            Op::Cross(op) => {
                let (position, result) = self.crossed(op);
                (position, result, None)
            }
            op => self.written(speaker, request, op),
        };
        let is_map = request.op == Op::Cross(CrossOp::ReadMap);
        let caches = if is_map { ItemKinds::of([ItemKind::Data]) } else { ItemKinds::NONE };
        (Answer { number: request.number, position: Some(position), caches, result }, effect)
    }

    fn crossed(&mut self, op: &CrossOp) -> (Position, Result<Reply, Error>) {
        match op {
            CrossOp::ReadMap => (self.cell.state.position(), self.map_file()),
            CrossOp::DescribeRoot(name) => (self.cell.state.position(), self.described(name)),
            CrossOp::Export { version, to, part } => {
                let exported = self.exporting().export(*version, to, *part);
                let reply = exported.map(|(data, parts)| Reply::Parcel { data, parts });
                (self.cell.state.position(), reply)
            }
            CrossOp::Import { .. } if self.omission == Some(Omission::ImportNotAwaited) => {
                (self.cell.state.position(), Ok(Reply::Noted))
            }
            CrossOp::Import { version, from, part, parts, data } => {
                let (version, from, data) = (*version, from.clone(), self.without(data));
                let import = CrossOp::Import { version, from, part: *part, parts: *parts, data };
                let imported = self.commit(import);
                if self.omission == Some(Omission::MoveNotDecided)
                    && let Some(after) = self.cell.state.map().after().cloned()
                {
                    drop(self.commit(CrossOp::Adopt(after)));
                }
                imported
            }
            CrossOp::Pack { .. } if self.omission == Some(Omission::NotPacked) => {
                (self.cell.state.position(), Ok(Reply::Noted))
            }
            CrossOp::Finish { version } if self.omission == Some(Omission::NotPacked) => {
                drop(self.commit(CrossOp::Pack { version: *version }));
                self.commit(op.clone())
            }
            CrossOp::Adopt(map) => self.adopted(map),
            op => self.commit(op.clone()),
        }
    }

    fn commit(&mut self, op: CrossOp) -> (Position, Result<Reply, Error>) {
        let applied = self.commits.commit(self.cell, Command::Cross(op));
        let result = match applied.outcome.clone() {
            Outcome::Sealed(ticket) => Ok(Reply::Sealed(ticket)),
            Outcome::Failed(error) => Err(error),
            Outcome::Needs(need) => Ok(Reply::Needs(need, anchor())),
            _ => Ok(Reply::Noted),
        };
        (applied.position.clone(), result)
    }

    fn adopted(&mut self, map: &PartitionMap) -> (Position, Result<Reply, Error>) {
        let before = self.cell.state.map();
        let is_given_up = before.change().is_some() && map.version == before.version + 1 && {
            map.change().is_none() && map.rules().eq(before.rules())
        };
        if self.omission == Some(Omission::ParcelNotDropped)
            && is_given_up
            && let Some(after) = before.after().cloned()
        {
            let (position, result) = self.commit(CrossOp::Adopt(after));
            if result.is_ok() {
                return (position, result);
            }
        }
        self.commit(CrossOp::Adopt(map.clone()))
    }

    /// The state from which parts are taken.
    fn exporting(&self) -> State {
        let mut cell = self.cell.clone();
        if self.omission == Some(Omission::NotPacked) && cell.state.map().change().is_some() {
            let version = cell.state.map().version;
            self.commits.commit(&mut cell, Command::Cross(CrossOp::Pack { version }));
        }
        cell.state.clone()
    }

    /// What comes to a destination, but for what is left out.
    fn without(&self, data: &Bytes) -> Bytes {
        let Some(omission) = self.omission else { return data.clone() };
        let Ok(mut parcel) = log::Parcel::decode(data.clone()) else { return data.clone() };
        match omission {
            Omission::StampLeftBehind => parcel.stamp = last_of(&parcel),
            Omission::KeysLeftBehind => parcel.keys.clear(),
            Omission::AnswersLeftBehind | Omission::LocksLeftBehind => {
                for record in parcel.records.iter_mut().filter_map(|it| it.record.as_mut()) {
                    match record {
                        Record::Client(client) if omission == Omission::AnswersLeftBehind => {
                            client.answers.clear();
                        }
                        Record::Node(node) if omission == Omission::LocksLeftBehind => node.lock = None,
                        _ => {}
                    }
                }
            }
            _ => return data.clone(),
        }
        parcel.encode_to_vec().into()
    }

    fn map_file(&self) -> Result<Reply, Error> {
        let state = &self.cell.state;
        let file = state.map_file().and_then(|name| state.node(name));
        let file = file.ok_or_else(|| ErrorCode::NotFound.because("not the home cell"))?;
        Ok(Reply::Contents { contents: file.contents.clone(), stat: file.stat() })
    }

    fn described(&self, name: &Name) -> Result<Reply, Error> {
        let state = &self.cell.state;
        if let Err(refusal) = state.check_cell(name) {
            return refused(refusal);
        }
        let node = state.node(name).ok_or_else(|| ErrorCode::NotFound.because(name.to_string()))?;
        let (instance, acls, acl_generation) = (node.instance, (*node.acls).clone(), node.acl_generation);
        Ok(Reply::Root(Root { name: name.clone(), instance, acls, acl_generation, as_of: state.position() }))
    }

    fn written(
        &mut self,
        speaker: SessionId,
        request: &Request,
        op: &Op,
    ) -> (Position, Result<Reply, Error>, Option<Effect>) {
        let client = request.on_behalf.as_ref().expect("a client's");
        let is_new = self.cell.state.answered(client.session, client.number).is_none();
        let write = match self.write_of(op, is_new) {
            Ok(write) => write,
            Err(refusal) => return (self.cell.state.position(), refused(refusal), None),
        };
        let write = ClientWrite {
            session: client.session,
            via: Some(speaker),
            claim: client.claim,
            number: client.number,
            settled_below: client.settled_below,
            principal: client.principal.clone(),
            guard: None,
            evidence: client.evidence.clone(),
            write,
        };
        let index = self.cell.state.index();
        let applied = self.commits.commit(self.cell, Command::ClientWrite(write));
        let cell = self.cell.state.position().cell;
        let is_done = applied.position.cell == cell && applied.position.index > index;
        let what = What::of(op, &applied.outcome).filter(|_| is_done);
        let effect = what.map(|what| Effect { client: client.session, number: client.number.0, what });
        (applied.position.clone(), reply_of(&cell, client.session, op, applied.outcome.clone()), effect)
    }

    fn write_of(&self, op: &Op, is_new: bool) -> Result<Write, Refusal> {
        Ok(match op {
            Op::Open(open) => create_of(open),
            Op::SetContents { handle, contents, if_generation } => {
                let (contents, if_generation) = (contents.clone(), *if_generation);
                Write::SetContents { holder: self.holder(handle, is_new)?, contents, if_generation }
            }
            Op::Delete(handle) => Write::Delete { holder: self.holder(handle, is_new)? },
            Op::TryAcquire(handle, mode) => {
                Write::Acquire { holder: self.holder(handle, is_new)?, mode: *mode }
            }
            Op::Release(handle) => Write::Release { holder: self.holder(handle, is_new)? },
            other => unreachable!("nobody asks that here: {other:?}"),
        })
    }

    /// Whose handle it is, unless it was answered before.
    fn holder(&self, handle: &HandleToken, is_new: bool) -> Result<Holder, Refusal> {
        let state = &self.cell.state;
        let claimed = handle.claimed_body().filter(|_| !is_new);
        let Some(HandleBody { name, instance, opened_by, lock_delay, .. }) =
            claimed.or_else(|| state.open_handle(handle))
        else {
            if let Some(claimed) = handle.claimed_body() {
                state.check_cell(&claimed.name)?;
            }
            return Err(ErrorCode::StaleHandle.because("not a handle of this cell").into());
        };
        Ok(Holder { name, instance, opened_by, lock_delay })
    }
}

/// The last number of the nodes that have come.
fn last_of(parcel: &log::Parcel) -> u64 {
    let stat = |record: &log::SnapshotRecord| match &record.record {
        Some(Record::Node(node)) => node.stat.clone(),
        _ => None,
    };
    let numbers = |stat: Stat| {
        [stat.content_generation.0, stat.lock_generation.0, stat.acl_generation.0].into_iter().max()
    };
    let stats = parcel.records.iter().filter_map(stat).filter_map(|stat| Stat::try_from(stat).ok());
    stats.filter_map(numbers).max().unwrap_or_default()
}

fn refused(refusal: Refusal) -> Result<Reply, Error> {
    match refusal {
        Refusal::Need(need) => Ok(Reply::Needs(need, anchor())),
        Refusal::Error(error) => Err(error),
    }
}

fn anchor() -> Anchor {
    Anchor { epoch: Epoch(1), at: Time::from_millis(0) }
}

fn reply_of(cell: &CellName, session: SessionId, op: &Op, outcome: Outcome) -> Result<Reply, Error> {
    Ok(match (op, outcome) {
        (_, Outcome::Needs(need)) => Reply::Needs(need, anchor()),
        (_, Outcome::Failed(error)) => return Err(error),
        (Op::Open(open), Outcome::Created { created, stat }) => {
            let maker = CELLS.iter().position(|it| *it == cell.as_str()).expect("one of two");
            let handle = cells::handle(maker, open.name.clone(), stat.instance, stat.kind, session);
            Reply::Opened { handle, created, stat: *stat }
        }
        (_, Outcome::Written { content_generation, previous_generation }) => {
            Reply::Written { content_generation, previous_generation }
        }
        (_, Outcome::Deleted) => Reply::Deleted,
        (_, Outcome::Acquired { lock_generation, .. }) => Reply::Acquired { lock_generation },
        (_, Outcome::LockHeld | Outcome::LockDelayed { .. }) => {
            return Err(ErrorCode::LockHeld.because("by somebody else"));
        }
        (_, Outcome::Released) => Reply::Released,
        (op, other) => unreachable!("not of a {}: {other:?}", op.name()),
    })
}

fn create_of(open: &Open) -> Write {
    let create = open.create.as_ref().expect("nobody opens what is there");
    Write::Create(Create {
        name: open.name.clone(),
        must: create.must,
        kind: create.kind,
        contents: create.contents.clone(),
        ephemeral: create.ephemeral,
        acls: create.acls.clone(),
        r#use: open.r#use,
        relative_to: None,
    })
}
