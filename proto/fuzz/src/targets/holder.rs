//! The holder of a session: whatever hosts say, in whatever order, it goes on and keeps its invariants.

use std::collections::VecDeque;

use bytes::Bytes;
use hasp_proto::client::{ClientConfig, ClientCore, Event, NewsId, Output};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::SessionKey;
use hasp_proto::request::Op;
use hasp_proto::stream::Down;
use hasp_proto::time::Time;
use hasp_proto::wire::v1;
use prost::Message as _;

use super::script::{self, Step};
use crate::target::Verdict;

/// Field of steps in which a batch comes in.
pub const BATCH: u32 = 1;
/// Field of steps in which the connection breaks.
pub const BREAKS: u32 = 2;
/// Field of steps in which the application asks something.
pub const ASKS: u32 = 3;
/// Field of steps in which the application has dealt with its oldest news.
pub const DEALT: u32 = 4;
/// Field of steps in which the application ends the session.
pub const ENDS: u32 = 5;

/// The secret of the session in all stories.
pub const KEY: [u8; 16] = *b"the fuzzed one's";

/// Tells a holder a story.
pub fn run(input: &[u8]) -> Verdict {
    let Some(steps) = script::steps(input) else { return Verdict::refused("not a story") };
    let targets = vec!["one:1".to_owned(), "two:2".to_owned()];
    let config = ClientConfig::application(SessionKey::new(KEY), "someone", targets);
    let core = ClientCore::new(Time::ZERO, config);
    let mut holder = Holder { core, attempt: None, news: VecDeque::new(), trail: String::new() };
    holder.settle(Time::ZERO);
    for step in steps {
        holder.step(step);
        holder.core.check_invariants();
    }
    Verdict::taken(holder.trail)
}

struct Holder {
    core: ClientCore,
    attempt: Option<hasp_proto::client::Attempt>,
    news: VecDeque<NewsId>,
    trail: String,
}

impl Holder {
    fn step(&mut self, step: Step) {
        let Step { now, number, value, bytes } = step;
        match (number, self.attempt) {
            (BATCH, Some(attempt)) => {
                let items = v1::DownBatch::decode(&*bytes).map_or_else(|_| Vec::new(), |batch| batch.items);
                for item in items {
                    let Ok(down) = Down::try_from(item) else {
                        self.core.disconnected(now, attempt);
                        break;
                    };
                    self.core.received(now, attempt, down);
                }
            }
            (BREAKS, Some(attempt)) => self.core.disconnected(now, attempt),
            (BATCH | BREAKS, None) => {}
            (ASKS, _) => {
                let number = self.core.submit(Op::GetStat(HandleToken::new(Bytes::from(bytes))).into());
                if value == 1 {
                    self.core.cancel(number);
                }
            }
            (DEALT, _) => {
                if let Some(news) = self.news.pop_front() {
                    self.core.acknowledge(news);
                }
            }
            (ENDS, _) => self.core.end(now),
            (_, _) => self.core.handle_timeout(now),
        }
        self.settle(now);
    }

    /// Does what the holder asks its shell to do; connections can always be made.
    fn settle(&mut self, now: Time) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect(attempt, _) => {
                    self.trail.push_str("C;");
                    self.attempt = Some(attempt);
                    self.core.connected(now, attempt);
                }
                Output::Disconnect(attempt) => {
                    self.attempt = self.attempt.filter(|current| *current != attempt);
                    self.trail.push_str("D;");
                }
                Output::Event(Event::News(id, _)) => {
                    self.news.push_back(id);
                    self.trail.push_str("n;");
                }
                Output::Event(Event::CellLost(_)) => self.trail.push_str("l;"),
                Output::Event(Event::Welcomed { resumed, .. }) => {
                    self.trail.push_str(if resumed { "W;" } else { "w;" });
                }
                Output::Event(Event::Jeopardy) => self.trail.push_str("J;"),
                Output::Event(Event::Safe) => self.trail.push_str("S;"),
                Output::Event(Event::Expired(_)) => self.trail.push_str("X;"),
                Output::Event(Event::CacheLapsed) => self.trail.push_str("c;"),
                Output::Event(Event::Extended) => self.trail.push_str("e;"),
                Output::Event(Event::Closed) => self.trail.push_str("z;"),
                Output::Answered(_) => self.trail.push_str("a;"),
                Output::Send(..) => self.trail.push_str("s;"),
            }
        }
    }
}
