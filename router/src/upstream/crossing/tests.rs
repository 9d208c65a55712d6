//! What becomes of requests that need more than one cell, with the cells played by hand.

mod acls;
mod chores;
mod directories;
mod following;
mod histories;
mod moving;
mod revocations;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::client::{Ask, NewsId};
use hasp_proto::crossing::{Anchor, CrossOp, Evidence, Need};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{
    CellName, Claim, Epoch, Generation, Instance, RequestNumber, Sequence, SessionId, SessionKey,
};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind, Stat};
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, OnBehalf, Op, Open, Reply, Request, Use};
use hasp_proto::stream::{Down, Grant, News, Role, Up, Welcome};
use hasp_proto::time::Time;

use super::super::{Hosts, LinkId, Output, Ticket, UpstreamConfig, UpstreamCore};
use hasp_proto::client::Event;

/// Split: its node is in `p`, its children are in `c`. The home cell is `h`.
const D: &str = "/ls/dev/p/d";
/// The home cell's cache lease ends then, if it is not extended: 12 s by a clock that may be slow.
const LEASE_END: Time = Time::from_micros(11_881_188);

const fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

fn map() -> PartitionMap {
    let cells = ["c", "h", "p"].map(|cell| (CellName::new(cell), vec![format!("{cell}:1")])).into();
    let rules = [("/ls/dev", "h"), ("/ls/dev/p", "p"), (D, "c")];
    PartitionMap::new(1, "dev", rules, cells).expect("a good map")
}

fn handle(cell: &str, node: &str, kind: NodeKind) -> HandleToken {
    HandleKey::new(Bytes::from_static(&[1; 32])).seal(&HandleBody {
        cell: CellName::new(cell),
        name: name(node),
        instance: Instance(7),
        kind,
        r#use: Use::ChangeAcl,
        session: client(1).session,
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: LOCK_DELAY,
        events: EventMask::NONE,
        ephemeral: false,
    })
}

/// The split directory's.
fn directory() -> HandleToken {
    handle("p", D, NodeKind::Directory)
}

/// Of alice.
fn client(number: u64) -> OnBehalf {
    OnBehalf {
        session: SessionKey::new([9; 16]).id(),
        number: RequestNumber(number),
        settled_below: RequestNumber(1),
        claim: Claim(1),
        principal: "alice".into(),
        is_mover: false,
        evidence: None,
    }
}

/// Of somebody, of a file in `c`.
fn open() -> Op {
    Op::Open(Open::existing(name("/ls/dev/p/d/f"), Use::Read))
}

fn position(cell: &str, index: u64) -> Position {
    Position { cell: CellName::new(cell), epoch: Epoch(1), index }
}

fn anchor(millis: u64) -> Anchor {
    Anchor { epoch: Epoch(1), at: t(millis) }
}

fn stat() -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 0,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn acl(members: &str) -> Result<Reply, Error> {
    Ok(Reply::Contents { contents: Bytes::copy_from_slice(members.as_bytes()), stat: stat() })
}

fn error(code: ErrorCode) -> Result<Reply, Error> {
    Err(code.because("played"))
}

fn needs(need: Need) -> Result<Reply, Error> {
    Ok(Reply::Needs(need, anchor(50_000)))
}

fn needs_acl(acl: &str) -> Result<Reply, Error> {
    needs(Need::Acl(acl.into()))
}

fn evidence(request: &Request) -> Evidence {
    let client = request.on_behalf.as_ref().expect("for a client");
    client.evidence.as_deref().cloned().unwrap_or_default()
}

fn cross(request: &Request) -> CrossOp {
    assert_eq!(request.on_behalf, None, "for ourselves");
    match &request.op {
        Op::Cross(op) => op.clone(),
        other => panic!("not between cells: {other:?}"),
    }
}

fn data() -> ItemKinds {
    ItemKinds::of([ItemKind::Data])
}

/// A host whose cells welcome every Hello and answer what they are told to.
struct Played {
    core: UpstreamCore,
    links: BTreeMap<String, LinkId>,
    /// Not looked at yet.
    requests: BTreeMap<String, Vec<Request>>,
    /// Those that read the map, likewise.
    map_reads: Vec<Request>,
    /// Where the cell can tell what was left behind.
    offers: BTreeMap<String, RequestNumber>,
    cancels: Vec<(String, RequestNumber)>,
    acknowledged: Vec<(String, Sequence)>,
    /// The last of each cell, and when it was sent.
    keep_alives: BTreeMap<String, (u64, Time)>,
    answers: BTreeMap<Ticket, Answer>,
    news: Vec<NewsId>,
    sequence: u64,
    clients: u64,
    /// Welcomes nobody.
    deaf: Option<&'static str>,
}

