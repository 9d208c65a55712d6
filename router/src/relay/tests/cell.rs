//! A cell that keeps sessions, remembers who speaks for whom, and acts like a master towards those that
//! cache: it lets them, and before it changes something tells them and waits. Nodes are there when they
//! are first asked for, unless they are said to be absent. ACLs have members once one was written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::crossing::CrossOp;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::lease::{Ceiling, LeaseEnds, LeaseTerms};
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, NodeKind, Stat};
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::server::ConnectionId;
use hasp_proto::server::cachers::{Cachers, RoundId};
use hasp_proto::server::{Output, ServerCore};
use hasp_proto::stream::{Down, News};
use hasp_proto::time::Time;

/// A directory whose children are another cell's than the node.
pub(crate) const SPLIT: &str = "/ls/dev/b";

pub(crate) struct Cell {
    pub(crate) core: ServerCore,
    /// Every request, with the session that sent it.
    pub(crate) seen: Vec<(SessionId, Request)>,
    /// Requests are kept in `held` instead of answered.
    pub(crate) holds: bool,
    pub(crate) held: Vec<(SessionId, Request)>,
    /// Who reads the map, until it is shown.
    map_reads: Vec<(SessionId, RequestNumber)>,
    /// Answers operations of this name with this error.
    pub(crate) refuses: Option<(&'static str, ErrorCode)>,
    /// Between the last acknowledgement of an invalidation and the change.
    pub(crate) commit_delay: Duration,
    /// Names that are not there until they are created.
    pub(crate) absent: BTreeSet<Name>,
    /// When each change was done, with its position's index.
    pub(crate) commits: Vec<(Time, u64)>,
    now: Time,
    name: CellName,
    key: HandleKey,
    speakers: BTreeMap<SessionId, (SessionId, Claim)>,
    nodes: BTreeMap<Name, Node>,
    index: u64,
    epoch: Epoch,
    pub(crate) cachers: Cachers,
    rounds: u64,
    changes: BTreeMap<RoundId, (SessionId, Request)>,
    committing: VecDeque<(Time, RoundId)>,
    /// Answers of writes, by client and number: asked again, they are given again (P-ONCE).
    kept: BTreeMap<(SessionId, RequestNumber), Answer>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    contents: Bytes,
    generation: u64,
    lock_generation: u64,
}

impl Cell {
    pub(crate) fn new(name: &str) -> Self {
        let mut cell = Self {
            core: ServerCore::new(LeaseTerms::default()),
            seen: Vec::new(),
            holds: false,
            held: Vec::new(),
            map_reads: Vec::new(),
            refuses: None,
            commit_delay: Duration::ZERO,
            absent: BTreeSet::new(),
            commits: Vec::new(),
            now: Time::ZERO,
            name: CellName::new(name),
            key: HandleKey::new(Bytes::from_static(&[1; 32])),
            speakers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            index: 1,
            epoch: Epoch(1),
            cachers: Cachers::default(),
            rounds: 0,
            changes: BTreeMap::new(),
            committing: VecDeque::new(),
            kept: BTreeMap::new(),
        };
        cell.serve();
        cell
    }

    fn serve(&mut self) {
        self.core.set_ceiling(self.now, Ceiling::Master);
        self.core.speak_as_master(self.name.clone(), self.epoch, self.key.clone());
    }

    /// Another replica becomes master: it knows the sessions and the state, and nothing of who caches
    /// what. What was under way is lost and asked again.
    pub(crate) fn fail_over(&mut self, now: Time) {
        self.now = now;
        let holders: Vec<_> = self
            .core
            .sessions()
            .filter_map(|session| Some((session, self.core.holder(session)?.clone())))
            .collect();
        self.core.stop(&ErrorCode::Unavailable.because("another master"));
        self.epoch = self.epoch.next();
        (self.cachers, self.changes, self.committing) = Default::default();
        self.held.clear();
        self.serve();
        let end = now + LEASE_MAX;
        for (session, holder) in holders {
            self.core.adopt(session, holder, LeaseEnds { session: end, cache: end });
            let news = News::FailOver { cell: self.name.clone(), epoch: self.epoch };
            let told = self.core.tell(now, session, news).expect("just adopted");
            self.cachers.suspect(session, told);
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position { cell: self.name.clone(), epoch: self.epoch, index: self.index }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let commit = self.committing.front().map(|(at, _)| *at);
        self.core.poll_timeout().map(|(at, _)| at).into_iter().chain(commit).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        self.core.handle_timeout(now);
        while self.committing.front().is_some_and(|(at, _)| *at <= now) {
            let (_, round) = self.committing.pop_front().expect("just seen");
            self.commit(round);
        }
    }

    /// The operations that were asked, by name, oldest first.
    pub(crate) fn ops(&self) -> Vec<&'static str> {
        self.seen.iter().map(|(_, request)| request.op.name()).collect()
    }

