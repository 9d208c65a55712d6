//! An application: the library's machine as it runs in production, and a script that makes one call after the other.

mod beliefs;
mod silence;
mod views;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hasp_client::machine::{
    ApplicationCore, Call, CallId, CoreOptions, HandleNumber, Input, Opening, Output,
};
use hasp_proto::client::Event;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{LockMode, NodeKind};
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Create, Op, Open, Reply, Use};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::stream::News;
use hasp_router::upstream::{Begin, Hosts, UpstreamConfig, UpstreamCore};

use super::check;
use super::clock::Moment;
use super::history::{Asked, Told, What};
use super::script::{self, Step, Taste};
use super::world::{HEALED, Happening, LAST_LOOK, NodeId, World, drive};
use views::Views;

/// After so many calls a replica's tree is looked at.
const LOOK_AT_TREE: usize = 400;

/// One application.
#[derive(Debug)]
pub struct Client {
    /// Anew each time it starts.
    pub core: ApplicationCore,
    taste: Taste,
    hands: BTreeMap<(Name, u8), Hand>,
    /// Handles that are told of events, and where the history has them.
    watches: BTreeMap<HandleNumber, usize>,
    doing: Option<Doing>,
    calls: u64,
    /// Cells of which it was told that what it held there is lost.
    lost: BTreeSet<CellName>,
    views: Views,
    /// What is looked at last.
    last_looks: Vec<Name>,
    has_looked: bool,
}

/// An open handle.
#[derive(Clone, Debug)]
pub struct Hand {
    number: HandleNumber,
    token: HandleToken,
    cell: CellName,
    instance: Instance,
    /// The lock that it holds, as its application believes.
    pub lock: Option<(LockMode, u64)>,
    sequencer: Option<SequencerToken>,
    /// Of the contents last read.
    seen: Option<Generation>,
    is_over: bool,
}

/// A call under way.
#[derive(Clone, Debug)]
struct Doing {
    call: CallId,
    /// In the history.
    asked: usize,
    hand: (Name, u8),
    opening: Opening,
    lock_delay: Duration,
}

const fn of_use(r#use: Use) -> u8 {
    match r#use {
        Use::Read => 0,
        Use::WriteAndLock => 1,
        Use::ChangeAcl => 2,
    }
}

impl World {
    /// An application that is about to start.
    pub fn new_client(&mut self, index: usize) -> Client {
        let mut taste = Taste::draw(&mut self.random, index);
        let goes_direct = self.plan.proxies == 0 || index % 4 == 3;
        let hosts = if goes_direct {
            Hosts::Cells(self.map.clone())
        } else {
            let known = self.plan.first_known..self.plan.proxies;
            Hosts::one(known.map(|at| NodeId::Proxy(at).address()).collect::<Vec<_>>())
        };
        if goes_direct {
            self.history.alone.insert(index);
        }
        if self.plan.has_ring && !goes_direct {
            // Cells alone cannot say what becomes of these.
            taste.spreads = *self.random.pick(self.plan.spreads);
        }
        if self.plan.has_moves && !goes_direct {
            taste.repartitions = self.plan.repartitions;
        }
        let principal = script::principal(index);
        let config = UpstreamConfig {
            begin: Begin::AtFirstUse,
            grace: self.plan.grace,
            ..UpstreamConfig::application(hosts, &principal, self.random.bytes())
        };
        let options = CoreOptions {
            principal,
            cache_bytes: taste.caches.then_some(1 << 20),
            ends_idle: true,
            follows: Vec::new(),
        };
        let upstream = UpstreamCore::new(self.local(NodeId::Client(index)), config);
        Client {
            core: ApplicationCore::new(upstream, &options),
            taste,
            hands: BTreeMap::new(),
            watches: BTreeMap::new(),
            doing: None,
            calls: 0,
            lost: BTreeSet::new(),
            views: Views::default(),
            last_looks: (0..self.plan.cells).flat_map(|cell| script::of_cell(cell).files).collect(),
            has_looked: false,
        }
    }

    /// It starts anew.
    pub fn start_client(&mut self, index: usize) {
        self.clients[index] = self.new_client(index);
        self.client_inputs(index, []);
        self.think_soon(index);
    }

