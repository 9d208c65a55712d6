//! The mistakes that a world makes on purpose with what travels between its machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::master::BatchId;
use hasp_cell::state::{Command, LogEntry, State};
use hasp_proto::crossing::{CrossOp, Root, SealTicket};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{Epoch, RequestNumber, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Grant, News, Up};
use hasp_proto::time::Time;
use hasp_proto::wire::log::v1::snapshot_record::Record;
use hasp_proto::wire::log::v1::{Parcel, SnapshotRecord};
use prost::Message as _;

use super::mutants::Mutant;
use super::network::Way;
use super::node::NodeId;
use super::plan::REPLICAS;
use super::script;
use super::world::World;

/// A number that is asked again gets this much more, by mistake.
const ANEW: u64 = 1 << 40;
/// Of a seal that nobody made. It is later than all others, so it counts.
const FORGED: SealTicket = SealTicket(u64::MAX);
/// How late a client hears of what was acknowledged for it.
const UNHEARD: Duration = Duration::from_secs(2);
/// By how much a proxy takes its leases for longer.
const UNBOUND: Duration = Duration::from_secs(30);
/// Entries that a crash takes away, at most.
const LOST_MAX: usize = 4;

/// What a world has to remember for its mistakes.
#[derive(Debug, Default)]
pub struct Mischief {
    /// [`Mutant::RetriedAnew`]: where numbers were seen first, by session.
    retried: BTreeMap<(SessionId, RequestNumber), ConnectionId>,
    /// Whose session speaks on a connection.
    speakers: BTreeMap<ConnectionId, SessionId>,
    /// [`Mutant::LeaseFromReceipt`]: when the last KeepAlive of a connection was sent, by its sender's clock.
    keep_alives: BTreeMap<ConnectionId, (u64, Time)>,
    /// [`Mutant::NoFloor`]: what each connection was told is void, up to where.
    floors: BTreeMap<(ConnectionId, Name), Position>,
    /// [`Mutant::NoFloor`]: what is read by which request.
    reads: BTreeMap<(ConnectionId, RequestNumber), Name>,
    /// [`Mutant::RootFromMemory`]: of which directory it is asked by which request.
    described: BTreeMap<(ConnectionId, RequestNumber), Name>,
    /// [`Mutant::RootFromMemory`]: what was said of directories.
    roots: BTreeMap<Name, Root>,
    /// [`Mutant::EndedByOldMaster`], [`Mutant::EpochShared`]: whose batch an entry of another's log is, by cell and
    /// number of entries with it.
    smuggled: BTreeMap<(usize, usize), (usize, BatchId)>,
    /// [`Mutant::AppliedEarly`], [`Mutant::EventBeforeAction`]: batches that a machine takes to be applied.
    pub answered: BTreeSet<(usize, BatchId)>,
    /// [`Mutant::EventBeforeAction`]: of which batch answers are held back just now.
    pub holds_for: Option<(usize, BatchId)>,
    /// [`Mutant::EventBeforeAction`]: answers that wait for their batch.
    held: BTreeMap<(usize, BatchId), Vec<(ConnectionId, Down)>>,
}

// On the way up.

impl World {
    /// Something is sent up.
    pub fn noted_up(&mut self, connection: ConnectionId, holder: NodeId, up: &Up) {
        match up {
            Up::KeepAlive(keep_alive) => {
                let sent = self.local(holder);
                self.mischief.keep_alives.insert(connection, (keep_alive.number, sent));
            }
            Up::Hello(hello) => drop(self.mischief.speakers.insert(connection, hello.key.id())),
            Up::Request(request) if self.mutant == Some(Mutant::NoFloor) => {
                if let Op::GetContentsAndStat(handle) = &request.op
                    && let Some(body) = handle.claimed_body()
                {
                    self.mischief.reads.insert((connection, request.number), body.name);
                }
            }
            Up::Request(request) if self.mutant == Some(Mutant::RootFromMemory) => {
                if let Op::Cross(CrossOp::DescribeRoot(name)) = &request.op {
                    self.mischief.described.insert((connection, request.number), name.clone());
                }
            }
            Up::Request(_) | Up::Acknowledge(_) | Up::Cancel(_) | Up::EndSession => {}
        }
    }

