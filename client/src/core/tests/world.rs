//! An application with one session at one host, and what the host was asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::event::{EventKind, EventMask, NodeEvent};
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::id::{Epoch, Generation, Instance, Sequence, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::node::{AclNames, NodeKind, Stat};
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Open, Request, Use};
use hasp_proto::stream::{Down, Grant, News, Up, Welcome};
use hasp_router::upstream::{Begin, Hosts, LinkId, UpstreamConfig};

use super::super::*;

pub(super) const ME: &str = "me";

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) const fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}

pub(super) fn at(index: u64) -> Position {
    Position { cell: CellName::new("a"), epoch: Epoch(1), index }
}

pub(super) fn granted(generation: u64) -> Result<Reply, ErrorCode> {
    Ok(Reply::Acquired { lock_generation: Generation(generation) })
}

pub(super) fn everything() -> ItemKinds {
    ItemKinds::of(ItemKind::ALL)
}

pub(super) fn item(text: &str, kind: ItemKind) -> Item {
    Item::new(name(text), kind)
}

pub(super) fn stat() -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(4),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 5,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

pub(super) fn contents(text: &'static str) -> Result<Reply, ErrorCode> {
    Ok(Reply::Contents { contents: Bytes::from_static(text.as_bytes()), stat: stat() })
}

pub(super) fn happened(kind: EventKind, index: u64) -> NodeEvent {
    let (name, position) = (name("/ls/dev/f"), at(index));
    NodeEvent { kind, name, instance: Instance(4), child: None, to: None, position }
}

