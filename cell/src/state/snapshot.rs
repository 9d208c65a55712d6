//! The state as records and back, and its checksum. The order and the bytes of the records follow from the
//! state alone, so the checksum is taken over them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::convert::{Malformed, malformed, map_from_wire, map_to_wire};
use hasp_proto::crossing::SealTicket;
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::node::{LockMode, Stat};
use hasp_proto::position::Position;
use hasp_proto::time::micros;
use hasp_proto::wire::log::v1 as log;
use hasp_proto::wire::log::v1::snapshot_answer::Outcome as WireOutcome;
use hasp_proto::wire::log::v1::snapshot_record::Record;
use hasp_proto::wire::tier::v1 as tier;
use hasp_proto::wire::v1;
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use super::State;
use super::clients::{ClientRecord, Fate, KeptAnswer, NodeHandle};
use super::codec::{DecodeError, decode_genesis, decode_session, encode_genesis};
use super::lock::{DelayMark, HolderId, Lock};
use super::moving::Moving;
use super::node::Node;
use super::outcome::{AppliedOutcome, Outcome};
use super::roots::{RootRecord, Roots};
use super::sessions::SessionRecord;
use super::system::System;

/// Version of the records that this code writes and reads.
const VERSION: u32 = 1;

/// Records that are no state.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The first record is not a header.
    #[error("a snapshot begins with its header")]
    Header,
    /// A snapshot of another version of this code.
    #[error("snapshot version {0}, this code reads version {VERSION}")]
    Version(u32),
    /// The header promises another number of records.
    #[error("snapshot with {found} records where its header says {promised}")]
    Count {
        /// What the header says.
        promised: u64,
        /// What came after it.
        found: u64,
    },
    /// A record that cannot be read.
    #[error("read snapshot record")]
    Record(#[from] DecodeError),
}

impl State {
    /// The whole state as records, in an order that follows from the state alone.
    pub fn write_snapshot(&self) -> Vec<Bytes> {
        self.records().collect()
    }

    /// The state that `write_snapshot` wrote.
    ///
    /// # Errors
    /// The records are corrupt, incomplete, or of another version.
    pub fn from_snapshot(mut records: impl Iterator<Item = Bytes>) -> Result<Self, SnapshotError> {
        let Some(Record::Header(header)) = records.next().map(decode_record).transpose()? else {
            return Err(SnapshotError::Header);
        };
        let mut state = Self::restore_header(&header)?;
        let mut found = 0;
        for record in records {
            state.restore_record(decode_record(record)?)?;
            found += 1;
        }
        if found != header.records {
            return Err(SnapshotError::Count { promised: header.records, found });
        }
        state.list_handles();
        if let Some(genesis) = state.genesis() {
            let unreadable = |_| malformed("ACL or quotas that cannot be understood").into();
            state.system =
                System::read_all(genesis, &state.tree).map_err(unreadable).map_err(SnapshotError::Record)?;
        }
        Ok(state)
    }

    /// A checksum of the whole state: the same for the same log, on every replica, whatever snapshots it
    /// went through. Walks everything: take it from a clone.
    pub fn checksum(&self) -> u64 {
        let mut hash = Xxh3::new();
        for record in self.records() {
            hash.update(&(record.len() as u64).to_le_bytes());
            hash.update(&record);
        }
        hash.digest()
    }

    fn records(&self) -> impl Iterator<Item = Bytes> {
        let here = self.position().cell;
        let nodes = self.tree.iter().map(|(name, node)| Record::Node(encode_node(name, node)));
        let roots = self.tree.roots().records().map(|(name, root)| Record::Root(encode_root(name, root)));
        let crossing = encode_crossing(self.tree.roots()).map(Record::Crossing);
        let sessions =
            self.sessions.iter().map(|(session, record)| Record::Session(encode_session(session, record)));
        let clients = self
            .clients
            .iter()
            .map(move |(session, record)| Record::Client(encode_client(session, record, &here)));
        let parcels = self.moving.parcels().map(Record::Parcel);
        std::iter::once(Record::Header(self.encode_header()))
            .chain(nodes)
            .chain(roots)
            .chain(crossing)
            .chain(sessions)
            .chain(clients)
            .chain(parcels)
            .map(|record| log::SnapshotRecord { record: Some(record) }.encode_to_vec().into())
    }