impl Played {
    fn new() -> Self {
        Self::of(Self::config())
    }

    fn config() -> UpstreamConfig {
        UpstreamConfig::tier(Hosts::Cells(map()), Role::Proxy, "x:1", [3; 32])
    }

    fn of(config: UpstreamConfig) -> Self {
        Self::with_deaf(None, config)
    }

    fn with_deaf(deaf: Option<&'static str>, config: UpstreamConfig) -> Self {
        let mut played = Self {
            core: UpstreamCore::new(t(0), config),
            links: BTreeMap::new(),
            requests: BTreeMap::new(),
            map_reads: Vec::new(),
            offers: BTreeMap::new(),
            cancels: Vec::new(),
            acknowledged: Vec::new(),
            keep_alives: BTreeMap::new(),
            answers: BTreeMap::new(),
            news: Vec::new(),
            sequence: 0,
            clients: 0,
            deaf,
        };
        played.wait_until(t(0));
        played
    }

    fn play(&mut self, now: Time) {
        while let Some(output) = self.core.poll_output() {
            let cell = |link: &LinkId| link.cell.as_ref().map_or("one", CellName::as_str).to_owned();
            match output {
                Output::Connect(link, _) => {
                    self.core.connected(now, &link);
                    self.links.insert(cell(&link), link);
                }
                Output::Send(link, Up::Hello(_)) if self.deaf == Some(&cell(&link)) => {}
                Output::Send(link, Up::Hello(hello)) => {
                    let welcome = self.welcome(hello.key.id(), &cell(&link), false, 1);
                    self.core.received(now, &link, Down::Welcome(welcome));
                }
                Output::Send(link, Up::Request(request)) if request.op == Op::Cross(CrossOp::Chores) => {
                    self.offers.insert(cell(&link), request.number);
                }
                Output::Send(link, Up::Request(request)) if request.op == Op::Cross(CrossOp::ReadMap) => {
                    assert_eq!(cell(&link), "h", "the home cell has the map");
                    self.map_reads.push(request);
                }
                Output::Send(link, Up::Request(request)) => {
                    self.requests.entry(cell(&link)).or_default().push(request);
                }
                Output::Send(link, Up::Cancel(number)) => self.cancels.push((cell(&link), number)),
                Output::Send(link, Up::Acknowledge(it)) => self.acknowledged.push((cell(&link), it)),
                Output::Send(link, Up::KeepAlive(it)) => {
                    self.keep_alives.insert(cell(&link), (it.number, now));
                }
                Output::Answered(ticket, answer) => {
                    assert!(self.answers.insert(ticket, answer).is_none(), "one answer for {ticket:?}");
                }
                Output::Event(_, Event::News(id, _)) => self.news.push(id),
                Output::Event(..) | Output::Routes(_) | Output::Send(..) | Output::Disconnect(_) => {}
            }
        }
        self.core.check_invariants();
    }

    fn welcome(&self, session: SessionId, cell: &str, resumed: bool, epoch: u64) -> Welcome {
        let master_of = (cell != "one").then(|| (CellName::new(cell), Epoch(epoch)));
        let (handle_keys, lost_cells) = Default::default();
        Welcome { session, resumed, grant: grant(), master_of, handle_keys, lost_cells }
    }

    fn wait_until(&mut self, now: Time) {
        self.core.handle_timeout(now);
        self.play(now);
    }

    /// Asks for alice.
    fn submit(&mut self, now: Time, op: Op) -> Ticket {
        self.clients += 1;
        let ask = Ask { on_behalf: Some(client(self.clients)), ..op.into() };
        let ticket = self.core.submit(now, ask);
        self.play(now);
        ticket
    }

    /// The only request that the cell was sent and that was not looked at.
    fn take(&mut self, cell: &str) -> Request {
        let mut requests = self.take_all(cell);
        assert_eq!(requests.len(), 1, "of {cell}: {requests:?}");
        requests.remove(0)
    }

    fn take_all(&mut self, cell: &str) -> Vec<Request> {
        self.requests.remove(cell).unwrap_or_default()
    }