pub(super) struct World {
    pub(super) core: ApplicationCore,
    pub(super) now: Time,
    pub(super) link: Option<LinkId>,
    pub(super) sessions: Vec<SessionId>,
    /// Of each connection the last KeepAlive, and when it was sent.
    keep_alives: BTreeMap<LinkId, (u64, Time)>,
    /// Whose session speaks on each connection.
    speakers: BTreeMap<LinkId, SessionId>,
    sequence: u64,
    calls: u64,
    /// How the next Hello is answered.
    pub(super) resumes: bool,
    pub(super) welcomes: bool,
    /// What hosts say is lost when they welcome a session.
    pub(super) lost_cells: Vec<CellName>,
    pub(super) lease: Duration,
    /// Where it wanted to connect.
    pub(super) connects: Vec<String>,
    /// Nobody can be connected to.
    pub(super) is_cut_off: bool,
    pub(super) asked: Vec<Request>,
    /// On which connections.
    asked_on: Vec<LinkId>,
    pub(super) cancelled: Vec<RequestNumber>,
    pub(super) answered: Vec<(CallId, Answer)>,
    pub(super) opened: BTreeMap<CallId, HandleNumber>,
    pub(super) closed: Vec<HandleNumber>,
    pub(super) over: Vec<HandleNumber>,
    pub(super) told: Vec<(HandleNumber, HandleEvent)>,
    pub(super) shown: BTreeMap<Name, Shown>,
    pub(super) cache_lease: Option<Time>,
    pub(super) events: Vec<hasp_proto::client::Event>,
    /// What came out, in order, as far as order matters.
    pub(super) log: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&CoreOptions {
            principal: ME.into(),
            cache_bytes: Some(1 << 20),
            ends_idle: true,
            follows: Vec::new(),
        })
    }

    pub(super) fn with(options: &CoreOptions) -> Self {
        let world = Self::at(Hosts::one(vec!["p:1".into()]), Begin::AtOnce, options);
        assert!(!world.sessions.is_empty(), "welcomed");
        world
    }

    /// With the list of proxies followed, these given, and a lease that lasts.
    pub(super) fn following(hosts: &[&str]) -> Self {
        let follows: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let hosts = Hosts::one(follows.clone());
        let options =
            CoreOptions { principal: ME.into(), cache_bytes: Some(1 << 20), ends_idle: true, follows };
        Self::under(hosts, Begin::AtOnce, &options, Duration::from_secs(3_600))
    }

    /// With a session at each of two cells, `a` and, below `/ls/dev/b`, `b`, once something is asked there.
    pub(super) fn with_cells() -> Self {
        let options = CoreOptions {
            principal: ME.into(),
            cache_bytes: Some(1 << 20),
            ends_idle: true,
            follows: Vec::new(),
        };
        let cells = ["a", "b"].map(|name| (CellName::new(name), vec![format!("{name}:1")])).into();
        let map = PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], cells).unwrap();
        Self::at(Hosts::Cells(map), Begin::AtFirstUse, &options)
    }

    fn at(hosts: Hosts, begin: Begin, options: &CoreOptions) -> Self {
        Self::under(hosts, begin, options, Duration::from_secs(12))
    }

    fn under(hosts: Hosts, begin: Begin, options: &CoreOptions, lease: Duration) -> Self {
        let config = UpstreamConfig { begin, ..UpstreamConfig::application(hosts, ME, [7; 32]) };
        let mut world = Self {
            core: ApplicationCore::new(UpstreamCore::new(Time::ZERO, config), options),
            now: Time::ZERO,
            link: None,
            sessions: Vec::new(),
            keep_alives: BTreeMap::new(),
            speakers: BTreeMap::new(),
            sequence: 0,
            calls: 0,
            resumes: true,
            welcomes: true,
            lost_cells: Vec::new(),
            lease,
            connects: Vec::new(),
            is_cut_off: false,
            asked: Vec::new(),
            asked_on: Vec::new(),
            cancelled: Vec::new(),
            answered: Vec::new(),
            opened: BTreeMap::new(),
            closed: Vec::new(),
            over: Vec::new(),
            told: Vec::new(),
            shown: BTreeMap::new(),
            cache_lease: None,
            events: Vec::new(),
            log: Vec::new(),
        };
        world.core.handle_timeout(Time::ZERO);
        world.settle();
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.settle();
    }

    /// Lets that time come, through everything that is due before.
    pub(super) fn wait_until(&mut self, until: Time) {
        while let Some((due, _)) = self.core.poll_timeout().filter(|(due, _)| *due <= until) {
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn settle(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect(link, address) => {
                    self.connects.push(address);
                    let happens =
                        if self.is_cut_off { Input::Disconnected(link) } else { Input::Connected(link) };
                    self.core.handle(self.now, happens);
                }
                Output::Send(link, up) => self.sent(link, up),
                Output::Answered(call, answer) => self.answered.push((call, answer)),
                Output::Opened(call, answer, opened) => {
                    self.opened.insert(call, opened.number);
                    self.answered.push((call, answer));
                }
                Output::Closed(handle) => self.closed.push(handle),
                Output::Over(handle) => self.over.push(handle),
                Output::Tell(handle, event) => {
                    self.log.push(format!("tell {}", handle.0));
                    self.told.push((handle, event));
                }
                Output::Show(shown) => drop(self.shown.insert(shown.name.clone(), *shown)),
                Output::Hide(name) => {
                    self.shown.remove(&name);
                    self.log.push(format!("hide {name}"));
                }
                Output::CacheLease(_, end) => self.cache_lease = end,
                Output::Event(_, event) => self.events.push(event),
                Output::Disconnect(_) => {}
            }
        }
        self.core.check_invariants();
    }

    fn sent(&mut self, link: LinkId, up: Up) {
        match up {
            Up::Hello(hello) => {
                self.link = Some(link.clone());
                self.speakers.insert(link.clone(), hello.key.id());
                let is_known = self.resumes && self.sessions.contains(&hello.key.id());
                if !is_known {
                    self.sequence = 0;
                }
                self.sessions.push(hello.key.id());
                if self.welcomes {
                    let welcome = Welcome {
                        session: hello.key.id(),
                        resumed: is_known,
                        grant: self.grant(),
                        master_of: None,
                        handle_keys: Vec::new(),
                        lost_cells: self.lost_cells.clone(),
                    };
                    self.core.handle(self.now, Input::Received(link, vec![Down::Welcome(welcome)]));
                }
            }
            Up::Request(request) => {
                self.log.push(request.op.name().into());
                self.asked.push(request);
                self.asked_on.push(link);
            }
            Up::Cancel(number) => self.cancelled.push(number),
            Up::Acknowledge(sequence) => self.log.push(format!("acknowledge {sequence}")),
            Up::KeepAlive(keep_alive) => {
                self.keep_alives.insert(link, (keep_alive.number, self.now));
            }
            Up::EndSession => self.log.push("end".into()),
        }
    }

    fn grant(&self) -> Grant {
        Grant { held: Duration::ZERO, session: self.lease, cache: self.lease }
    }

    pub(super) fn receive(&mut self, items: Vec<Down>) {
        let link = self.link.clone().expect("linked");
        self.input(Input::Received(link, items));
    }

    /// The host answers the KeepAlive.
    pub(super) fn extend(&mut self) {
        let link = self.link.clone().expect("linked");
        let (keep_alive, sent) = self.keep_alives[&link];
        let grant = Grant { held: self.now.saturating_since(sent), ..self.grant() };
        let lease = Down::Lease { keep_alive, grant };
        self.receive(vec![lease]);
    }

    pub(super) fn lose_connection(&mut self) {
        let link = self.link.take().expect("linked");
        self.input(Input::Disconnected(link));
    }

    /// The next piece of news, as an item.
    pub(super) fn news(&mut self, item: News) -> Down {
        self.sequence += 1;
        Down::News { sequence: Sequence(self.sequence), item }
    }

    pub(super) fn tell(&mut self, item: News) {
        let down = self.news(item);
        self.receive(vec![down]);
    }

    pub(super) fn invalidate(&mut self, item: Item, index: u64) {
        self.tell(News::Invalidate { items: vec![item], floor: at(index) });
    }

    pub(super) fn ask(&mut self, call: Call) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        self.input(Input::Ask(id, call));
        id
    }

    pub(super) fn answer(&mut self, number: RequestNumber, result: Result<Reply, ErrorCode>) {
        self.answer_at(number, 10, ItemKinds::NONE, result);
    }

    pub(super) fn answer_at(
        &mut self,
        number: RequestNumber,
        index: u64,
        caches: ItemKinds,
        result: Result<Reply, ErrorCode>,
    ) {
        let result = result.map_err(|code| code.because("so says the host"));
        let position = Some(Position { cell: self.cell_of_last(), ..at(index) });
        let answer = Answer { position, caches, ..Answer::plain(number, result) };
        let asked = self.asked.iter().rposition(|request| request.number == number).expect("asked");
        self.input(Input::Received(self.asked_on[asked].clone(), vec![Down::Answer(answer)]));
    }

    pub(super) fn answer_last(&mut self, result: Result<Reply, ErrorCode>) {
        let number = self.asked.last().expect("asked").number;
        self.answer(number, result);
    }

    /// Answers the last request, and lets it be cached.
    pub(super) fn answer_to_cache(&mut self, index: u64, result: Result<Reply, ErrorCode>) {
        let number = self.asked.last().expect("asked").number;
        self.answer_at(number, index, everything(), result);
    }

    /// The cell that the last request belongs to.
    fn cell_of_last(&self) -> CellName {
        let name = match self.asked.last().map(|request| &request.op) {
            Some(Op::Open(open)) => Some(open.name.clone()),
            Some(op) => op.handle().and_then(HandleToken::claimed_body).map(|body| body.name),
            None => None,
        };
        CellName::new(if name.is_some_and(|name| name.as_str().starts_with("/ls/dev/b/")) {
            "b"
        } else {
            "a"
        })
    }

    /// What the cell says to the last request, which was an `Open`.
    fn opened_reply(&self) -> Result<Reply, ErrorCode> {
        let request = self.asked.last().expect("asked");
        let Op::Open(open) = &request.op else { panic!("an open, not {:?}", request.op) };
        let ephemeral = open.create.as_ref().is_some_and(|create| create.ephemeral);
        let handle = HandleKey::new(Bytes::from_static(&[1; 32])).seal(&HandleBody {
            cell: self.cell_of_last(),
            name: name(&open.name.as_str().replace("/ls/local", "/ls/dev")),
            instance: Instance(4),
            kind: NodeKind::File,
            r#use: open.r#use,
            session: self.speakers[self.asked_on.last().expect("asked")],
            opened_by: request.number,
            epoch: Epoch(1),
            lock_delay: open.lock_delay,
            events: open.events,
            ephemeral,
        });
        Ok(Reply::Opened { handle, created: open.create.is_some(), stat: Stat { ephemeral, ..stat() } })
    }

    pub(super) fn answer_open(&mut self) {
        let reply = self.opened_reply();
        self.answer_last(reply);
    }

    /// Opens a node that the host knows; it lets the answer be cached.
    pub(super) fn open_with(&mut self, open: Open, opening: Opening) -> HandleNumber {
        let asked = self.asked.len();
        let id = self.ask(Call { opening, ..Op::Open(open).into() });
        if self.asked.len() > asked {
            let reply = self.opened_reply();
            self.answer_to_cache(10, reply);
        }
        self.opened[&id]
    }

    pub(super) fn open(&mut self, text: &str, r#use: Use) -> HandleNumber {
        self.open_with(Open::existing(name(text), r#use), Opening::default())
    }

    /// Opens a node of which nothing may be kept.
    pub(super) fn open_uncached(&mut self, text: &str) -> HandleNumber {
        let id = self.ask(Op::Open(Open::existing(name(text), Use::Read)).into());
        self.answer_open();
        self.opened[&id]
    }

    pub(super) fn open_to_write(&mut self, text: &str) -> HandleNumber {
        self.open(text, Use::WriteAndLock)
    }

    pub(super) fn open_with_events(&mut self, text: &str, kinds: &[EventKind]) -> HandleNumber {
        let events = EventMask::of(kinds.iter().copied());
        let open = Open { events, ..Open::existing(name(text), Use::Read) };
        self.open_with(open, Opening { told: events, keeps_lock: false })
    }

    pub(super) fn on(&self, handle: HandleNumber, op: impl FnOnce(HandleToken) -> Op) -> Call {
        let token = self.core.handles.get(handle).map(|handle| handle.token.clone());
        let token = token.unwrap_or_else(|| HandleToken::new(Bytes::from_static(b"closed")));
        Call { on: Some(handle), ..op(token).into() }
    }

    pub(super) fn read(&mut self, handle: HandleNumber) -> CallId {
        self.ask(self.on(handle, Op::GetContentsAndStat))
    }

    pub(super) fn acquire(&mut self, handle: HandleNumber) -> CallId {
        self.acquire_as(handle, LockMode::Exclusive)
    }

    pub(super) fn acquire_as(&mut self, handle: HandleNumber, mode: LockMode) -> CallId {
        self.ask(self.on(handle, |token| Op::Acquire(token, mode)))
    }

    pub(super) fn release(&mut self, handle: HandleNumber) -> CallId {
        self.ask(self.on(handle, Op::Release))
    }

    pub(super) fn result(&self, call: CallId) -> Option<&Answer> {
        self.answered.iter().find(|(id, _)| *id == call).map(|(_, answer)| answer)
    }

    pub(super) fn code(&self, call: CallId) -> Option<ErrorCode> {
        self.result(call)?.result.as_ref().err().map(|error| error.code.clone())
    }

    /// The lock generation that the call was answered with.
    pub(super) fn acquired(&self, call: CallId) -> Option<u64> {
        match &self.result(call)?.result {
            Ok(Reply::Acquired { lock_generation }) => Some(lock_generation.0),
            _ => None,
        }
    }

    /// The text that the call was answered with.
    pub(super) fn text(&self, call: CallId) -> Option<&str> {
        match &self.result(call)?.result {
            Ok(Reply::Contents { contents, .. }) => std::str::from_utf8(contents).ok(),
            _ => None,
        }
    }

    /// The last that the host was asked, by name.
    pub(super) fn last(&self) -> &'static str {
        self.asked.last().map_or("nothing", |request| request.op.name())
    }

    /// How often the host was asked that.
    pub(super) fn count(&self, op: &str) -> usize {
        self.asked.iter().filter(|request| request.op.name() == op).count()
    }
}
