//! A master over a log that the test commits, with sessions played by hand.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Claim, Sequence, SessionKey};
use hasp_proto::item::ItemKind;
use hasp_proto::limits::PROTOCOL;
use hasp_proto::node::{LockMode, NodeKind};
use hasp_proto::request::{Create, OnBehalf, Op, Open, Reply, Use};
use hasp_proto::stream::{KeepAlive, Role};

use super::super::*;

pub(super) fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}

pub(super) fn key(byte: u8) -> SessionKey {
    SessionKey::new([byte; 16])
}

pub(super) fn hello(byte: u8, role: Role) -> Hello {
    Hello {
        protocol: PROTOCOL,
        key: key(byte),
        role,
        principal: "alice".into(),
        known_since: None,
        next_request: RequestNumber(1),
        claim: Claim(1),
        advertise: if role == Role::Client { String::new() } else { "proxy:1".into() },
        lease_left: Duration::ZERO,
    }
}

pub(super) fn create(name: &str) -> Op {
    Op::Open(Open {
        create: Some(Create {
            must: false,
            kind: NodeKind::File,
            contents: Bytes::new(),
            ephemeral: false,
            acls: None,
        }),
        ..Open::existing(Name::parse(name).expect("good"), Use::WriteAndLock)
    })
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

pub(super) fn reading(text: &str) -> Op {
    Op::Open(Open::existing(name(text), Use::Read))
}

pub(super) fn set(handle: &HandleToken, contents: &'static str) -> Op {
    Op::SetContents { handle: handle.clone(), contents: contents.into(), if_generation: None }
}

/// A master over a log that this test commits.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) core: MasterCore,
    pub(super) state: State,
    pub(super) log: VecDeque<(BatchId, LogEntry)>,
    pub(super) sent: Vec<(ConnectionId, Down)>,
    pub(super) numbers: BTreeMap<u64, u64>,
    /// Sessions acknowledge what they are told at once.
    pub(super) acknowledges: bool,
    /// They ask as holders of a cache do.
    pub(super) caches: bool,
    /// They are followed.
    pub(super) trace: Option<TraceContext>,
    /// What was said of batches.
    pub(super) traced: Vec<(BatchId, Vec<TraceContext>)>,
}

impl World {
    /// A replica that does not lead.
    pub(super) fn following() -> Self {
        Self::following_in("a")
    }

    /// A replica of that cell that does not lead. What is below the directories in `/ls/dev/r` is spread over both.
    pub(super) fn following_in(cell: &str) -> Self {
        let cells = [("a", vec!["h1:1", "h2:1"]), ("b", vec!["h3:1"])]
            .map(|(cell, list)| (CellName::new(cell), list.into_iter().map(str::to_owned).collect()));
        let rules = [("/ls/dev", "a"), ("/ls/dev/b", "b"), ("/ls/dev/r/*", "a b")];
        let config = MasterConfig {
            cell: CellName::new(cell),
            replica: 1,
            addresses: [(1, "h1:1".to_owned()), (2, "h2:1".to_owned())].into(),
            map: PartitionMap::new(1, "dev", rules, cells.into()).expect("good"),
            handle_key: Bytes::copy_from_slice(&[cell.as_bytes()[0]; 32]),
            terms: LeaseTerms::default(),
        };
        Self {
            now: t(0),
            core: MasterCore::new(config, Duration::from_millis(1_500)),
            state: State::default(),
            log: VecDeque::new(),
            sent: Vec::new(),
            numbers: BTreeMap::new(),
            acknowledges: true,
            caches: false,
            trace: None,
            traced: Vec::new(),
        }
    }

    /// A master that serves under its lease.
    pub(super) fn serving() -> Self {
        Self::serving_in("a")
    }

    /// The same, of that cell.
    pub(super) fn serving_in(cell: &str) -> Self {
        let mut world = Self::following_in(cell);
        world.elect();
        world.commit();
        assert!(world.core.is_serving());
        world
    }