    /// It is gone: nobody hears what its call comes to.
    pub fn client_crashed(&mut self, index: usize) {
        self.clients[index].doing = None;
        self.clients[index].hands.clear();
        for number in self.clients[index].watches.keys().copied().collect::<Vec<_>>() {
            self.watch_ends(index, number);
        }
    }

    fn think_soon(&mut self, index: usize) {
        let think = self.clients[index].taste.think;
        let pause = Duration::from_micros(self.random.between(1_000, 1_000 + think.as_micros() as u64));
        let life = self.lives[&NodeId::Client(index)].number;
        self.schedule.add(self.now + pause, Happening::Think(index, life));
    }

    /// Hands inputs to the machine and carries out what it wants.
    pub fn client_inputs(&mut self, index: usize, inputs: impl IntoIterator<Item = Input>) {
        let node = NodeId::Client(index);
        if !self.is_awake(node) {
            return;
        }
        let now = self.local(node);
        let mut outputs = Vec::new();
        let due = drive(&mut self.clients[index].core, now, inputs, &mut outputs);
        self.wake_at(node, due);
        for output in outputs {
            self.client_wants(index, output);
        }
    }

    fn client_wants(&mut self, index: usize, output: Output) {
        let node = NodeId::Client(index);
        match output {
            Output::Connect(link, address) => self.connect(node, link, &address),
            Output::Disconnect(link) => self.disconnect(node, &link),
            Output::Send(link, up) => self.send_up(node, &link, up),
            Output::Answered(call, answer) => self.answered(index, call, answer, None),
            Output::Opened(call, answer, opened) => {
                self.note_watch(index, call, &answer, &opened);
                let hand = match &answer.result {
                    Ok(Reply::Opened { handle, stat, .. }) => Some(Hand {
                        number: opened.number,
                        token: handle.clone(),
                        cell: opened.cell,
                        instance: stat.instance,
                        lock: None,
                        sequencer: None,
                        seen: None,
                        is_over: false,
                    }),
                    _ => None,
                };
                self.answered(index, call, answer, hand);
            }
            Output::Event(cell, event) => {
                self.story.tell(self.now, node, format_args!("{event:?}"));
                if let Event::News(_, News::CellLost { cell }) | Event::CellLost(cell) = &event {
                    self.clients[index].lost.insert(cell.clone());
                }
                if cell.is_none() && matches!(event, Event::Expired(_)) {
                    let soon = self.random.millis(1, 500);
                    self.schedule.add(self.now + soon, Happening::Fault(super::faults::Fault::Restart(node)));
                }
            }
            Output::Tell(number, event) => self.hear(index, number, event),
            Output::Over(number) => {
                self.watch_ends(index, number);
                for hand in self.clients[index].hands.values_mut().filter(|hand| hand.number == number) {
                    (hand.is_over, hand.lock) = (true, None);
                }
            }
            Output::Closed(number) => {
                self.watch_ends(index, number);
                self.clients[index].hands.retain(|_, hand| hand.number != number);
            }
            Output::Show(shown) => self.clients[index].views.show(*shown),
            Output::Hide(name) => drop(self.clients[index].views.shown.remove(&name)),
            Output::CacheLease(cell, end) => self.clients[index].views.set_cache_lease(cell, end),
        }
    }

    /// The next step of a script.
    pub fn think(&mut self, index: usize, life: u64) {
        if self.lives[&NodeId::Client(index)].number != life || self.clients[index].doing.is_some() {
            return;
        }
        if self.history.asked.len().is_multiple_of(LOOK_AT_TREE) {
            check::tree::check_any(self);
        }
        if let Some(moves_at) = silence::part(self.plan.silence, index) {
            return self.think_until_silent(index, moves_at);
        }
        let cells = self.plan.cells;
        let client = &mut self.clients[index];
        if self.now >= LAST_LOOK {
            let Some(name) = client.last_looks.pop() else {
                client.has_looked = true;
                return;
            };
            return self.take(index, Step::Read(name));
        }
        let holds =
            client.hands.iter().find(|(_, hand)| hand.lock.is_some()).map(|((name, _), _)| name.clone());
        let step = client.taste.next(&mut self.random, cells, holds.as_ref());
        self.take(index, step);
    }