    /// What a host hears instead of what was sent to it; `None`: nothing.
    pub fn misheard(&mut self, connection: ConnectionId, up: Up) -> Option<Up> {
        match (self.mutant, up) {
            (Some(Mutant::RetriedAnew), Up::Request(mut request)) => {
                if let (Op::SetContents { .. }, Some(session)) =
                    (&request.op, self.mischief.speakers.get(&connection))
                {
                    let number = request.number;
                    let first = *self.mischief.retried.entry((*session, number)).or_insert(connection);
                    if first != connection {
                        request.number = RequestNumber(number.0 + ANEW);
                    }
                }
                Some(Up::Request(request))
            }
            (Some(Mutant::ClaimNotSent | Mutant::MoveNotClaimed), Up::Request(request))
                if matches!(request.op, Op::Claim) =>
            {
                let answer = Answer::plain(request.number, Ok(Reply::Noted));
                self.send_down(connection, Down::Answer(answer));
                None
            }
            (Some(Mutant::ClaimKeptAbove), Up::Request(request))
                if matches!(request.op, Op::Claim) && self.is_between_proxies(connection) =>
            {
                let answer = Answer::plain(request.number, Ok(Reply::Noted));
                self.send_down(connection, Down::Answer(answer));
                None
            }
            (Some(Mutant::SealNotAsked), Up::Request(request))
                if matches!(request.op, Op::Cross(CrossOp::Seal { .. })) =>
            {
                let answer = Answer::plain(request.number, Ok(Reply::Sealed(FORGED)));
                self.send_down(connection, Down::Answer(answer));
                None
            }
            (Some(Mutant::UnsealNotVoided), Up::Request(request))
                if matches!(request.op, Op::Cross(CrossOp::VoidSeals { .. })) =>
            {
                let answer = Answer::plain(request.number, Ok(Reply::Noted));
                self.send_down(connection, Down::Answer(answer));
                None
            }
            (_, up) => Some(up),
        }
    }
}

// On the way down.

impl World {
    /// Whether news is acknowledged for its hearer, who hears of it late or never.
    pub fn is_kept_from(&mut self, connection: ConnectionId, down: &Down) -> bool {
        let (Down::News { sequence, item }, Some(mutant)) = (down, self.mutant) else { return false };
        let Some((host, holder)) = self.network.get(connection).map(|it| (it.host, it.holder)) else {
            return false;
        };
        let is_client = matches!(holder, NodeId::Client(_));
        let of_proxy = matches!(host, NodeId::Proxy(_));
        let is_between_proxies = of_proxy && !is_client;
        let acknowledge = Up::Acknowledge(*sequence);
        match (mutant, item) {
            (Mutant::AcknowledgedUnheard, News::Invalidate { .. }) if is_client => {
                self.put_up(connection, acknowledge);
                self.put_late(connection, down.clone());
                true
            }
            (Mutant::InvalidationLost, News::Invalidate { .. })
            | (Mutant::FailOverUnheard, News::FailOver { .. })
            | (Mutant::EventUnheard, News::Event(_))
                if is_client =>
            {
                self.put_up(connection, acknowledge);
                true
            }
            (Mutant::UpperAcknowledgesEarly, News::Invalidate { .. }) if is_between_proxies => {
                self.put_up(connection, acknowledge);
                self.put_late(connection, down.clone());
                true
            }
            (Mutant::FailOverKeptAbove, News::FailOver { .. }) if is_between_proxies => {
                self.put_up(connection, acknowledge);
                true
            }
            (Mutant::ProxyAcknowledgesEarly, News::Invalidate { .. }) if !is_client => {
                self.put_up(connection, acknowledge);
                false
            }
            (Mutant::ProxyAcknowledgesEarly, News::Invalidate { .. }) if is_client && of_proxy => {
                self.put_late(connection, down.clone());
                true
            }
            _ => false,
        }
    }

    /// Whether it is one that a proxy has with another.
    fn is_between_proxies(&self, connection: ConnectionId) -> bool {
        self.network
            .get(connection)
            .is_some_and(|it| matches!((it.holder, it.host), (NodeId::Proxy(_), NodeId::Proxy(_))))
    }

    fn put_late(&mut self, connection: ConnectionId, down: Down) {
        self.put_at(self.now + UNHEARD, connection, Way::Down, down);
    }