    pub(super) fn elect(&mut self) {
        let state = self.state.clone();
        self.input(Input::QuorumAcknowledged(self.now));
        self.input(Input::Elected(state));
        self.input(Input::QuorumAcknowledged(self.now));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        self.core.check_invariants();
        let mut heard = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(connection, down) => {
                    if let Down::News { sequence, .. } = &down
                        && self.acknowledges
                    {
                        heard.push((connection, Up::Acknowledge(*sequence)));
                    }
                    self.sent.push((connection, down));
                }
                Output::Close(connection) => self
                    .sent
                    .retain(|(other, down)| *other != connection || !matches!(down, Down::Welcome(_))),
                Output::Traced(batch, traces) => self.traced.push((batch, traces)),
                Output::Propose(batch, entry) => self.log.push_back((batch, entry)),
            }
        }
        for (connection, up) in heard {
            self.input(Input::Received(connection, vec![up]));
        }
    }

    /// Commits and applies everything proposed, and what that leads to.
    pub(super) fn commit(&mut self) {
        while let Some((batch, entry)) = self.log.pop_front() {
            let outcomes = self.state.apply(&entry);
            self.state.check_invariants();
            let state = self.state.clone();
            self.input(Input::Applied(batch, outcomes, state));
        }
    }

    /// Time passes, under a master lease that is renewed, and all that becomes due is committed.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, _)) = self.core.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::QuorumAcknowledged(self.now));
            self.core.handle_timeout(self.now);
            self.drain();
            self.commit();
        }
        self.now = end;
        self.input(Input::QuorumAcknowledged(end));
    }

    pub(super) fn connect(&mut self, connection: u64, hello: Hello) {
        self.input(Input::Connected(ConnectionId(connection)));
        self.input(Input::Received(ConnectionId(connection), vec![Up::Hello(hello)]));
        self.commit();
    }

    pub(super) fn client(&mut self, connection: u64) {
        let byte = u8::try_from(connection).expect("few");
        self.connect(connection, hello(byte, Role::Client));
    }

    /// Asks and does not commit; the number.
    pub(super) fn ask(&mut self, connection: u64, op: Op) -> u64 {
        let number = self.numbers.entry(connection).or_default();
        *number += 1;
        let number = *number;
        self.ask_again(connection, number, op);
        number
    }

    pub(super) fn ask_again(&mut self, connection: u64, number: u64, op: Op) {
        self.ask_for(connection, number, None, op);
    }

    pub(super) fn ask_for(&mut self, connection: u64, number: u64, on_behalf: Option<OnBehalf>, op: Op) {
        let request = Request {
            number: RequestNumber(number),
            settled_below: RequestNumber(0),
            on_behalf,
            guard: None,
            caches: self.caches,
            trace: self.trace.clone(),
            op,
        };
        self.input(Input::Received(ConnectionId(connection), vec![Up::Request(request)]));
    }

    /// The answer to a request, if it has come.
    pub(super) fn answer(&self, connection: u64, number: u64) -> Option<Result<Reply, ErrorCode>> {
        self.sent.iter().rev().find_map(|(to, down)| match down {
            Down::Answer(answer) if to.0 == connection && answer.number.0 == number => {
                Some(answer.result.clone().map_err(|error| error.code))
            }
            _ => None,
        })
    }

    /// The position of the answer to a request, as epoch and index.
    pub(super) fn answered_at(&self, connection: u64, number: u64) -> (u64, u64) {
        let position = self.sent.iter().rev().find_map(|(to, down)| match down {
            Down::Answer(answer) if to.0 == connection && answer.number.0 == number => {
                answer.position.clone()
            }
            _ => None,
        });
        let position = position.expect("an answer of a cell");
        (position.epoch.0, position.index)
    }

    /// Asks, commits, and expects an answer.
    pub(super) fn call(&mut self, connection: u64, op: Op) -> Result<Reply, ErrorCode> {
        let number = self.ask(connection, op);
        self.commit();
        self.answer(connection, number).expect("an answer")
    }

    pub(super) fn open(&mut self, connection: u64, name: &str) -> HandleToken {
        match self.call(connection, create(name)) {
            Ok(Reply::Opened { handle, .. }) => handle,
            other => panic!("{other:?}"),
        }
    }

    /// What may be cached of the answer to a request.
    pub(super) fn cachable(&self, connection: u64, number: u64) -> Vec<ItemKind> {
        let caches = self.sent.iter().rev().find_map(|(to, down)| match down {
            Down::Answer(answer) if to.0 == connection && answer.number.0 == number => Some(answer.caches),
            _ => None,
        });
        caches.expect("an answer").kinds().collect()
    }

    /// News that a connection was told, in order.
    pub(super) fn news(&self, connection: u64) -> Vec<(Sequence, News)> {
        let news = |(to, down): &(ConnectionId, Down)| match down {
            Down::News { sequence, item } if to.0 == connection => Some((*sequence, item.clone())),
            _ => None,
        };
        self.sent.iter().filter_map(news).collect()
    }

    /// Events that a connection was told, by kind, node and child.
    pub(super) fn events(&self, connection: u64) -> Vec<String> {
        let event = |(_, item): (Sequence, News)| match item {
            News::Event(event) => {
                let child = event.child.map(|child| format!(" {child}")).unwrap_or_default();
                let to = event.to.map(|to| format!(" to {}", to.opened_by)).unwrap_or_default();
                Some(format!("{} {}{child}{to}", event.kind, event.name))
            }
            _ => None,
        };
        self.news(connection).into_iter().filter_map(event).collect()
    }

    pub(super) fn acknowledge(&mut self, connection: u64, sequence: Sequence) {
        self.input(Input::Received(ConnectionId(connection), vec![Up::Acknowledge(sequence)]));
    }

    pub(super) fn keep_alive(&mut self, connection: u64) {
        let keep_alive = KeepAlive { number: self.now.as_micros() + 1, settled_below: RequestNumber(0) };
        self.input(Input::Received(ConnectionId(connection), vec![Up::KeepAlive(keep_alive)]));
    }

    pub(super) fn refusal(&self, connection: u64) -> Option<&ErrorCode> {
        self.sent.iter().rev().find_map(|(to, down)| match down {
            Down::Refused(error) if to.0 == connection => Some(&error.code),
            _ => None,
        })
    }
}

pub(super) fn on_behalf(byte: u8, number: u64, claim: u64) -> Option<OnBehalf> {
    Some(OnBehalf {
        session: key(byte).id(),
        number: RequestNumber(number),
        settled_below: RequestNumber(0),
        claim: Claim(claim),
        principal: "bob".into(),
        is_mover: false,
        evidence: None,
    })
}

pub(super) const LOCK: fn(&HandleToken) -> Op = |handle| Op::Acquire(handle.clone(), LockMode::Exclusive);
pub(super) const TRY: fn(&HandleToken) -> Op = |handle| Op::TryAcquire(handle.clone(), LockMode::Exclusive);