    fn take(&mut self, index: usize, step: Step) {
        if step == Step::Repartition {
            return self.repartition(index);
        }
        let (name, r#use) = match &step {
            Step::Repartition => unreachable!("dealt with above"),
            Step::Read(name) | Step::Stat(name) | Step::List(name) => (name.clone(), Use::Read),
            Step::Close(name, r#use) => (name.clone(), *r#use),
            Step::Write(name)
            | Step::Swap(name)
            | Step::Guarded(name)
            | Step::Create(name, _)
            | Step::Delete(name)
            | Step::Acquire(name, _)
            | Step::TryAcquire(name, _)
            | Step::Release(name) => (name.clone(), Use::WriteAndLock),
            Step::SetAcl(name, _) => (name.clone(), Use::ChangeAcl),
        };
        let key = (name.clone(), of_use(r#use));
        let hand = self.clients[index].hands.get(&key).cloned();
        let life = self.lives[&NodeId::Client(index)].number;
        let contents = script::contents(index, life, self.history.asked.len());
        let contents = if script::is_acl_file(&name) {
            script::principals(&mut self.random, &contents)
        } else {
            contents
        };
        let Some(hand) = hand.filter(|_| !matches!(step, Step::Create(..))) else {
            return self.open(index, &step, name, r#use, contents);
        };
        if hand.is_over || matches!(step, Step::Close(..)) {
            self.clients[index].hands.remove(&key);
            self.watch_ends(index, hand.number);
            self.client_inputs(index, [Input::Close(hand.number)]);
            return self.think_soon(index);
        }
        let token = hand.token.clone();
        let mut guard = None;
        let (what, op) = match step {
            Step::Read(_) => {
                let local = self.local(NodeId::Client(index));
                let found = self.clients[index].views.find(local, &hand, &name);
                if let Some((reply, position)) = found.filter(|_| self.random.chance(700)) {
                    return self.found(index, name, reply, position);
                }
                (What::Read, Op::GetContentsAndStat(token))
            }
            Step::Stat(_) => (What::Stat, Op::GetStat(token)),
            Step::List(_) => (What::List, Op::ReadDir(token)),
            Step::Write(_) | Step::Swap(_) => {
                let if_generation = hand.seen.filter(|_| matches!(step, Step::Swap(_)));
                (What::Write(contents.clone()), Op::SetContents { handle: token, contents, if_generation })
            }
            Step::Guarded(_) => {
                let held = self.clients[index].hands.iter().find_map(|((lock, _), hand)| {
                    Some((
                        lock.clone(),
                        hand.lock?.1,
                        hand.number,
                        hand.token.clone(),
                        hand.sequencer.clone(),
                    ))
                });
                let Some((lock, lock_generation, number, lock_token, sequencer)) = held else {
                    return self.think_soon(index);
                };
                let Some(sequencer) = sequencer else {
                    let key = (lock.clone(), of_use(Use::WriteAndLock));
                    let call = Call { on: Some(number), ..Op::GetSequencer(lock_token).into() };
                    return self.ask(index, lock, Use::WriteAndLock, What::Sequencer, call, key);
                };
                guard = Some(sequencer);
                let what = What::Guarded { contents: contents.clone(), lock, lock_generation };
                (what, Op::SetContents { handle: token, contents, if_generation: None })
            }
            Step::Delete(_) => (What::Delete, Op::Delete(token)),
            Step::SetAcl(_, acls) => {
                (What::SetAcl(acls.clone()), Op::SetAcl { handle: token, acls, if_generation: None })
            }
            Step::Acquire(_, mode) => (What::Acquire(mode), Op::Acquire(token, mode)),
            Step::TryAcquire(_, mode) => (What::Acquire(mode), Op::TryAcquire(token, mode)),
            Step::Release(_) => {
                if let Some(hand) = self.clients[index].hands.get_mut(&key) {
                    (hand.lock, hand.sequencer) = (None, None);
                }
                (What::Release, Op::Release(token))
            }
            Step::Create(..) | Step::Close(..) | Step::Repartition => unreachable!("dealt with above"),
        };
        let call = Call { on: Some(hand.number), guard, ..op.into() };
        self.ask(index, name, r#use, what, call, key);
    }

    /// Writes the map that is to follow the one of now.
    fn repartition(&mut self, index: usize) {
        let name = script::map_file();
        let key = (name.clone(), of_use(Use::WriteAndLock));
        let Some(hand) = self.clients[index].hands.get(&key).filter(|hand| !hand.is_over).cloned() else {
            self.clients[index].hands.remove(&key);
            return self.open(index, &Step::Write(name.clone()), name, Use::WriteAndLock, Bytes::new());
        };
        let home = &self.history.truths[self.map.home()].state;
        let next = home.genesis().and_then(|_| match self.plan.silence {
            Some(_) => script::emptied(home.map()),
            None => script::next_map(&mut self.random, home.map(), self.plan.has_ring),
        });
        let Some(next) = next else { return self.think_soon(index) };
        let remark =
            script::contents(index, self.lives[&NodeId::Client(index)].number, self.history.asked.len());
        let contents = Bytes::from([b"# ", &*remark, b"\n", next.to_file().as_bytes()].concat());
        let what = What::Write(contents.clone());
        let op = Op::SetContents { handle: hand.token, contents, if_generation: None };
        let call = Call { on: Some(hand.number), ..op.into() };
        self.ask(index, name, Use::WriteAndLock, what, call, key);
    }

    fn open(&mut self, index: usize, step: &Step, name: Name, r#use: Use, contents: Bytes) {
        let is_child = name.parent().is_some_and(|parent| parent.component() == "d");
        let is_directory = name.component() == "d" || script::is_spread(&name);
        let kind = if is_directory { NodeKind::Directory } else { NodeKind::File };
        let creates = match step {
            Step::Create(_, ephemeral) => Some(*ephemeral),
            _ if script::is_of_ring(&name) => None,
            _ if name == script::map_file() => None,
            _ => (!is_child && r#use == Use::WriteAndLock || kind == NodeKind::Directory).then_some(false),
        };
        let contents = if kind == NodeKind::Directory { Bytes::new() } else { contents };
        let create = creates.map(|ephemeral| Create {
            must: false,
            kind,
            contents: contents.clone(),
            ephemeral,
            acls: script::is_guarded(&name).then(script::open_to_all),
        });
        let what = if create.is_some() { What::Create(contents) } else { What::Open };
        let keeps_lock = self.clients[index].taste.keeps_locks && name.component().starts_with('l');
        let told = self.clients[index].taste.events(&mut self.random);
        let kept = if keeps_lock { EventMask::of([EventKind::LockConflict]) } else { EventMask::NONE };

        let events = told.and(kept);
        let lock_delay = self.random.millis(0, 2_000);
        let open = Open { create, lock_delay, events, ..Open::existing(name.clone(), r#use) };
        let opening = Opening { told, keeps_lock };
        let key = (name.clone(), of_use(r#use));
        self.ask(index, name, r#use, what, Call { opening, ..Op::Open(open).into() }, key);
    }

    fn ask(&mut self, index: usize, name: Name, r#use: Use, what: What, call: Call, hand: (Name, u8)) {
        let lock_delay = match &call.op {
            Op::Open(open) => open.lock_delay,
            _ => Duration::ZERO,
        };
        let client = &mut self.clients[index];
        let is_open = matches!(what, What::Open | What::Create(_));
        let instance = client.hands.get(&hand).filter(|_| !is_open).map(|hand| hand.instance);
        client.calls += 1;
        let id = CallId(client.calls);
        let (asked, opening) = (self.history.asked.len(), call.opening);
        client.doing = Some(Doing { call: id, asked, hand, opening, lock_delay });
        let life = self.lives[&NodeId::Client(index)].number;
        self.story.tell(self.now, NodeId::Client(index), format_args!("asks {what:?} {name}"));
        let may_wait = matches!(call.op, Op::Acquire(..));
        let begun = self.now;
        self.history.asked.push(Asked {
            client: index,
            life,
            name,
            r#use,
            instance,
            what,
            begun,
            told: None,
        });
        if may_wait {
            let patience = self.random.millis(500, 4_000);
            self.schedule.add(self.now + patience, Happening::GiveUp(index, life, id));
        }
        self.client_inputs(index, [Input::Ask(id, call)]);
    }

    /// A read was answered beside the machine.
    fn found(&mut self, index: usize, name: Name, reply: Reply, position: Position) {
        let life = self.lives[&NodeId::Client(index)].number;
        let told = Told { at: self.now, is_cached: true, position: Some(position), result: Ok(reply) };
        self.counts.cached_reads += 1;
        self.counts.answers += 1;
        let at = told.position.as_ref().map(ToString::to_string).unwrap_or_default();
        self.story.tell(self.now, NodeId::Client(index), format_args!("finds {name} as of {at} in its view"));
        let (begun, told) = (self.now, Some(told));
        let what = What::Read;
        let (r#use, instance) = (Use::Read, None);
        self.history.asked.push(Asked { client: index, life, name, r#use, instance, what, begun, told });
        self.think_soon(index);
    }

    fn answered(&mut self, index: usize, call: CallId, answer: Answer, hand: Option<Hand>) {
        let Some(doing) = self.clients[index].doing.take_if(|doing| doing.call == call) else { return };
        let Answer { position, result, .. } = answer;
        let result = result.map_err(|error| error.code);
        let node = NodeId::Client(index);
        if self.story.is_told() {
            let told = format!("{result:?}").chars().take(160).collect::<String>();
            let at = position.as_ref().map(ToString::to_string).unwrap_or_default();
            self.story.remark(self.now, node, format_args!("is told {told} at {at}"));
        }
        let asked = &mut self.history.asked[doing.asked];
        let is_cached = asked.begun == self.now && position.is_some();
        asked.told =
            Some(Told { at: self.now, is_cached, position: position.clone(), result: result.clone() });
        self.counts.answers += 1;
        self.counts.cached_reads += u64::from(is_cached);
        let what = asked.what.clone();
        self.counts.writes += u64::from(asked.has_changed() && !matches!(what, What::Acquire(_)));
        self.counts.acl_changes += u64::from(asked.changes_rights());
        self.counts.denials += u64::from(result == Err(ErrorCode::PermissionDenied));
        let client = &mut self.clients[index];
        if let Some(position) = &position {
            client.views.saw(position);
        }
        if let Some(hand) = hand {
            let older = client.hands.insert(doing.hand.clone(), hand);
            if let Some(older) = older {
                self.watch_ends(index, older.number);
                self.client_inputs(index, [Input::Close(older.number)]);
            }
        }
        self.learn(index, &doing.hand, &what, &result);
        self.think_soon(index);
    }

    fn learn(&mut self, index: usize, key: &(Name, u8), what: &What, result: &Result<Reply, ErrorCode>) {
        let client = &mut self.clients[index];
        let Some(hand) = client.hands.get_mut(key) else { return };
        match (what, result) {
            (What::Acquire(mode), Ok(Reply::Acquired { lock_generation })) => {
                (hand.lock, hand.sequencer) = (Some((*mode, lock_generation.0)), None);
                self.counts.locks += 1;
                self.check_locks();
            }
            (_, Ok(Reply::Sequencer(sequencer))) => hand.sequencer = Some(sequencer.clone()),
            (_, Ok(Reply::Contents { stat, .. })) => hand.seen = Some(stat.content_generation),
            (_, Ok(Reply::Written { content_generation, .. })) => {
                hand.seen = Some(*content_generation);
            }
            (_, Err(ErrorCode::StaleHandle | ErrorCode::SessionExpired)) => {
                (hand.is_over, hand.lock) = (true, None);
            }
            (_, Err(ErrorCode::SequencerInvalid)) => {
                for hand in client.hands.values_mut() {
                    hand.sequencer = None;
                }
            }
            _ => {}
        }
    }

    /// Nobody waits for a lock any longer.
    pub fn give_up(&mut self, index: usize, life: u64, call: CallId) {
        if self.lives[&NodeId::Client(index)].number != life {
            return;
        }
        if self.clients[index].doing.take_if(|doing| doing.call == call).is_some() {
            self.client_inputs(index, [Input::Abandon(call)]);
            self.think_soon(index);
        }
    }

    /// Clients that still wait for something, and since when.
    pub fn waiting(&self) -> Vec<(usize, Option<Moment>)> {
        let is_waiting = |(index, client): (usize, &Client)| {
            let since = client.doing.as_ref().map(|doing| self.history.asked[doing.asked].begun);
            (since.is_some() || !client.has_looked).then_some((index, since))
        };
        self.clients.iter().enumerate().filter_map(is_waiting).collect()
    }

    /// Whether faults are over.
    pub fn is_healed(&self) -> bool {
        self.now >= HEALED
    }
}
