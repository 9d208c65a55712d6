//! The routers: production's machines, whose sessions at both cells stand from the beginning, and what is on its way between
//! them and the cells. Their clocks stand still; one that pauses goes on at any time, as if it were as long after the
//! beginning as it would wait.
//!
//! A router has read the map that it begins with, and is told by nobody that there is another: it finds out when a cell
//! that it asks goes by that, later than it would anywhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use hasp_cell::state::Node;
use hasp_proto::client::Ask;
use hasp_proto::crossing::CrossOp;
use hasp_proto::id::{CellName, Epoch, RequestNumber, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::stream::{Down, Grant, Role, Up, Welcome};
use hasp_proto::time::Time;
use hasp_router::upstream::{Hosts, LinkId, Output, Ticket, UpstreamConfig, UpstreamCore};

use super::cells::CELLS;
use crate::model::hashed::{Hashed, fingerprint};

const NOW: Time = Time::from_millis(0);
/// Steps that are remembered; then all are forgotten.
const STEPS_MAX: usize = 50_000;
/// A pause is shorter than that; leases last longer.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Between a router and a cell, in order.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Wire {
    link: LinkId,
    /// The router's.
    pub session: SessionId,
    /// To the cell.
    pub requests: VecDeque<Hashed<Request>>,
    /// To the router.
    pub answers: VecDeque<Hashed<Answer>>,
    /// Under this number the router is told of what was left behind.
    pub offer: Option<RequestNumber>,
    /// Of a router that crashed, with its session: they still arrive, or do not.
    pub late: VecDeque<(SessionId, Hashed<Request>)>,
}

/// A router.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Router {
    core: Hashed<UpstreamCore>,
    /// How often it has crashed.
    pub life: u8,
    /// By cell.
    pub wires: [Wire; 2],
}

/// What a router does besides.
#[derive(Clone, Debug)]
enum Effect {
    Ask(usize, Hashed<Request>),
    Offer(usize, RequestNumber),
    Answer(Ticket, Answer),
}

/// What a router is given.
#[derive(Debug)]
enum Given<'a> {
    Ask(&'a Ask),
    Answer(&'a LinkId, &'a Answer),
    Time(Time),
}

/// A router after a step, and what came of it.
type Step = (Hashed<UpstreamCore>, Arc<[Effect]>);

/// What routers did before.
#[derive(Debug, Default)]
pub struct Steps(DashMap<(u64, u64), Step>);

fn cell_of(link: &LinkId) -> usize {
    let cell = link.cell.as_ref().map(CellName::as_str);
    CELLS.iter().position(|it| Some(*it) == cell).expect("one of two")
}

fn welcome(session: SessionId, cell: usize) -> Down {
    let lease = Duration::from_secs(12);
    let master_of = Some((CellName::new(CELLS[cell]), Epoch(1)));
    let grant = Grant { held: Duration::ZERO, session: lease, cache: lease };
    let (handle_keys, lost_cells) = Default::default();
    Down::Welcome(Welcome { session, resumed: false, grant, master_of, handle_keys, lost_cells })
}

/// The map's file, which may be kept.
fn shown(map: &PartitionMap, number: RequestNumber) -> Answer {
    let file = Node::new(1, NodeKind::File, Bytes::from(map.to_file()), Arc::default());
    let result = Ok(Reply::Contents { contents: file.contents.clone(), stat: file.stat() });
    Answer { number, position: None, caches: ItemKinds::of([ItemKind::Data]), result }
}

impl Router {
    /// One that has crashed so often, has its sessions, and goes by that map.
    ///
    /// # Panics
    /// If it asks for more than that.
    pub fn begun(router: usize, life: u8, map: &PartitionMap) -> Self {
        let mut seed = [u8::try_from(router).expect("few"); 32];
        seed[0] = life;
        let hosts = Hosts::Cells(map.clone());
        let config = UpstreamConfig { jitter: 1, ..UpstreamConfig::tier(hosts, Role::Router, "r:1", seed) };
        let mut core = UpstreamCore::new(NOW, config);
        let mut links: [Option<(LinkId, SessionId)>; 2] = [None, None];
        let mut offers = [None, None];
        // The second time, it reads the map.
        for _ in 0..2 {
            core.handle_timeout(NOW);
            while let Some(output) = core.poll_output() {
                match output {
                    Output::Connect(link, _) => core.connected(NOW, &link),
                    Output::Send(link, Up::Hello(hello)) => {
                        let session = hello.key.id();
                        core.received(NOW, &link, welcome(session, cell_of(&link)));
                        links[cell_of(&link)] = Some((link.clone(), session));
                    }
                    Output::Send(link, Up::Request(request)) if request.op == Op::Cross(CrossOp::ReadMap) => {
                        core.received(NOW, &link, Down::Answer(shown(map, request.number)));
                    }
                    Output::Send(link, Up::Request(request)) => {
                        assert_eq!(request.op, Op::Cross(CrossOp::Chores), "nobody has asked anything");
                        offers[cell_of(&link)] = Some(request.number);
                    }
                    _ => {}
                }
            }
        }
        let wire = |cell: usize| {
            let (link, session) = links[cell].clone().expect("both cells are connected to");
            let (requests, answers, late) = Default::default();
            Wire { link, session, requests, answers, offer: offers[cell], late }
        };
        Self { core: Hashed::new(core), life, wires: [wire(0), wire(1)] }
    }

