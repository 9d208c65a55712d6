//! What becomes of calls whose callers have gone, against a host of a few lines.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::id::{Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind, Stat};
use hasp_proto::request::{Open, Request, Use};
use hasp_proto::stream::{Grant, Welcome};
use hasp_router::upstream::{Begin, Hosts, UpstreamConfig};

use super::*;

/// An application with one session at one host, and what the host was asked.
struct World {
    core: ApplicationCore,
    link: Option<LinkId>,
    session: Option<SessionId>,
    asked: Vec<Request>,
    cancelled: Vec<RequestNumber>,
    answered: Vec<(CallId, Answer)>,
}

impl World {
    fn new() -> Self {
        let hosts = Hosts::One(vec!["p:1".into()]);
        let config =
            UpstreamConfig { begin: Begin::AtOnce, ..UpstreamConfig::application(hosts, "me", [7; 32]) };
        let mut world = Self {
            core: ApplicationCore::new(UpstreamCore::new(Time::ZERO, config)),
            link: None,
            session: None,
            asked: Vec::new(),
            cancelled: Vec::new(),
            answered: Vec::new(),
        };
        world.core.handle_timeout(Time::ZERO);
        world.settle();
        assert!(world.session.is_some(), "welcomed");
        world
    }

    fn input(&mut self, input: Input) {
        self.core.handle(Time::ZERO, input);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect(link, _) => self.core.handle(Time::ZERO, Input::Connected(link)),
                Output::Send(link, Up::Hello(hello)) => {
                    self.session = Some(hello.key.id());
                    self.link = Some(link.clone());
                    let lease = Duration::from_secs(12);
                    let grant = Grant { held: Duration::ZERO, session: lease, cache: lease };
                    let welcome = Welcome { session: hello.key.id(), resumed: false, grant, master_of: None };
                    self.core.handle(Time::ZERO, Input::Received(link, Down::Welcome(welcome)));
                }
                Output::Send(_, Up::Request(request)) => self.asked.push(request),
                Output::Send(_, Up::Cancel(number)) => self.cancelled.push(number),
                Output::Send(_, Up::KeepAlive(_) | Up::Acknowledge(_) | Up::EndSession) => {}
                Output::Answered(call, answer) => self.answered.push((call, answer)),
                Output::Disconnect(_) | Output::Event(..) => {}
            }
        }
        self.core.check_invariants();
    }

    fn ask(&mut self, call: u64, op: Op) -> RequestNumber {
        self.input(Input::Ask(CallId(call), op));
        self.asked.last().expect("asked").number
    }

    fn answer(&mut self, number: RequestNumber, result: Result<Reply, ErrorCode>) {
        let link = self.link.clone().expect("linked");
        let result = result.map_err(|code| code.because("so says the host"));
        let answer = Answer { number, position: None, result };
        self.input(Input::Received(link, Down::Answer(answer)));
    }

    fn handle(&self) -> HandleToken {
        HandleKey::new(Bytes::from_static(&[1; 32])).seal(&HandleBody {
            cell: CellName::new("a"),
            name: Name::parse("/ls/dev/f").unwrap(),
            instance: Instance(1),
            kind: NodeKind::File,
            r#use: Use::WriteAndLock,
            session: self.session.unwrap(),
            opened_by: RequestNumber(1),
            epoch: Epoch(1),
            lock_delay: Duration::ZERO,
        })
    }

    fn acquire(&self) -> Op {
        Op::Acquire(self.handle(), LockMode::Exclusive)
    }

    /// The last that the host was asked, by name.
    fn last(&self) -> &'static str {
        self.asked.last().map_or("nothing", |request| request.op.name())
    }
}

fn granted() -> Result<Reply, ErrorCode> {
    Ok(Reply::Acquired { lock_generation: Generation(5) })
}

#[test]
fn an_answer_reaches_who_asked() {
    let mut world = World::new();
    let acquire = world.acquire();

    let number = world.ask(1, acquire);
    world.answer(number, granted());

    assert_eq!(world.answered.len(), 1);
    assert_eq!(world.answered[0].0, CallId(1));
    assert_eq!(world.last(), "acquire", "the lock is kept");
}