    pub(crate) fn answer_held(&mut self) {
        self.holds = false;
        for (session, request) in std::mem::take(&mut self.held) {
            self.answer(session, &request);
        }
    }

    /// What is to be sent next, or which connection to be closed.
    pub(crate) fn next_sent(&mut self, now: Time) -> Option<Result<(ConnectionId, Down), ConnectionId>> {
        self.now = now;
        loop {
            match self.core.poll_output()? {
                Output::Send(connection, down) => return Some(Ok((connection, down))),
                Output::Close(connection) => return Some(Err(connection)),
                Output::Admit(connection, _, hello) if hello.known_since.is_some() => {
                    self.core.refuse(connection, ErrorCode::SessionExpired.because("unknown here"));
                }
                Output::Admit(connection, ..) => self.core.admit(now, connection),
                // Nothing is left behind here.
                Output::Request(_, request) if request.op == Op::Cross(CrossOp::Chores) => {}
                Output::Request(session, request) if request.op == Op::Cross(CrossOp::ReadMap) => {
                    self.map_reads.push((session, request.number));
                }
                Output::Request(session, request) => {
                    self.seen.push((session, request.clone()));
                    if self.holds {
                        self.held.push((session, request));
                    } else {
                        self.answer(session, &request);
                    }
                }
                Output::Cancel(session, number) => {
                    self.held.retain(|(_, request)| request.number != number);
                    let result = Err(ErrorCode::Cancelled.because("by the client"));
                    self.core.answer(session, Answer::plain(number, result));
                }
                Output::Expired(session) | Output::Ended(session) => {
                    self.core.forget(session);
                    let ready = self.cachers.gone(session);
                    self.let_go(ready);
                }
                Output::Acknowledged(session, sequence) => {
                    let ready = self.cachers.acknowledged(session, sequence);
                    self.let_go(ready);
                }
                Output::CacheLeaseOver(session) => {
                    let ready = self.cachers.gone(session);
                    self.let_go(ready);
                }
                Output::Settled(..) | Output::WantsLease(_) => {}
            }
        }
    }

    /// Whoever reads the map learns that it is this.
    pub(crate) fn show_map(&mut self, map: &PartitionMap) {
        let file = Name::parse("/ls/dev/.hasp/partitions").expect("good");
        let node = Node { contents: map.to_file().into(), ..Node::default() };
        let reply = Reply::Contents { contents: node.contents.clone(), stat: stat(&file, &node) };
        for (session, number) in std::mem::take(&mut self.map_reads) {
            self.core.answer(session, Answer::plain(number, Ok(reply.clone())));
        }
    }

    fn answer(&mut self, via: SessionId, request: &Request) {
        let result = self.speak(via, request).and_then(|()| match &self.refuses {
            Some((op, code)) if *op == request.op.name() => Err(code.clone().because("told to")),
            _ => Ok(()),
        });
        if let Err(error) = result {
            let position = Some(self.position());
            return self.core.answer(via, Answer { position, ..Answer::plain(request.number, Err(error)) });
        }
        let client = request.on_behalf.as_ref().map_or((via, request.number), |it| (it.session, it.number));
        if let Some(kept) = self.kept.get(&client) {
            return self.core.answer(via, Answer { number: request.number, ..kept.clone() });
        }
        let items = self.changed_by(&request.op);
        if items.is_empty() {
            let (result, name, kinds) = self.read(via, request);
            let caches = if request.caches { self.let_cache(via, &name, kinds) } else { ItemKinds::NONE };
            let position = Some(self.position());
            self.core.answer(via, Answer { number: request.number, position, caches, result });
        } else {
            self.change(via, request.clone(), items);
        }
    }

    fn let_cache(&mut self, session: SessionId, name: &Name, kinds: ItemKinds) -> ItemKinds {
        if !self.core.may_cache(self.now, session) {
            return ItemKinds::NONE;
        }
        let of = |kind| if kind == ItemKind::Acl { acl_file(&acls(name).read) } else { name.clone() };
        let granted: Vec<_> = kinds
            .kinds()
            .filter(|kind| self.cachers.register(session, &Item::new(of(*kind), *kind)))
            .collect();
        ItemKinds::of(granted)
    }