    fn assert_nothing_asked(&self) {
        assert!(self.requests.is_empty(), "{:?}", self.requests);
    }

    fn receive(&mut self, now: Time, cell: &str, down: Down) {
        let link = self.links[cell].clone();
        self.core.received(now, &link, down);
        self.play(now);
    }

    /// The cell answers, as of position 5.
    fn answer(&mut self, now: Time, cell: &str, request: &Request, result: Result<Reply, Error>) {
        self.answer_keeping(now, cell, request, ItemKinds::NONE, result);
    }

    fn answer_keeping(
        &mut self,
        now: Time,
        cell: &str,
        request: &Request,
        caches: ItemKinds,
        result: Result<Reply, Error>,
    ) {
        let position = Some(position(cell, 5));
        let answer = Answer { number: request.number, position, caches, result };
        self.receive(now, cell, Down::Answer(answer));
    }

    /// The cell answers the only request that was not looked at; returns that.
    fn reply(&mut self, now: Time, cell: &str, result: Result<Reply, Error>) -> Request {
        let request = self.take(cell);
        self.answer(now, cell, &request, result);
        request
    }

    /// The home cell lets us keep the ACL that was asked for.
    fn keep_acl(&mut self, now: Time, members: &str) {
        let request = self.take("h");
        self.answer_keeping(now, "h", &request, data(), acl(members));
    }

    /// A request of alice that is under way at `c`, with what the ACL says.
    fn carrying(&mut self, now: Time, op: Op, acl: &str) -> (Ticket, Request) {
        let ticket = self.submit(now, op);
        self.reply(now, "c", needs_acl(acl));
        if self.requests.contains_key("h") {
            self.keep_acl(now, "alice");
        }
        let request = self.take("c");
        assert_eq!(evidence(&request).is_member(acl), Some(true));
        (ticket, request)
    }

    /// The cell has news, of which the owner hears.
    fn tell(&mut self, now: Time, cell: &str, item: News) -> NewsId {
        self.sequence += 1;
        self.receive(now, cell, Down::News { sequence: Sequence(self.sequence), item });
        *self.news.last().expect("told")
    }

    fn tell_changed(&mut self, now: Time, items: &[&str]) -> NewsId {
        let items = items.iter().map(|it| Item::new(name(it), ItemKind::Data)).collect();
        self.tell(now, "h", News::Invalidate { items, floor: position("h", 6) })
    }

    /// The owner has done its part.
    fn acknowledge(&mut self, now: Time, news: NewsId) {
        self.core.acknowledge(now, Some(&CellName::new("h")), news);
        self.play(now);
    }

    fn cancel(&mut self, now: Time, ticket: Ticket) {
        self.core.cancel(now, ticket);
        self.play(now);
    }

    /// The cell answers the KeepAlive.
    fn extend(&mut self, now: Time, cell: &str) {
        let (keep_alive, sent) = self.keep_alives[cell];
        let grant = Grant { held: now.saturating_since(sent), ..grant() };
        self.receive(now, cell, Down::Lease { keep_alive, grant });
    }

    /// All cells do, every four seconds.
    fn extend_all(&mut self, until: Time) {
        for now in (1..).map(|count| t(count * 4_000)).take_while(|now| *now <= until) {
            ["c", "h", "p"].iter().for_each(|cell| self.extend(now, cell));
        }
    }

    /// The session at the cell ends.
    fn expire(&mut self, now: Time, cell: &str) {
        self.receive(now, cell, Down::Refused(ErrorCode::SessionExpired.because("played")));
    }

    fn result(&self, ticket: Ticket) -> Option<&Result<Reply, Error>> {
        self.answers.get(&ticket).map(|answer| &answer.result)
    }

    fn code(&self, ticket: Ticket) -> Option<ErrorCode> {
        self.result(ticket)?.as_ref().err().map(|error| error.code.clone())
    }

    fn detail(&self, ticket: Ticket) -> &str {
        let error = self.result(ticket).expect("answered").as_ref().expect_err("an error");
        &error.detail
    }
}

fn grant() -> Grant {
    let lease = Duration::from_secs(12);
    Grant { held: Duration::ZERO, session: lease, cache: lease }
}

#[test]
fn a_request_of_our_own_that_needs_another_cell_is_unavailable() {
    let mut played = Played::new();
    let ticket = played.core.submit(t(0), open().into());
    played.play(t(0));

    played.reply(t(1), "c", needs_acl("ops"));

    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    assert!(played.detail(ticket).contains("a proxy or router"));
}