    fn encode_header(&self) -> log::SnapshotHeader {
        let roots = self.tree.roots();
        let crossing = usize::from(encode_crossing(roots).is_some());
        let records = self.tree.len()
            + roots.records().count()
            + crossing
            + self.sessions.len()
            + self.clients.len()
            + self.moving.parcels().count();
        log::SnapshotHeader {
            version: VERSION,
            genesis: self.genesis().map(encode_genesis),
            epoch: self.epoch.0,
            master: self.master,
            index: self.index,
            stamp: self.stamp,
            records: records as u64,
            lease_max_us: micros(self.lease_max),
            map: self.moving.changed_map(self.genesis()).map(map_to_wire),
            unannounced: self.moving.is_unannounced(),
            keys: self.moving.keys().map(|(cell, key)| encode_key(cell, key)).collect(),
        }
    }

    fn restore_header(header: &log::SnapshotHeader) -> Result<Self, SnapshotError> {
        if header.version != VERSION {
            return Err(SnapshotError::Version(header.version));
        }
        let genesis = header.genesis.as_ref().map(decode_genesis).transpose()?.map(Arc::new);
        let map = header.map.as_ref().map(map_from_wire).transpose().map_err(DecodeError::Map)?;
        let map = map.or_else(|| Some(genesis.as_ref()?.map.without_addresses()));
        let keys = header.keys.iter().map(|it| (CellName::new(&it.cell), HandleKey::new(it.key.clone())));
        Ok(Self {
            genesis,
            moving: Moving::restore(map, header.unannounced, keys),
            epoch: Epoch(header.epoch),
            master: header.master,
            index: header.index,
            stamp: header.stamp,
            lease_max: Duration::from_micros(header.lease_max_us),
            ..Self::default()
        })
    }

    fn restore_record(&mut self, record: Record) -> Result<(), DecodeError> {
        match record {
            Record::Header(_) => return Err(malformed("second header in a snapshot").into()),
            Record::Node(node) => self.restore_node(node)?,
            Record::Root(root) => {
                let (name, record) = decode_root(root)?;
                self.tree.roots_mut().insert(&name, record);
            }
            Record::Crossing(crossing) => self.tree.roots_mut().restore(crossing)?,
            Record::Session(session) => {
                let record = SessionRecord {
                    role: session.role().try_into()?,
                    principal: session.principal,
                    advertise: session.advertise,
                    created_at: session.created_at,
                };
                self.sessions.insert(decode_session(&session.session)?, record);
            }
            Record::Client(client) => self.restore_client(client)?,
            Record::Parcel(parcel) => self.moving.restore_parcel(parcel)?,
        }
        Ok(())
    }

    fn restore_node(&mut self, record: log::SnapshotNode) -> Result<(), DecodeError> {
        let (name, node) = decode_node(record)?;
        self.tree.insert(&name, node);
        Ok(())
    }

    fn restore_client(&mut self, client: log::SnapshotClient) -> Result<(), DecodeError> {
        let session = decode_session(&client.session)?;
        let via = client.via.as_ref().map(decode_session).transpose()?;
        let here = self.position();
        let decode = |answer| decode_answer(answer, &here);
        let answers = client.answers.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        self.clients.restore(
            session,
            (via, Claim(client.claim), &client.principal),
            RequestNumber(client.settled_below),
            Fate {
                orphaned_at: client.orphaned_at,
                lingers_since: client.lingers_since,
                has_ended: client.has_ended,
            },
            answers.into_iter(),
        );
        Ok(())
    }

