//! Applications: the library's machine, one handle of the one file, one call at a time.

use bytes::Bytes;
use hasp_cell::state::HolderId;
use hasp_client::machine::{ApplicationCore, Call, CallId, CoreOptions, HandleNumber, Input, Output};
use hasp_proto::client::{Event, Status};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::Generation;
use hasp_proto::node::{LockMode, NodeKind};
use hasp_proto::request::{Answer, Create, Op, Open, Reply, Use};
use hasp_proto::time::Time;
use hasp_router::upstream::{Hosts, UpstreamConfig, UpstreamCore};

use super::history::Broken;
use super::memo::Given;
use super::node::NodeId;
use super::plan::Plan;
use super::world::{World, file, map};

/// What an application caches, at most.
const CACHE_BYTES: usize = 1 << 16;

/// One application, without its library.
#[derive(Clone, Debug, Default)]
pub struct Application {
    hand: Option<Hand>,
    doing: Option<Doing>,
    calls: u64,
    /// Its session is over: it does nothing more.
    is_over: bool,
    /// It was welcomed by a host that did not know it.
    moves: u8,
}

#[derive(Clone, Debug)]
struct Hand {
    number: HandleNumber,
    token: HandleToken,
    /// Generation of the lock that it has acquired and not released.
    lock: Option<Generation>,
}

/// A call under way.
#[derive(Clone, Debug)]
struct Doing {
    call: CallId,
    /// The newest contents that anybody had seen when it began.
    newest: Generation,
}

impl Application {
    /// Whether it can ask something on its handle.
    pub const fn is_ready(&self) -> bool {
        self.hand.is_some() && self.doing.is_none() && !self.is_over
    }

    /// Whether it has acquired the lock and not released it.
    pub fn has_lock(&self) -> bool {
        self.hand.as_ref().is_some_and(|hand| hand.lock.is_some())
    }
}

/// Whether the library takes its session for safe, at this time of its own clock.
fn is_safe(core: &ApplicationCore, now: Time) -> bool {
    core.upstream().sessions().any(|held| held.status == Status::Safe && now < held.ends.session)
}

impl World {
    /// An application's library that is about to start.
    pub(super) fn new_library(plan: &Plan, index: usize) -> ApplicationCore {
        let hosts = if plan.clients[index].is_behind {
            Hosts::one((0..plan.proxies).map(|proxy| NodeId::Proxy(proxy).address()).collect::<Vec<_>>())
        } else {
            Hosts::Cells(map())
        };
        let principal = format!("user{index}");
        let seed = [200 + u8::try_from(index).expect("few"); 32];
        let config = UpstreamConfig::application(hosts, &principal, seed);
        let options =
            CoreOptions { principal, cache_bytes: Some(CACHE_BYTES), ends_idle: false, follows: Vec::new() };
        ApplicationCore::new(UpstreamCore::new(Time::ZERO, config), &options)
    }

    /// Opens the file, and makes it if it is not there.
    pub(super) fn open(&mut self, index: usize) {
        let create = Create {
            must: false,
            kind: NodeKind::File,
            contents: Bytes::from_static(b"0"),
            ephemeral: false,
            acls: None,
        };
        let open = Open { create: Some(create), ..Open::existing(file(), Use::WriteAndLock) };
        self.ask(index, Op::Open(open).into());
    }

    /// Reads the file.
    pub(super) fn read(&mut self, index: usize) {
        self.ask_of_handle(index, Op::GetContentsAndStat);
        let was_cached = self.clients[index].doing.is_none();
        self.seen.cached_read |= was_cached;
    }

    /// Writes the file: its contents are the number of the write.
    pub(super) fn write(&mut self, index: usize) {
        let number = 100 * (index as u64 + 1) + self.clients[index].calls;
        let contents = Bytes::from(number.to_string());
        self.ask_of_handle(index, |handle| Op::SetContents { handle, contents, if_generation: None });
    }

    /// Waits for the file's lock.
    pub(super) fn acquire(&mut self, index: usize) {
        self.ask_of_handle(index, |handle| Op::Acquire(handle, LockMode::Exclusive));
    }

    /// Gives the file's lock back.
    pub(super) fn release(&mut self, index: usize) {
        if let Some(hand) = &mut self.clients[index].change().hand {
            hand.lock = None;
        }
        self.ask_of_handle(index, Op::Release);
    }