#[test]
fn what_a_host_above_says_is_passed_on_unchanged() {
    let hosts = Hosts::one(vec!["r:1".into()]);
    let mut played = Played::of(UpstreamConfig::tier(hosts, Role::Proxy, "x:1", [3; 32]));
    let known = Evidence { seal: Some(hasp_proto::crossing::SealTicket(3)), ..Evidence::default() };
    let on_behalf = OnBehalf { evidence: Some(Box::new(known.clone())), ..client(1) };
    let ticket = played.core.submit(t(0), Ask { on_behalf: Some(on_behalf), ..open().into() });
    played.play(t(0));

    let request = played.take("one");
    assert_eq!(evidence(&request), known);
    played.answer(t(1), "one", &request, needs_acl("ops"));

    assert_eq!(played.result(ticket), Some(&needs_acl("ops")));
}

#[test]
fn what_somebody_below_says_of_other_cells_is_left_out() {
    let mut played = Played::new();
    let known = Evidence { seal: Some(hasp_proto::crossing::SealTicket(3)), ..Evidence::default() };
    let on_behalf = OnBehalf { evidence: Some(Box::new(known)), ..client(1) };
    played.core.submit(t(0), Ask { on_behalf: Some(on_behalf), ..open().into() });
    played.play(t(0));

    assert_eq!(evidence(&played.take("c")), Evidence::default());
}

#[test]
fn a_cell_that_always_needs_something_more_is_given_up() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    for round in 1..=8 {
        played.reply(t(round), "c", needs_acl("ops"));
        if round == 1 {
            played.keep_acl(t(1), "alice");
        }
        assert_eq!(played.code(ticket), None);
    }

    played.reply(t(9), "c", needs_acl("ops"));

    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    assert!(played.detail(ticket).contains("do not come to terms about a open"));
}

#[test]
fn a_request_that_waited_long_may_need_as_much_again() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    for _ in 0..8 {
        played.reply(t(0), "c", needs_acl("ops"));
        if played.requests.contains_key("h") {
            played.keep_acl(t(0), "alice");
        }
    }

    played.reply(t(10_000), "c", needs_acl("ops"));

    assert_eq!(played.code(ticket), None);
    assert_eq!(evidence(&played.take("c")).is_member("ops"), Some(true));
}

#[test]
fn requests_that_wait_for_other_cells_count_at_the_cell_that_they_were_asked_at() {
    let config = UpstreamConfig { waiting_max: 2, ..Played::config() };
    let mut played = Played::of(config);
    let first = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    assert_eq!(played.core.cell_of(first).map(CellName::as_str), Some("c"));
    assert_eq!(played.core.waiting(), 1, "the question at the home cell is none of the owner's");
    played.submit(t(0), open());
    let third = played.submit(t(0), open());

    assert!(matches!(played.code(third), Some(ErrorCode::RateLimited { .. })));
}

#[test]
fn the_end_answers_everything_once() {
    let mut played = Played::new();
    let by_acl = played.submit(t(0), open());
    played.reply(t(0), "c", needs_acl("ops"));
    let by_root = played.submit(t(0), open());
    played.reply(t(0), "c", needs(Need::Root(name(D))));
    let deleted = played.submit(t(0), Op::Delete(directory()));
    let delete = played.take_all("p").pop().expect("asked");
    played.answer(t(0), "p", &delete, Ok(Reply::Deleted));
    assert_eq!(played.core.waiting(), 3);
    let acls = Op::SetAcl { handle: directory(), acls: AclNames::default(), if_generation: None };
    let updated = played.submit(t(0), acls);
    let update = played.take_all("p").pop().expect("asked");
    played.answer(t(0), "p", &update, Ok(Reply::AclSet { acl_generation: Generation(3) }));

    played.core.end(t(1));
    played.play(t(1));
    for link in played.links.values().cloned().collect::<Vec<_>>() {
        played.core.disconnected(t(2), &link);
        played.play(t(2));
    }

    for ticket in [by_acl, by_root, updated] {
        assert_eq!(played.code(ticket), Some(ErrorCode::SessionExpired));
    }
    assert_eq!(played.result(deleted), Some(&Ok(Reply::Deleted)), "it was");
    assert!(played.core.is_over());
    assert_eq!(played.core.waiting(), 0);
}