    /// What a request changes of what others may cache.
    fn changed_by(&self, op: &Op) -> Vec<Item> {
        let item = |name: &Name, kind| Item::new(name.clone(), kind);
        match op {
            Op::SetContents { handle, .. } => {
                let name = handle.claimed_body().expect("a handle").name;
                let listing = name.parent().map(|parent| item(&parent, ItemKind::Listing));
                let acl = (acl_file(name.component()) == name).then(|| item(&name, ItemKind::Acl));
                std::iter::once(item(&name, ItemKind::Data)).chain(listing).chain(acl).collect()
            }
            Op::Open(open) if open.create.is_some() && self.absent.contains(&open.name) => {
                let parent = open.name.parent().expect("below a namespace");
                vec![item(&open.name, ItemKind::Absence), item(&parent, ItemKind::Listing)]
            }
            Op::Acquire(handle, _) | Op::TryAcquire(handle, _) => {
                vec![item(&handle.claimed_body().expect("a handle").name, ItemKind::Lock)]
            }
            _ => Vec::new(),
        }
    }

    fn change(&mut self, via: SessionId, request: Request, items: Vec<Item>) {
        self.rounds += 1;
        let round = RoundId(self.rounds);
        let tell = self.cachers.begin(round, items);
        self.changes.insert(round, (via, request));
        let floor = self.position();
        for (session, items) in tell {
            let news = News::Invalidate { items: items.clone(), floor: floor.clone() };
            match self.core.tell(self.now, session, news) {
                Some(sequence) => self.cachers.told(session, sequence, items),
                None => drop(self.cachers.gone(session)),
            }
        }
        if self.cachers.is_ready(round) {
            self.let_go(vec![round]);
        }
    }

    fn let_go(&mut self, ready: Vec<RoundId>) {
        for round in ready {
            if self.commit_delay.is_zero() {
                self.commit(round);
            } else {
                self.committing.push_back((self.now + self.commit_delay, round));
            }
        }
    }

    fn commit(&mut self, round: RoundId) {
        let Some((via, request)) = self.changes.remove(&round) else { return };
        let client = request.on_behalf.as_ref().map_or((via, request.number), |it| (it.session, it.number));
        if let Some(kept) = self.kept.get(&client) {
            self.cachers.finish(round);
            return self.core.answer(via, Answer { number: request.number, ..kept.clone() });
        }
        self.index += 1;
        self.commits.push((self.now, self.index));
        match &request.op {
            Op::SetContents { handle, contents, .. } => {
                let node = self.nodes.entry(handle.claimed_body().expect("a handle").name).or_default();
                node.contents = contents.clone();
                node.generation += 1;
            }
            Op::Open(open) => drop(self.absent.remove(&open.name)),
            Op::Acquire(handle, _) | Op::TryAcquire(handle, _) => {
                self.nodes
                    .entry(handle.claimed_body().expect("a handle").name)
                    .or_default()
                    .lock_generation += 1;
            }
            other => panic!("not a change: {other:?}"),
        }
        self.cachers.finish(round);
        let (result, ..) = self.read(via, &request);
        let position = Some(self.position());
        let answer = Answer { position, ..Answer::plain(request.number, result) };
        self.kept.insert(client, answer.clone());
        self.core.answer(via, answer);
    }

    /// As the real cell: the newest claim wins; the same one only through the same session.
    fn speak(&mut self, via: SessionId, request: &Request) -> Result<(), Error> {
        let Some(client) = &request.on_behalf else { return Ok(()) };
        let (speaker, claim) = *self.speakers.get(&client.session).unwrap_or(&(via, Claim(0)));
        let is_orphan = self.core.holder(speaker).is_none();
        let is_current = client.claim > claim || client.claim == claim && (speaker == via || is_orphan);
        if !is_current {
            return Err(ErrorCode::SessionMoved.because("speaks elsewhere"));
        }
        self.speakers.insert(client.session, (via, client.claim));
        Ok(())
    }