    /// Lists each lock and each handle on an ephemeral node with the client it belongs to, as the nodes say.
    fn list_handles(&mut self) {
        for (name, node) in self.tree.iter() {
            let handle = |opened_by| NodeHandle { name: name.clone(), instance: node.instance, opened_by };
            for (HolderId { session, opened_by }, _) in node.lock.holders() {
                self.clients.list_lock(session, handle(opened_by));
            }
            for HolderId { session, opened_by } in node.handles.iter() {
                self.clients.list_open(*session, handle(*opened_by));
            }
        }
    }
}

pub(super) fn decode_node(record: log::SnapshotNode) -> Result<(Name, Node), DecodeError> {
    let name = Name::parse(&record.name)?;
    let stat = Stat::try_from(record.stat.ok_or(malformed("node without metadata"))?)?;
    let mut node = Node::new(stat.instance.0, stat.kind, record.contents, stat.acls.into());
    if node.checksum != stat.checksum {
        return Err(malformed("contents that are not those of their checksum").into());
    }
    node.content_generation = stat.content_generation;
    node.lock_generation = stat.lock_generation;
    node.acl_generation = stat.acl_generation;
    node.ephemeral = stat.ephemeral;
    if let Some(lock) = record.lock {
        node.lock = decode_lock(&lock)?;
    }
    for handle in record.handles {
        node.handles.insert_mut(decode_holder(&handle.session, handle.opened_by)?);
    }
    if !node.ephemeral && !node.handles.is_empty() {
        return Err(malformed("handles on record of a permanent node").into());
    }
    Ok((name, node))
}

fn decode_record(bytes: Bytes) -> Result<Record, DecodeError> {
    let record = log::SnapshotRecord::decode(bytes)?.record;
    Ok(record.ok_or(malformed("snapshot record of no known kind"))?)
}

pub(super) fn encode_node(name: &Name, node: &Node) -> log::SnapshotNode {
    log::SnapshotNode {
        name: name.to_string(),
        stat: Some(node.stat().into()),
        contents: node.contents.clone(),
        lock: encode_lock(&node.lock),
        handles: node
            .handles
            .iter()
            .map(|handle| log::SnapshotHandle {
                session: handle.session.to_bytes(),
                opened_by: handle.opened_by.0,
            })
            .collect(),
    }
}

fn encode_lock(lock: &Lock) -> Option<log::SnapshotLock> {
    let holders = lock.holders().map(|(holder, delay)| log::SnapshotHolder {
        session: holder.session.to_bytes(),
        opened_by: holder.opened_by.0,
        lock_delay_us: micros(delay),
    });
    let marks = lock.marks().map(|((began, holder), mark)| log::SnapshotMark {
        began,
        session: holder.session.to_bytes(),
        opened_by: holder.opened_by.0,
        mode: v1::LockMode::from(mark.mode).into(),
        duration_us: micros(mark.duration),
    });
    let mode = lock.mode().map_or(v1::LockMode::Unspecified, v1::LockMode::from);
    (lock.mode().is_some() || lock.is_delayed()).then(|| log::SnapshotLock {
        mode: mode.into(),
        holders: holders.collect(),
        marks: marks.collect(),
    })
}

fn decode_lock(lock: &log::SnapshotLock) -> Result<Lock, Malformed> {
    let mode = match lock.mode() {
        v1::LockMode::Unspecified => None,
        held => Some(LockMode::try_from(held)?),
    };
    let held = |record: &log::SnapshotHolder| {
        Ok((decode_holder(&record.session, record.opened_by)?, Duration::from_micros(record.lock_delay_us)))
    };
    let marked = |record: &log::SnapshotMark| {
        let mark = DelayMark {
            mode: record.mode().try_into()?,
            duration: Duration::from_micros(record.duration_us),
        };
        Ok(((record.began, decode_holder(&record.session, record.opened_by)?), mark))
    };
    let holders = lock.holders.iter().map(held).collect::<Result<Vec<_>, Malformed>>()?;
    let marks = lock.marks.iter().map(marked).collect::<Result<Vec<_>, Malformed>>()?;
    if mode.is_none() != holders.is_empty() {
        return Err(malformed("lock held in no mode, or by nobody"));
    }
    Ok(Lock::restore(mode, holders.into_iter(), marks.into_iter()))
}