#[test]
fn an_abandoned_acquire_is_cancelled() {
    let mut world = World::new();
    let acquire = world.acquire();

    let number = world.ask(1, acquire);
    world.input(Input::Abandon(CallId(1)));
    world.answer(number, Err(ErrorCode::Cancelled));

    assert_eq!(world.cancelled, [number]);
    assert!(world.answered.is_empty());
    assert_eq!(world.last(), "acquire", "there is nothing to release");
}

#[test]
fn a_lock_granted_to_a_caller_that_has_gone_is_released() {
    let mut world = World::new();
    let acquire = world.acquire();

    let number = world.ask(1, acquire);
    world.input(Input::Abandon(CallId(1)));
    world.answer(number, granted());

    assert_eq!(world.last(), "release");
    assert!(world.answered.is_empty());
}

#[test]
fn a_lock_whose_answer_nobody_heard_is_released() {
    let mut world = World::new();
    let acquire = world.acquire();

    let number = world.ask(1, acquire);
    world.answer(number, granted());
    let (_, answer) = world.answered.remove(0);
    let handle = world.handle();
    world.input(Input::Abandon(CallId(1)));
    world.input(Input::Unheard(Some(handle), answer));

    assert_eq!(world.last(), "release");
}

#[test]
fn a_lock_that_another_clone_holds_or_waits_for_is_not_released() {
    let mut world = World::new();
    let acquire = world.acquire();

    let first = world.ask(1, acquire.clone());
    let second = world.ask(2, acquire);
    world.input(Input::Abandon(CallId(1)));
    world.answer(first, granted());
    assert_eq!(world.last(), "acquire", "the second still waits");
    world.answer(second, granted());

    assert_eq!(world.last(), "acquire", "the second holds it");
    assert_eq!(world.answered.len(), 1);
}

#[test]
fn a_lock_granted_to_nobody_is_released_once_no_other_clone_will_hold_it() {
    let mut world = World::new();
    let acquire = world.acquire();
    let shared = Op::Acquire(world.handle(), LockMode::Shared);

    let first = world.ask(1, acquire);
    let second = world.ask(2, shared);
    world.input(Input::Abandon(CallId(1)));
    world.answer(first, granted());
    world.answer(second, Err(ErrorCode::LockHeld));

    assert_eq!(world.last(), "release");
}

#[test]
fn a_released_lock_is_not_released_again() {
    let mut world = World::new();
    let (acquire, handle) = (world.acquire(), world.handle());

    let number = world.ask(1, acquire);
    world.answer(number, granted());
    let number = world.ask(2, Op::Release(handle));
    world.answer(number, Ok(Reply::Released));

    assert_eq!(world.asked.iter().filter(|request| request.op.name() == "release").count(), 1);
}

#[test]
fn a_handle_opened_for_a_caller_that_has_gone_is_closed() {
    let mut world = World::new();
    let name = Name::parse("/ls/dev/f").unwrap();
    let stat = Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 0,
        ephemeral: false,
        acls: AclNames::default(),
    };

    let open = Open { name, r#use: Use::Read, create: None, lock_delay: Duration::ZERO };
    let number = world.ask(1, Op::Open(open));
    world.input(Input::Abandon(CallId(1)));
    let handle = world.handle();
    world.answer(number, Ok(Reply::Opened { handle, created: false, stat }));

    assert_eq!(world.last(), "close");
    assert!(world.answered.is_empty());
}

#[test]
fn what_is_told_is_asked_and_its_answer_dropped() {
    let mut world = World::new();
    let handle = world.handle();

    world.input(Input::Tell(Op::Close(handle)));
    let number = world.asked.last().unwrap().number;
    world.answer(number, Ok(Reply::Closed));

    assert!(world.answered.is_empty());
}

#[test]
fn calls_after_the_end_fail_at_once() {
    let mut world = World::new();
    let acquire = world.acquire();

    world.input(Input::End);
    world.input(Input::Ask(CallId(1), acquire));

    let (call, answer) = &world.answered[0];
    assert_eq!(*call, CallId(1));
    assert_eq!(answer.result.as_ref().map_err(|error| &error.code), Err(&ErrorCode::SessionExpired));
}