    /// The reply, and what may be cached of it: of which node, which kinds.
    fn read(&self, via: SessionId, request: &Request) -> (Result<Reply, Error>, Name, ItemKinds) {
        let (session, opened_by, principal) = match &request.on_behalf {
            Some(client) => (client.session, client.number, &*client.principal),
            None => (via, request.number, "tier"),
        };
        let name = match &request.op {
            Op::Open(open) => Some(open.name.clone()),
            Op::Cross(CrossOp::ListRoot { name, .. }) => Some(name.clone()),
            op => op.handle().and_then(HandleToken::claimed_body).map(|body| body.name),
        };
        let name = name.unwrap_or_else(|| Name::parse("/ls/dev").expect("good"));
        if matches!(request.op, Op::Open(_)) && self.absent.contains(&name) {
            let error = ErrorCode::NotFound.because(name.to_string());
            return (Err(error), name, ItemKinds::of([ItemKind::Absence]));
        }
        let is_read = matches!(
            request.op,
            Op::GetContentsAndStat(_)
                | Op::GetStat(_)
                | Op::Refresh(_)
                | Op::ReadDir(_)
                | Op::Open(_)
                | Op::Cross(CrossOp::ListRoot { .. })
        );
        if is_read && !self.may_read(&name, principal) {
            let error = ErrorCode::PermissionDenied.because(format!("{principal} is not in the ACL"));
            return (Err(error), name, ItemKinds::NONE);
        }
        let of_node = ItemKinds::of([ItemKind::Data, ItemKind::Lock, ItemKind::Acl]);
        let node = self.nodes.get(&name).cloned().unwrap_or_default();
        let (reply, kinds) = match &request.op {
            Op::Open(open) => {
                let body = HandleBody {
                    cell: self.name.clone(),
                    name: name.clone(),
                    instance: Instance(1),
                    kind: if name.as_str() == SPLIT { NodeKind::Directory } else { NodeKind::File },
                    r#use: open.r#use,
                    session,
                    opened_by,
                    epoch: self.epoch,
                    lock_delay: open.lock_delay,
                    events: open.events,
                    ephemeral: false,
                };
                let created = open.create.is_some();
                (Reply::Opened { handle: self.key.seal(&body), created, stat: stat(&name, &node) }, of_node)
            }
            Op::GetContentsAndStat(_) => {
                (Reply::Contents { contents: node.contents.clone(), stat: stat(&name, &node) }, of_node)
            }
            Op::GetStat(_) | Op::Refresh(_) => (Reply::Stat(stat(&name, &node)), of_node),
            Op::ReadDir(_) | Op::Cross(CrossOp::ListRoot { .. }) => {
                let below =
                    |child: &&Name| child.parent().as_ref() == Some(&name) && !self.absent.contains(*child);
                let child = |child: &Name| {
                    let stat = stat(child, &Node { lock_generation: 0, ..self.nodes[child].clone() });
                    Child { component: child.component().to_owned(), stat }
                };
                let children = self.nodes.keys().filter(below).map(child).collect();
                let kinds = ItemKinds::of([ItemKind::Listing, ItemKind::Acl]);
                (Reply::Children { children, acls: acls(&name) }, kinds)
            }
            op => (reply_of_write(op, &node), ItemKinds::NONE),
        };
        (Ok(reply), name, kinds)
    }

    /// The members of an ACL are the lines of its file; before it is written it lets everybody in.
    fn may_read(&self, name: &Name, principal: &str) -> bool {
        self.nodes.get(&acl_file(&acls(name).read)).is_none_or(|file| {
            std::str::from_utf8(&file.contents).expect("text").lines().any(|line| line == principal)
        })
    }
}

fn reply_of_write(op: &Op, node: &Node) -> Reply {
    match op {
        Op::Close(_) => Reply::Closed,
        Op::SetContents { .. } => Reply::Written {
            content_generation: Generation(node.generation),
            previous_generation: Generation(node.generation.saturating_sub(1)),
        },
        Op::Delete(_) => Reply::Deleted,
        Op::Acquire(..) | Op::TryAcquire(..) => {
            Reply::Acquired { lock_generation: Generation(node.lock_generation) }
        }
        Op::Release(_) => Reply::Released,
        Op::SetAcl { .. } => Reply::AclSet { acl_generation: Generation(2) },
        Op::GetSequencer(_) => Reply::Sequencer(SequencerToken::new(Bytes::new())),
        Op::CheckSequencer(_) => Reply::SequencerStands,
        Op::EndClient(_) | Op::Settle(_) | Op::Claim => Reply::Noted,
        Op::Open(_)
        | Op::GetContentsAndStat(_)
        | Op::GetStat(_)
        | Op::ReadDir(_)
        | Op::Refresh(_)
        | Op::Cross(_) => {
            panic!("no write: {op:?}")
        }
    }
}

/// Everything is guarded by the ACL `staff`.
fn acls(_: &Name) -> AclNames {
    AclNames { read: "staff".into(), ..AclNames::default() }
}

fn acl_file(acl: &str) -> Name {
    Name::parse(&format!("/ls/dev/acl/{acl}")).expect("good")
}

fn stat(name: &Name, node: &Node) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(node.generation),
        lock_generation: Generation(node.lock_generation),
        acl_generation: Generation(1),
        checksum: 0,
        length: node.contents.len() as u64,
        ephemeral: false,
        acls: acls(name),
    }
}