    /// What a holder hears instead of what was sent to it.
    pub fn misread(&mut self, connection: ConnectionId, holder: NodeId, down: Down) -> Down {
        let is_client = matches!(holder, NodeId::Client(_));
        match (self.mutant, down) {
            (Some(Mutant::RetriedAnew), Down::Answer(mut answer)) if answer.number.0 >= ANEW => {
                answer.number = RequestNumber(answer.number.0 - ANEW);
                Down::Answer(answer)
            }
            (Some(Mutant::LeaseFromReceipt), Down::Lease { keep_alive, grant }) if is_client => {
                let sent =
                    self.mischief.keep_alives.get(&connection).filter(|(number, _)| *number == keep_alive);
                let held = sent.map_or(grant.held, |(_, sent)| self.local(holder).saturating_since(*sent));
                let grant = Grant { held: held.max(grant.held), ..grant };
                Down::Lease { keep_alive, grant }
            }
            (Some(Mutant::ProxyLeaseUnbound), Down::Lease { keep_alive, grant }) if !is_client => {
                Down::Lease { keep_alive, grant: unbound(grant) }
            }
            (Some(Mutant::ProxyLeaseUnbound), Down::Welcome(mut welcome)) if !is_client => {
                welcome.grant = unbound(welcome.grant);
                Down::Welcome(welcome)
            }
            (Some(Mutant::LowerLeaseUnbound), Down::Lease { keep_alive, grant })
                if self.is_between_proxies(connection) =>
            {
                Down::Lease { keep_alive, grant: unnested(grant) }
            }
            (Some(Mutant::LowerLeaseUnbound), Down::Welcome(mut welcome))
                if self.is_between_proxies(connection) =>
            {
                welcome.grant = unnested(welcome.grant);
                Down::Welcome(welcome)
            }
            (
                Some(Mutant::AclPastRevocation),
                Down::News { sequence, item: News::Invalidate { items, floor } },
            ) => {
                let items = items.into_iter().filter(|item| item.kind != ItemKind::Acl).collect();
                Down::News { sequence, item: News::Invalidate { items, floor } }
            }
            (
                Some(Mutant::AclEvidenceKept),
                Down::News { sequence, item: News::Invalidate { items, floor } },
            ) if !is_client => {
                // Decisions of the home cell itself are taken back.
                let is_heard = |item: &Item| item.kind == ItemKind::Acl || !script::is_acl_file(&item.name);
                let items = items.into_iter().filter(is_heard).collect();
                Down::News { sequence, item: News::Invalidate { items, floor } }
            }
            (
                Some(mutant @ (Mutant::MovedWithoutHolders | Mutant::MovedWithoutDelays)),
                Down::Answer(Answer { result: Ok(Reply::Parcel { data, parts }), number, position, caches }),
            ) => {
                let data = without_locks(&data, mutant);
                Down::Answer(Answer { result: Ok(Reply::Parcel { data, parts }), number, position, caches })
            }
            (Some(Mutant::RootFromMemory), Down::Answer(answer)) => {
                Down::Answer(self.remembered(connection, answer))
            }
            (Some(Mutant::NoFloor), Down::News { sequence, item: News::Invalidate { items, floor } }) => {
                for item in items.iter().filter(|item| item.kind == ItemKind::Data) {
                    self.mischief.floors.insert((connection, item.name.clone()), floor.clone());
                }
                let floor = Position { epoch: Epoch(0), index: 0, ..floor };
                Down::News { sequence, item: News::Invalidate { items, floor } }
            }
            (Some(Mutant::NoFloor), Down::Answer(answer)) => Down::Answer(self.filled(connection, answer)),
            (_, down) => down,
        }
    }

    /// A directory that is gone is said to be there, as it was.
    fn remembered(&mut self, connection: ConnectionId, answer: Answer) -> Answer {
        let Some(name) = self.mischief.described.remove(&(connection, answer.number)) else { return answer };
        let known = self.mischief.roots.get(&name).cloned();
        let result = match (answer.result, known, &answer.position) {
            (Ok(Reply::Root(root)), ..) => {
                self.mischief.roots.insert(name, root.clone());
                Ok(Reply::Root(root))
            }
            (Err(error), Some(known), Some(as_of)) if error.code == ErrorCode::NotFound => {
                Ok(Reply::Root(Root { as_of: as_of.clone(), ..known }))
            }
            (result, ..) => result,
        };
        Answer { result, ..answer }
    }

