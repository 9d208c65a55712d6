//! A whole master over a log that commits at once: whatever clients and proxies ask, in whatever order, it goes on and
//! keeps its invariants, and so does the state that its log makes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::master::{BatchId, Input, MasterConfig, MasterCore, Output};
use hasp_cell::state::{LogEntry, State};
use hasp_proto::convert::request::BadRequest;
use hasp_proto::error::ErrorCode;
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core as _;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Reply};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_proto::wire::v1;
use prost::Message as _;

use super::host::{BREAKS, CONNECTIONS};
use super::script::{self, Step};
use super::state::check_snapshot;
use crate::protobuf::{Message, Value};
use crate::target::{Verdict, variant};

/// Field of steps that begin another mastership.
pub const ELECTED: u32 = 11;
/// Field of steps in which the log does not take what is proposed, or nobody knows whether it did.
pub const LOG_FAILS: u32 = 12;

/// Bytes in a story that stand for the handle with this number, of those that were answered.
pub fn handle(number: usize) -> Vec<u8> {
    format!("<handle {number}>").into_bytes()
}

/// Bytes in a story that stand for the sequencer with this number, of those that were answered.
pub fn sequencer(number: usize) -> Vec<u8> {
    format!("<sequencer {number}>").into_bytes()
}

/// Tells a master a story.
pub fn run(input: &[u8]) -> Verdict {
    let Some(steps) = script::steps(input) else { return Verdict::refused("not a story") };
    let mut world = World::new();
    world.elect();
    for step in steps {
        world.step(step);
        world.core.check_invariants();
        world.state.check_invariants();
    }
    check_snapshot(&world.state);
    Verdict::taken(world.trail)
}

struct World {
    now: Time,
    core: MasterCore,
    state: State,
    log: VecDeque<(BatchId, LogEntry)>,
    connections: [Option<ConnectionId>; CONNECTIONS as usize],
    opened: u64,
    /// What the story's words for tokens stand for.
    words: BTreeMap<Vec<u8>, Bytes>,
    handles: usize,
    sequencers: usize,
    trail: String,
}

impl World {
    fn new() -> Self {
        let cells = [("a", vec!["one:1", "two:1"]), ("b", vec!["three:1"])]
            .map(|(cell, list)| (CellName::new(cell), list.into_iter().map(str::to_owned).collect()));
        let rules = [("/ls/dev", "a"), ("/ls/dev/b", "b")];
        let config = MasterConfig {
            cell: CellName::new("a"),
            replica: 1,
            addresses: [(1, "one:1".to_owned()), (2, "two:1".to_owned())].into(),
            map: PartitionMap::new(1, "dev", rules, cells.into()).expect("a map"),
            handle_key: Bytes::from_static(&[5; 32]),
            terms: LeaseTerms::default(),
        };
        Self {
            now: Time::ZERO,
            core: MasterCore::new(config, Duration::from_millis(1_500)),
            state: State::default(),
            log: VecDeque::new(),
            connections: [None; CONNECTIONS as usize],
            opened: 0,
            words: BTreeMap::new(),
            handles: 0,
            sequencers: 0,
            trail: String::new(),
        }
    }

    fn elect(&mut self) {
        self.log.clear();
        self.input(Input::Elected(self.state.clone()));
        self.input(Input::QuorumAcknowledged(self.now));
        self.commit();
    }

    fn step(&mut self, step: Step) {
        let Step { now, number, value, bytes } = step;
        self.now = now;
        self.input(Input::QuorumAcknowledged(now));
        match number {
            1..=CONNECTIONS => self.batch(number as usize - 1, &bytes),
            BREAKS => {
                let which = (value % u64::from(CONNECTIONS)) as usize;
                if let Some(connection) = self.connections[which].take() {
                    self.input(Input::Disconnected(connection));
                }
            }
            ELECTED => {
                self.input(Input::Deposed(Some(2)));
                self.elect();
            }
            LOG_FAILS => {
                if let Some((batch, _)) = self.log.pop_front() {
                    self.input(if value == 0 { Input::NotProposed(batch) } else { Input::Unknown(batch) });
                }
            }
            _ => {
                self.core.handle_timeout(now);
                self.settle();
            }
        }
        // Every other step the log is a step behind.
        if value % 2 == 0 {
            self.commit();
        }
    }

    fn batch(&mut self, which: usize, bytes: &[u8]) {
        let Some(message) = Message::parse(bytes) else { return };
        let Ok(batch) = v1::UpBatch::decode(&*self.spoken(message).encode()) else { return };
        let connection = match self.connections[which] {
            Some(connection) => connection,
            None => {
                self.opened += 1;
                self.connections[which] = Some(ConnectionId(self.opened));
                self.input(Input::Connected(ConnectionId(self.opened)));
                ConnectionId(self.opened)
            }
        };
        for item in batch.items {
            self.input(match Up::try_from(item) {
                Ok(up) => Input::Received(connection, vec![up]),
                Err(BadRequest::Refuse(number, error)) => Input::Unreadable(connection, number, error),
                Err(BadRequest::Malformed(malformed)) => {
                    Input::Broken(connection, ErrorCode::InvalidArgument.because(malformed.to_string()))
                }
            });
        }
    }

    /// The message with tokens in place of the words for them.
    fn spoken(&self, mut message: Message) -> Message {
        for field in &mut message.0 {
            let Value::Bytes(bytes) = &mut field.value else { continue };
            if let Some(token) = self.words.get(bytes) {
                *bytes = token.to_vec();
            } else if let Some(inner) = Message::parse(bytes).filter(|inner| inner.encode() == *bytes) {
                *bytes = self.spoken(inner).encode();
            }
        }
        message
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.settle();
    }

    fn settle(&mut self) {
        let mut heard = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(connection, down) => {
                    if let Down::News { sequence, .. } = &down {
                        heard.push(Input::Received(connection, vec![Up::Acknowledge(*sequence)]));
                    }
                    self.note(&down);
                }
                Output::Close(connection) => {
                    for stands in self.connections.iter_mut().filter(|stands| **stands == Some(connection)) {
                        *stands = None;
                    }
                    heard.push(Input::Disconnected(connection));
                }
                Output::Traced(..) => {}
                Output::Propose(batch, entry) => {
                    let again = LogEntry::decode(&entry.encode()).expect("what is proposed can be read");
                    assert_eq!(again, entry);
                    self.log.push_back((batch, entry));
                }
            }
        }
        for input in heard {
            self.input(input);
        }
    }

    fn note(&mut self, down: &Down) {
        let step = match down {
            Down::Answer(Answer { result: Err(error), .. }) | Down::Refused(error) => {
                error.code.name().to_owned()
            }
            Down::Answer(Answer { result: Ok(reply), .. }) => {
                match reply {
                    Reply::Opened { handle: token, .. } => {
                        self.words.insert(handle(self.handles), token.as_bytes().clone());
                        self.handles += 1;
                    }
                    Reply::Sequencer(token) => {
                        self.words.insert(sequencer(self.sequencers), token.as_bytes().clone());
                        self.sequencers += 1;
                    }
                    _ => {}
                }
                variant(reply)
            }
            Down::News { item, .. } => variant(item),
            Down::Welcome(_) | Down::Lease { .. } => variant(down),
        };
        self.trail.push_str(&step);
        self.trail.push(';');
    }

    fn commit(&mut self) {
        while let Some((batch, entry)) = self.log.pop_front() {
            let outcomes = self.state.apply(&entry);
            self.input(Input::Applied(batch, outcomes, self.state.clone()));
        }
    }
}