fn decode_holder(session: &Bytes, opened_by: u64) -> Result<HolderId, Malformed> {
    Ok(HolderId { session: decode_session(session)?, opened_by: RequestNumber(opened_by) })
}

pub(super) fn encode_root(name: &Name, root: &RootRecord) -> log::SnapshotRoot {
    log::SnapshotRoot {
        name: name.to_string(),
        acls: Some((*root.acls).clone().into()),
        instance: root.instance.0,
        acl_generation: root.acl_generation.0,
    }
}

pub(super) fn decode_root(root: log::SnapshotRoot) -> Result<(Name, RootRecord), DecodeError> {
    let acls = root.acls.ok_or(malformed("root record without ACL names"))?;
    let record = RootRecord {
        instance: Instance(root.instance),
        acls: Arc::new(acls.into()),
        acl_generation: Generation(root.acl_generation),
    };
    Ok((Name::parse(&root.name)?, record))
}

pub(super) fn encode_key(cell: &CellName, key: &HandleKey) -> log::CellKey {
    log::CellKey { cell: cell.to_string(), key: key.as_bytes().clone() }
}

pub(super) fn encode_crossing(roots: &Roots) -> Option<log::SnapshotCrossing> {
    let sealing = |name: &Name, instance: Instance, ticket: SealTicket| tier::Sealing {
        name: name.to_string(),
        instance: instance.0,
        ticket: ticket.0,
    };
    let void = |(order, name, as_of): (u64, &Name, &Position)| log::SnapshotVoid {
        name: name.to_string(),
        as_of: Some(as_of.clone().into()),
        order,
    };
    let news = |(name, generation): (&Name, Generation)| tier::Propagated {
        name: name.to_string(),
        instance: 0,
        acl_generation: generation.0,
    };
    let floor = |(cell, index): (&CellName, u64)| v1::Position { cell: cell.to_string(), epoch: 0, index };
    let crossing = log::SnapshotCrossing {
        seals: roots.seals().map(|(name, seal)| sealing(name, seal.instance, seal.ticket)).collect(),
        voided: roots.voided().map(|(name, below)| sealing(name, Instance(0), below)).collect(),
        voids: roots.voids().map(void).collect(),
        floors: roots.floors().map(floor).collect(),
        unpropagated: roots.unpropagated().map(news).collect(),
    };
    (crossing != log::SnapshotCrossing::default()).then_some(crossing)
}

fn encode_session(session: SessionId, record: &SessionRecord) -> log::SnapshotSession {
    log::SnapshotSession {
        session: session.to_bytes(),
        role: v1::Role::from(record.role).into(),
        principal: record.principal.clone(),
        advertise: record.advertise.clone(),
        created_at: record.created_at,
    }
}

fn encode_client(session: SessionId, record: &ClientRecord, here: &CellName) -> log::SnapshotClient {
    log::SnapshotClient {
        session: session.to_bytes(),
        via: record.via.map(SessionId::to_bytes),
        claim: record.claim.0,
        principal: record.principal.to_string(),
        settled_below: record.settled_below.0,
        orphaned_at: record.orphaned_at,
        lingers_since: record.lingers_since,
        has_ended: record.has_ended,
        answers: record.answers().map(|(number, kept)| encode_answer(number, kept, here)).collect(),
    }
}

/// `here` is the name of the cell that the reader will take for granted.
pub(super) fn encode_answer(
    number: RequestNumber,
    kept: &KeptAnswer,
    here: &CellName,
) -> log::SnapshotAnswer {
    let KeptAnswer { applied: AppliedOutcome { position, outcome }, name } = kept;
    log::SnapshotAnswer {
        number: number.0,
        outcome: Some(encode_outcome(outcome)),
        epoch: position.epoch.0,
        index: position.index,
        name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
        cell: if position.cell == *here { String::new() } else { position.cell.to_string() },
    }
}