    fn ask_of_handle(&mut self, index: usize, op: impl FnOnce(HandleToken) -> Op) {
        let Some(hand) = self.clients[index].hand.clone() else { return };
        let call = Call { on: Some(hand.number), ..op(hand.token).into() };
        self.ask(index, call);
    }

    fn ask(&mut self, index: usize, call: Call) {
        let newest = self.history.newest;
        let client = self.clients[index].change();
        client.calls += 1;
        let id = CallId(client.calls);
        client.doing = Some(Doing { call: id, newest });
        self.client_hears(index, Some(Given::new(Input::Ask(id, call))));
    }

    /// Hands inputs to an application's library and carries out what it wants.
    pub(super) fn client_hears(&mut self, index: usize, given: Option<Given<Input>>) {
        let node = NodeId::Client(index);
        let now = self.local(node);
        let given = given.into_iter().collect();
        let effects = self.memo.application(&mut self.libraries[index], now, given);
        self.carry_out(node, &effects);
    }

    /// The library has something to tell.
    pub(super) fn application_hears(&mut self, index: usize, output: &Output) {
        match output {
            Output::Answered(call, answer) => self.answered(index, *call, answer, None),
            Output::Opened(call, answer, opened) => self.answered(index, *call, answer, Some(opened.number)),
            Output::Event(_, event) => self.happened(index, event),
            Output::Over(_) => {
                let client = self.clients[index].change();
                (client.is_over, client.hand, client.doing) = (true, None, None);
            }
            Output::Tell(..) | Output::Closed(_) => {}
            Output::Connect(..)
            | Output::Disconnect(_)
            | Output::Send(..)
            | Output::Show(_)
            | Output::Hide(_)
            | Output::CacheLease(..) => panic!("nothing for an application"),
        }
    }

    fn happened(&mut self, index: usize, event: &Event) {
        self.tell(|_| format!("    c{} hears {event:?}", index + 1));
        if let Event::Welcomed { resumed: false, .. } = event {
            let client = self.clients[index].change();
            client.moves += 1;
            self.seen.move_between_proxies |= client.moves > 1;
        }
    }

    fn answered(&mut self, index: usize, call: CallId, answer: &Answer, opened: Option<HandleNumber>) {
        self.tell(|_| format!("    c{} is told {:?}", index + 1, answer.result));
        let client = self.clients[index].change();
        let Some(doing) = client.doing.take_if(|doing| doing.call == call) else { return };
        match (&answer.result, opened) {
            (Ok(Reply::Opened { handle, .. }), Some(number)) => {
                client.hand = Some(Hand { number, token: handle.clone(), lock: None });
            }
            (Ok(Reply::Contents { stat, .. }), _) => self.read_came(index, &doing, stat.content_generation),
            (Ok(Reply::Written { content_generation, .. }), _) => {
                self.history.newest = self.history.newest.max(*content_generation);
                self.seen.write = true;
                self.seen.write_after_fail_over |= self.committed.state.epoch().0 > 1;
            }
            (Ok(Reply::Acquired { lock_generation }), _) => {
                if let Some(hand) = &mut client.hand {
                    hand.lock = Some(*lock_generation);
                }
            }
            _ => {}
        }
    }

    fn read_came(&mut self, index: usize, doing: &Doing, generation: Generation) {
        if generation < doing.newest {
            self.break_promise(Broken::Stale(format!(
                "c{} reads contents of generation {generation}; before it began to, somebody had generation {}",
                index + 1,
                doing.newest
            )));
        }
        self.history.newest = self.history.newest.max(generation);
    }

    /// Looks for clients that believe in a lock which the cell has taken from them.
    pub(super) fn check_locks(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let Some(hand) = client.hand.as_ref().filter(|hand| hand.lock.is_some()) else { continue };
            let body = hand.token.claimed_body().expect("the cell made it");
            let holder = HolderId { session: body.session, opened_by: body.opened_by };
            let node = self.committed.state.node(&file()).expect("it is never deleted");
            let holds = node.lock.is_held_by(holder) && Some(node.lock_generation) == hand.lock;
            if !holds && is_safe(&self.libraries[index], self.local(NodeId::Client(index))) {
                self.break_promise(Broken::LockGone(format!(
                    "c{} believes that its session is safe, and with it the lock, which the cell has taken from it",
                    index + 1
                )));
            }
        }
    }
}