    /// A client asks; the answer comes with the ticket.
    pub fn ask(&mut self, steps: &Steps, ask: &Ask) -> (Ticket, Vec<(Ticket, Answer)>) {
        let ticket = Ticket(self.core.last_ticket().0 + 1);
        (ticket, self.step(steps, Given::Ask(ask)))
    }

    /// The next answer of that cell arrives. Answers to clients come of it.
    pub fn hear(&mut self, steps: &Steps, cell: usize) -> Vec<(Ticket, Answer)> {
        let wire = &mut self.wires[cell];
        let Some(answer) = wire.answers.pop_front() else { return Vec::new() };
        let link = wire.link.clone();
        self.step(steps, Given::Answer(&link, &answer))
    }

    /// Whether something pauses, or is to be read, that does not wait for anybody.
    pub fn is_due(&self) -> bool {
        self.due().is_some()
    }

    fn due(&self) -> Option<Time> {
        self.core.poll_timeout().map(|(at, _)| at).filter(|at| *at <= NOW + PAUSE_MAX)
    }

    /// It has paused long enough for what comes first.
    pub fn wake(&mut self, steps: &Steps) -> Vec<(Ticket, Answer)> {
        let Some(at) = self.due() else { return Vec::new() };
        self.step(steps, Given::Time(at))
    }

    /// It is gone, and another in its place, which begins with that map.
    pub fn crash(&mut self, router: usize, map: &PartitionMap) {
        let next = Self::begun(router, self.life + 1, map);
        let before = std::mem::replace(self, next);
        for (wire, gone) in self.wires.iter_mut().zip(before.wires) {
            let lost = gone.requests.into_iter().map(|request| (gone.session, request));
            wire.late = gone.late.into_iter().chain(lost).collect();
        }
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        let is_quiet =
            |wire: &Wire| wire.requests.is_empty() && wire.answers.is_empty() && wire.late.is_empty();
        self.wires.iter().all(is_quiet)
    }

    fn step(&mut self, steps: &Steps, given: Given) -> Vec<(Ticket, Answer)> {
        let key = (self.core.print(), fingerprint(&given));
        let known = steps.0.get(&key).map(|known| known.clone());
        let (core, effects) = known.unwrap_or_else(|| {
            let step = stepped(UpstreamCore::clone(&self.core), given);
            if steps.0.len() >= STEPS_MAX {
                steps.0.clear();
            }
            steps.0.insert(key, step.clone());
            step
        });
        self.core = core;
        let mut answers = Vec::new();
        for effect in effects.iter() {
            match effect {
                Effect::Ask(cell, request) => self.wires[*cell].requests.push_back(request.clone()),
                Effect::Offer(cell, number) => self.wires[*cell].offer = Some(*number),
                Effect::Answer(ticket, answer) => answers.push((*ticket, answer.clone())),
            }
        }
        answers
    }
}

fn stepped(mut core: UpstreamCore, given: Given) -> (Hashed<UpstreamCore>, Arc<[Effect]>) {
    match given {
        Given::Ask(ask) => {
            core.submit(NOW, ask.clone());
        }
        Given::Answer(link, answer) => core.received(NOW, link, Down::Answer(answer.clone())),
        Given::Time(at) => core.handle_timeout(at),
    }
    let mut effects = Vec::new();
    while let Some(output) = core.poll_output() {
        match output {
            Output::Send(link, Up::Request(request)) if request.op == Op::Cross(CrossOp::Chores) => {
                effects.push(Effect::Offer(cell_of(&link), request.number));
            }
            Output::Send(link, Up::Request(request)) => {
                effects.push(Effect::Ask(cell_of(&link), Hashed::new(request)));
            }
            Output::Answered(ticket, answer) => effects.push(Effect::Answer(ticket, answer)),
            _ => {}
        }
    }
    core.check_invariants();
    (Hashed::new(core), effects.into())
}