/// Only outcomes of writes are kept, and of these not the transient ones.
fn encode_outcome(outcome: &Outcome) -> WireOutcome {
    match outcome {
        Outcome::Failed(error) => WireOutcome::Failed(error.clone().into()),
        Outcome::Created { created, stat } => WireOutcome::Created(log::SnapshotCreated {
            created: *created,
            stat: Some((**stat).clone().into()),
            ..Default::default()
        }),
        Outcome::Written { content_generation, previous_generation } => WireOutcome::Written(v1::Written {
            content_generation: content_generation.0,
            previous_generation: previous_generation.0,
        }),
        Outcome::Deleted => WireOutcome::Deleted(v1::Deleted {}),
        Outcome::Acquired { lock_generation, is_first } => WireOutcome::Acquired(log::SnapshotAcquired {
            lock_generation: lock_generation.0,
            is_first: *is_first,
        }),
        Outcome::AclSet { acl_generation } => {
            WireOutcome::AclSet(v1::AclSet { acl_generation: acl_generation.0 })
        }
        Outcome::Released => WireOutcome::Released(v1::Released {}),
        Outcome::Closed => WireOutcome::Closed(v1::Closed {}),
        Outcome::Rejected(_)
        | Outcome::EpochBegun(_)
        | Outcome::SessionCreated { .. }
        | Outcome::SessionEnded { .. }
        | Outcome::ClientEnded { .. }
        | Outcome::Reaped { .. }
        | Outcome::ChecksumTaken { .. }
        | Outcome::Diverged { .. }
        | Outcome::LockHeld
        | Outcome::LockDelayed { .. }
        | Outcome::Needs(_)
        | Outcome::Sealed(_)
        | Outcome::Noted => unreachable!("{outcome:?} is never kept as an answer"),
    }
}

/// Older snapshots have kept only which node it was: it is shown as it began, without contents.
fn decode_created(created: log::SnapshotCreated) -> Result<Stat, Malformed> {
    match created.stat {
        Some(stat) => stat.try_into(),
        None => {
            let kind = created.kind().try_into()?;
            Ok(Node::new(created.instance, kind, Bytes::new(), Default::default()).stat())
        }
    }
}

/// `snapshot` is the position of the whole state.
pub(super) fn decode_answer(
    answer: log::SnapshotAnswer,
    snapshot: &Position,
) -> Result<(RequestNumber, KeptAnswer), Malformed> {
    let cell = if answer.cell.is_empty() { snapshot.cell.clone() } else { CellName::new(&answer.cell) };
    let position = match answer.index {
        0 => snapshot.clone(),
        index => Position { cell, epoch: Epoch(answer.epoch), index },
    };
    let name = match answer.name.as_str() {
        "" => None,
        name => Some(Name::parse(name).map_err(|_| malformed("name of a kept answer"))?),
    };
    let outcome = match answer.outcome.ok_or(malformed("kept answer of no known kind"))? {
        WireOutcome::Failed(error) => Outcome::Failed(error.try_into()?),
        WireOutcome::Created(it) => {
            Outcome::Created { created: it.created, stat: Box::new(decode_created(it)?) }
        }
        WireOutcome::Written(it) => Outcome::Written {
            content_generation: Generation(it.content_generation),
            previous_generation: Generation(it.previous_generation),
        },
        WireOutcome::Deleted(_) => Outcome::Deleted,
        WireOutcome::Acquired(it) => {
            Outcome::Acquired { lock_generation: Generation(it.lock_generation), is_first: it.is_first }
        }
        WireOutcome::AclSet(it) => Outcome::AclSet { acl_generation: Generation(it.acl_generation) },
        WireOutcome::Released(_) => Outcome::Released,
        WireOutcome::Closed(_) => Outcome::Closed,
    };
    let applied = AppliedOutcome { position, outcome };
    Ok((RequestNumber(answer.number), KeptAnswer { applied, name }))
}