    /// What was read at or below a floor is let be cached, as if it had been asked for before.
    fn filled(&mut self, connection: ConnectionId, answer: Answer) -> Answer {
        let Some(name) = self.mischief.reads.remove(&(connection, answer.number)) else { return answer };
        let floor = self.mischief.floors.get(&(connection, name));
        let is_below = floor
            .zip(answer.position.as_ref())
            .is_some_and(|(floor, position)| (position.epoch, position.index) <= (floor.epoch, floor.index));
        if !is_below {
            return answer;
        }
        let caches = ItemKinds::of([ItemKind::Data, ItemKind::Lock, ItemKind::Acl]);
        Answer { caches, ..answer }
    }
}

// In the log.

impl World {
    /// Whether an answer waits until its batch is applied.
    pub fn is_held(&mut self, connection: ConnectionId, down: &Down) -> bool {
        let Some(batch) = self.mischief.holds_for.filter(|_| matches!(down, Down::Answer(_))) else {
            return false;
        };
        self.mischief.held.entry(batch).or_default().push((connection, down.clone()));
        true
    }

    /// The batch is applied: its answers go.
    pub fn release_held(&mut self, index: usize, batch: BatchId) {
        for (connection, down) in self.mischief.held.remove(&(index, batch)).unwrap_or_default() {
            self.send_down(connection, down);
        }
    }

    /// A crash takes away what a replica had said to have.
    pub fn tail_is_lost(&mut self, index: usize, was_leader: bool) {
        let loses = match self.mutant {
            Some(Mutant::AcknowledgedBeforeFsync) => true,
            Some(Mutant::LeaderRestored) => was_leader,
            _ => false,
        };
        if loses {
            let lost = self.random.index(LOST_MAX + 1);
            let kept = self.replicas[index].log.len().saturating_sub(lost);
            self.replicas[index].log.truncate(kept);
            self.forget_applied(index, kept);
        }
    }

    /// Something that a master proposes whom no majority answers goes into its successor's log; whether it did.
    pub fn is_smuggled(&mut self, index: usize, batch: BatchId, entry: &LogEntry) -> bool {
        let is_meant = |command: &Command| match self.mutant {
            Some(Mutant::EndedByOldMaster) => matches!(command, Command::EndSession { .. }),
            Some(Mutant::EpochShared) => matches!(command, Command::ClientWrite(_)),
            _ => false,
        };
        let cell = index / REPLICAS;
        let successor = self.leader(cell).filter(|leader| *leader != index);
        let (true, Some(successor)) = (entry.commands.iter().any(is_meant), successor) else { return false };
        let epoch = self.replicas[successor].state.epoch();
        if epoch <= entry.epoch {
            return false;
        }
        let commands = entry.commands.clone();
        let count = self.replicas[successor].log.append(Some(LogEntry { epoch, commands }));
        self.mischief.smuggled.insert((cell, count), (index, batch));
        self.replicate(successor);
        true
    }

    /// Whose an entry is that another's log has carried.
    pub fn smuggler(&mut self, index: usize, count: usize) -> Option<(usize, BatchId)> {
        self.mischief.smuggled.remove(&(index / REPLICAS, count))
    }
}

/// A part of what moves, without something of its locks.
fn without_locks(data: &Bytes, mutant: Mutant) -> Bytes {
    let mut part = Parcel::decode(data.clone()).expect("what was packed can be read");
    for record in &mut part.records {
        let Some(Record::Node(node)) = &mut record.record else { continue };
        let Some(lock) = &mut node.lock else { continue };
        if mutant == Mutant::MovedWithoutHolders {
            lock.holders.clear();
            lock.mode = 0;
        } else {
            lock.marks.clear();
        }
    }
    part.encode_to_vec().into()
}

/// A state that begins again to count what it stamps nodes with.
pub fn forgetful(state: &State) -> State {
    let mut records = state.write_snapshot();
    let Some(header) = records.first_mut() else { return state.clone() };
    let mut record = SnapshotRecord::decode(&**header).expect("what was written can be read");
    if let Some(Record::Header(header)) = &mut record.record {
        header.stamp /= 2;
    }
    *header = record.encode_to_vec().into();
    State::from_snapshot(records.into_iter()).expect("what was written can be read")
}

fn unbound(grant: Grant) -> Grant {
    Grant { session: grant.session + UNBOUND, cache: grant.cache + UNBOUND, ..grant }
}

fn unnested(grant: Grant) -> Grant {
    Grant { cache: grant.cache.max(grant.session), ..grant }
}
