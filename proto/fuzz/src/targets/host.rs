//! A host: whatever holders say, in whatever order, it goes on and keeps its invariants.

use hasp_proto::convert::request::BadRequest;
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{CellName, Epoch};
use hasp_proto::lease::{Ceiling, LeaseTerms};
use hasp_proto::request::Answer;
use hasp_proto::server::{ConnectionId, Output, ServerCore};
use hasp_proto::stream::{News, Up};
use hasp_proto::time::Time;
use hasp_proto::wire::v1;
use prost::Message as _;

use super::script::{self, Step};
use crate::target::Verdict;

/// Connections of a story: a batch comes in on the connection of its field's number.
pub const CONNECTIONS: u32 = 4;
/// Field of steps that break the connection with the number they carry.
pub const BREAKS: u32 = 10;
/// Field of steps that tell every session some news.
pub const NEWS: u32 = 11;
/// Field of steps that close and open the ceiling of leases.
pub const CEILING: u32 = 12;

/// Tells a host a story.
pub fn run(input: &[u8]) -> Verdict {
    let Some(steps) = script::steps(input) else { return Verdict::refused("not a story") };
    let mut host = Host::new();
    for step in steps {
        host.step(step);
        host.core.check_invariants();
    }
    Verdict::taken(host.trail)
}

struct Host {
    core: ServerCore,
    /// The connection that stands for each of the story's; numbers are never used twice.
    connections: [Option<ConnectionId>; CONNECTIONS as usize],
    opened: u64,
    trail: String,
}

impl Host {
    fn new() -> Self {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_ceiling(Time::ZERO, Ceiling::Master);
        Self { core, connections: [None; CONNECTIONS as usize], opened: 0, trail: String::new() }
    }

    fn step(&mut self, step: Step) {
        let Step { now, number, value, bytes } = step;
        match number {
            1..=CONNECTIONS => self.batch(now, number as usize - 1, &bytes),
            BREAKS => {
                let which = (value % u64::from(CONNECTIONS)) as usize;
                if let Some(connection) = self.connections[which].take() {
                    self.core.disconnected(connection);
                }
            }
            NEWS => {
                let news = News::FailOver { cell: CellName::new("a"), epoch: Epoch(value) };
                for session in self.core.sessions().collect::<Vec<_>>() {
                    self.core.tell(now, session, news.clone());
                }
            }
            CEILING if value == 0 => self.core.set_ceiling(now, Ceiling::Closed),
            CEILING => self.core.set_ceiling(now, Ceiling::Master),
            _ => self.core.handle_timeout(now),
        }
        self.settle(now);
    }

    fn batch(&mut self, now: Time, which: usize, bytes: &[u8]) {
        let Ok(batch) = v1::UpBatch::decode(bytes) else { return };
        let connection = *self.connections[which].get_or_insert_with(|| {
            self.opened += 1;
            self.core.connected(ConnectionId(self.opened));
            ConnectionId(self.opened)
        });
        for item in batch.items {
            match Up::try_from(item) {
                Ok(up) => self.core.received(now, connection, up),
                Err(BadRequest::Refuse(number, error)) => {
                    self.core.answer_unreadable(connection, number, error);
                }
                Err(BadRequest::Malformed(malformed)) => {
                    let error = ErrorCode::InvalidArgument.because(malformed.to_string());
                    self.core.refuse(connection, error);
                }
            }
        }
    }

    /// Does what the host asks its owner to do.
    fn settle(&mut self, now: Time) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Admit(connection, ..) => {
                    self.trail.push_str("A;");
                    self.core.admit(now, connection);
                }
                Output::Request(session, request) => {
                    self.trail.push_str("R;");
                    let error = ErrorCode::Unavailable.because("nothing is served here");
                    self.core.answer(session, Answer::plain(request.number, Err(error)));
                }
                Output::Expired(session) | Output::Ended(session) => {
                    self.trail.push_str("E;");
                    self.core.forget(session);
                }
                Output::Close(connection) => {
                    self.trail.push_str("C;");
                    for stands in self.connections.iter_mut().filter(|stands| **stands == Some(connection)) {
                        *stands = None;
                    }
                    self.core.disconnected(connection);
                }
                Output::WantsLease(lease_max) => self.core.set_lease_max(lease_max),
                Output::Send(_, down) => {
                    assert!(down.weight() < usize::MAX / 2, "a weight can be summed up");
                    self.trail.push_str("s;");
                }
                Output::Acknowledged(..) => self.trail.push_str("a;"),
                Output::CacheLeaseOver(_) => self.trail.push_str("c;"),
                Output::Cancel(..) => self.trail.push_str("x;"),
                Output::Settled(..) => {}
            }
        }
    }
}
