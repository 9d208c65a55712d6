//! Requests that one cell cannot decide by itself (`route-3` to `route-5`): what it needs is got from the other cell, and
//! it is asked again, with the same number for the client (P-ONCE); and what has to follow in the other cell before the
//! answer goes out. Whoever asked notices nothing but the time it takes.
//!
//! ```text
//! request:  asked -- Needs --> crossing: steps in other cells -- got --> asked again ... answered
//!                                   '-- cannot be had, cancelled, asked for too often --> its seal undone --> answered
//!           asked -- Deleted, AclSet, of a split directory; refused, with a seal --> crossing: steps that follow --> answered
//!           asked -- AclSet, of a directory that may be split by now --> crossing: until the map is sure --> as above
//!           asked, may wait long -- an ACL that it carries is taken back --> cancelled at the cell --> asked anew
//! ```
//!
//! A directory is *split* if one cell holds its node and another its children. Steps are questions of our own, with tickets
//! that the owner never sees. None is begun at a cell whose session is not safe, and the end of a session answers those
//! that are under way, so every wait ends.

mod chores;
mod evidence;
mod moving;
mod next;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hasp_proto::client::{Ask, Status};
use hasp_proto::crossing::{CrossOp, Evidence, Need, SealTicket};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Instance, RequestNumber};
use hasp_proto::item::ItemKinds;
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Reply};
use hasp_proto::time::Time;

use super::acls::Acls;
use super::carriers::Carriers;
use super::hints::Hints;
use super::vouching::Vouching;
use super::{Asked, Output, Place, Ticket, UpstreamCore, over};
use chores::Duty;
use moving::Mover;
use next::Next;
use steps::{Crossed, Stage, Then};

/// How many things a cell may need for one request before it is given up.
const NEEDS_MAX: u8 = 8;
/// What was asked that long ago counts as a request of its own: a wait for a lock outlasts many changes of ACLs.
const NEEDS_WINDOW: Duration = Duration::from_secs(10);

/// Everything between cells. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Crossings {
    /// The slot of the home cell; `None` if requests are not routed here.
    home: Option<usize>,
    /// As many as may wait at the slots that they were asked at.
    crossed: BTreeMap<Ticket, Crossed>,
    /// Questions of our own.
    questions: BTreeMap<Ticket, Question>,
    /// To be dealt with before whoever called hears of it.
    landed: VecDeque<Landed>,
    acls: Acls,
    carriers: Carriers,
    vouching: Vouching,
    /// By what cells have asked for.
    hints: Hints,
    /// Slots whose cells can tell us what was left behind.
    offers: BTreeSet<usize>,
    /// Those that are to be asked again then.
    offer_again: BTreeMap<usize, Time>,
    /// A change of the map that this host is at work on.
    mover: Option<Mover>,
}

/// What lies behind a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    needs: u8,
    asked_at: Time,
    /// ACLs that the cell asked for.
    acls: BTreeSet<String>,
    /// The one of which is known, for this once, that the client is not in it.
    denied: Option<String>,
    /// The seal that it goes by.
    sealed: Option<Seal>,
    /// Who asked waits no longer.
    pub(super) is_cancelled: bool,
    /// It was cancelled at the cell since what it carries is void.
    is_revoked: bool,
    /// The cell of that slot tells of the children, or does not: whatever the directory's own cell says next is the answer.
    watched_at: Option<usize>,
    /// It has waited for another map, or was refused by a cell that it was sent to by an older one.
    pub(super) is_rerouted: bool,
}

/// A seal of a directory's children.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Seal {
    name: Name,
    instance: Instance,
    ticket: SealTicket,
}

/// A question of our own.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// The file of that ACL.
    Acl(String),
    /// A step of that request.
    Step(Ticket),
    /// Our word to that slot's cell.
    Vouch(usize),
    /// What was left behind, by that slot's cell.
    Offer(usize),
    /// A step of what was left behind.
    Duty(Duty),
    /// The partition map.
    Map,
    /// A step of a change of the map.
    Move,
}

#[derive(Clone, Debug)]
enum Landed {
    Question(Ticket, Question, Box<Answer>),
    Request(Box<Asked>, usize, Box<Next>),
}

impl Asked {
    fn evidence(&mut self) -> Option<&mut Evidence> {
        let client = self.ask.on_behalf.as_mut()?;
        Some(client.evidence.get_or_insert_default())
    }

    /// What it carries of ACLs holds no longer.
    pub(super) fn drop_memberships(&mut self) {
        let evidence = self.ask.on_behalf.as_mut().and_then(|client| client.evidence.as_mut());
        if let Some(evidence) = evidence {
            evidence.memberships.clear();
            evidence.vouch = None;
        }
    }

    /// Nobody but this host says what the cells need to know.
    pub(super) fn drop_evidence(&mut self) {
        if let Some(client) = self.ask.on_behalf.as_mut() {
            client.evidence = None;
        }
    }

    /// Whether it is a client's.
    pub(super) fn is_for_client(&self) -> bool {
        self.ask.on_behalf.is_some()
    }

    /// Who asked waits no longer. Whether it may have been done even if it was not sent from here: a client's may have been asked
    /// under its number before, here or through another host, and only a cell can say what came of that (P-ONCE).
    pub(super) fn cancel(&mut self) -> bool {
        self.progress.is_cancelled = true;
        self.is_for_client()
    }
}

impl Crossings {
    /// Of sessions at the cells, with that one the home cell's.
    pub(super) fn new(home: Option<usize>) -> Self {
        Self { home, ..Self::default() }
    }

    /// The cell's slot at which a request was asked that waits for others.
    pub(super) fn slot_of(&self, ticket: Ticket) -> Option<usize> {
        self.crossed.get(&ticket).map(|crossed| crossed.slot)
    }

    /// Questions of our own that are under way.
    pub(super) fn questions(&self) -> usize {
        self.questions.len()
    }

    /// Takes an answer to a question of our own; gives it back if it was none.
    pub(super) fn land(&mut self, ticket: Ticket, answer: Answer) -> Option<Answer> {
        match self.questions.remove(&ticket) {
            Some(question) => self.landed.push_back(Landed::Question(ticket, question, Box::new(answer))),
            None => return Some(answer),
        }
        None
    }

    /// When something is due, and what.
    pub(super) fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let vouch = self.vouching.due.map(|at| (at, "cells are told that ACLs hold still"));
        let offer = self.offer_again.values().min();
        let offer = offer.map(|at| (*at, "a cell is asked what was left behind"));
        let news = self.carriers.next_due().map(|at| (at, "nobody goes by an ACL that was taken back"));
        vouch.into_iter().chain(news).chain(offer).min_by_key(|(at, _)| *at)
    }

    /// Those that wait for steps in other cells. For tests.
    pub(super) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.crossed.keys().copied()
    }

    /// Walks everything. For tests.
    pub(super) fn check_invariants(&self, places: &BTreeMap<Ticket, Place>, is_map_awaited: bool) {
        self.acls.check_invariants();
        self.carriers.check_invariants();
        assert!(self.landed.is_empty(), "what has come is dealt with");
        let is_asked = |ticket: &Ticket| matches!(places.get(ticket), Some(Place::Asked(..)));
        assert!(self.questions.keys().all(is_asked), "questions of our own are under way");
        assert!(self.carriers.tickets().all(|ticket| is_asked(&ticket)), "so is what carries something");
        let of =
            |question: &Question| if let Question::Step(ticket) = question { Some(*ticket) } else { None };
        let stepping: BTreeSet<_> = self.questions.values().filter_map(of).collect();
        for (ticket, crossed) in &self.crossed {
            let is_awaited = match &crossed.stage {
                Stage::Acl(acl) => self.acls.is_waited_for(acl, *ticket),
                Stage::Map(_) => is_map_awaited,
                _ => stepping.contains(ticket),
            };
            assert!(is_awaited, "{ticket:?} waits for something: {:?}", crossed.stage);
        }
        for (acl, question) in self.acls.fetches() {
            assert!(self.questions.contains_key(&question), "{acl} is asked for");
        }
    }
}

impl UpstreamCore {
    /// A request was answered at that slot; `Some` with the final answer, unless it goes on.
    pub(super) fn next_of(
        &mut self,
        now: Time,
        slot: usize,
        asked: Asked,
        answer: Answer,
    ) -> Option<(Ticket, Answer)> {
        let ticket = asked.ticket;
        let next = match self.map() {
            Some(map) => asked.next(map, self.is_map_sure(now), answer),
            None => return Some((ticket, answer)),
        };
        if let Next::Deliver(answer) = next {
            return Some((ticket, answer));
        }
        self.places.insert(ticket, Place::Crossing);
        self.slots[slot].crossing += 1;
        self.crossings.landed.push_back(Landed::Request(Box::new(asked), slot, Box::new(next)));
        None
    }

    /// Goes on with what has come of steps in other cells, until there is nothing more.
    pub(super) fn cross(&mut self, now: Time) {
        while let Some(landed) = self.crossings.landed.pop_front() {
            match landed {
                Landed::Question(question, Question::Acl(acl), answer) => {
                    self.acl_came(now, &acl, question, &answer);
                }
                Landed::Question(_, Question::Step(ticket), answer) => self.stepped(now, ticket, *answer),
                Landed::Question(_, Question::Offer(slot), answer) => self.told_of(now, slot, *answer),
                Landed::Question(_, Question::Duty(duty), answer) => self.duty_done(now, duty, *answer),
                Landed::Question(question, Question::Map, answer) => self.map_came(now, question, &answer),
                Landed::Question(question, Question::Move, answer) => {
                    self.move_stepped(now, question, &answer);
                }
                Landed::Question(_, Question::Vouch(slot), answer) => {
                    self.crossings.vouching.answered(slot);
                    if let Ok(Reply::Anchored(anchor)) = answer.result {
                        self.crossings.vouching.heard(now, slot, anchor);
                    }
                }
                Landed::Request(asked, slot, next) => {
                    self.slots[slot].crossing -= 1;
                    self.go_on(now, slot, *asked, *next);
                }
            }
        }
    }

    /// Does what is due.
    pub(super) fn cross_due(&mut self, now: Time) {
        while let Some(news) = self.crossings.carriers.take_due(now) {
            self.acknowledge_home(now, news);
        }
        if self.crossings.vouching.due.is_some_and(|at| at <= now) {
            self.vouch_again(now);
        }
        self.offer_due(now);
    }

    /// What comes next for a request that a cell has answered.
    fn go_on(&mut self, now: Time, slot: usize, asked: Asked, next: Next) {
        match next {
            Next::Deliver(answer) => self.deliver(&asked, answer),
            Next::Get(_, anchor) if self.is_ending => {
                self.crossings.vouching.heard(now, slot, anchor);
                self.deliver(&asked, plain(over()));
            }
            Next::Get(need, anchor) => {
                self.crossings.vouching.heard(now, slot, anchor);
                self.get(now, slot, asked, need);
            }
            Next::AskAnew => {
                let progress = Progress { sealed: asked.progress.sealed.clone(), ..Progress::default() };
                let mut anew = Asked { progress, ..asked };
                anew.drop_memberships();
                self.ask(now, slot, anew);
            }
            Next::Drop(_, _, answer) | Next::Undo(answer) if self.is_ending => self.deliver(&asked, answer),
            Next::Update(..) | Next::Watch(..) | Next::Settle(_) if self.is_ending => {
                self.deliver(&asked, plain(over()));
            }
            Next::Drop(cell, op, answer) => {
                let crossed = Crossed { asked, slot, stage: Stage::Clear(Then::Deliver(Box::new(answer))) };
                self.step(now, crossed, Some(cell), op);
            }
            Next::Update(cell, root, answer) => {
                let told = chores::propagated(&root.name, root.instance, root.acl_generation);
                let crossed = Crossed { asked, slot, stage: Stage::Update(answer, told) };
                self.step(now, crossed, Some(cell), CrossOp::UpdateRoot(root));
            }
            Next::Watch(cell, op, answer) => {
                let crossed = Crossed { asked, slot, stage: Stage::Watch(answer, op.clone()) };
                self.step(now, crossed, Some(cell), op);
            }
            Next::Settle(answer) if self.will_read_map(now) => {
                self.wait(Crossed { asked, slot, stage: Stage::Map(answer) });
            }
            Next::Settle(_) => self.give_up(now, slot, asked, unsettled()),
            Next::Undo(answer) => self.give_up(now, slot, asked, answer),
        }
    }

    /// Gets what the cell needs for a request.
    fn get(&mut self, now: Time, slot: usize, mut asked: Asked, need: Need) {
        if let Need::Map(version) = need {
            return self.wait_for_map(now, asked, version);
        }
        if asked.progress.is_cancelled {
            return self.give_up(now, slot, asked, cancelled());
        }
        if now.saturating_since(asked.progress.asked_at) >= NEEDS_WINDOW {
            asked.progress.needs = 0;
            asked.progress.acls.clear();
        }
        if asked.progress.needs >= NEEDS_MAX {
            let what = asked.ask.op.name();
            let detail =
                format!("{} and other cells do not come to terms about a {what}", self.cell_at(slot));
            return self.give_up(now, slot, asked, failed(&detail));
        }
        asked.progress.needs += 1;
        let map = self.map().expect("only cells have needs");
        match need {
            Need::Acl(acl) => {
                asked.progress.acls.insert(acl.clone());
                self.crossings.hints.learn(slot, &asked.ask.op, &acl);
                self.get_acl(now, slot, asked, acl);
            }
            Need::Root(name) => {
                let (cell, op) = (map.owner(&name).cloned(), CrossOp::DescribeRoot(name.clone()));
                self.step(now, Crossed { asked, slot, stage: Stage::Root(name) }, cell, op);
            }
            Need::Unseal { name, instance, ticket } => {
                self.undo(now, slot, asked, Seal { name, instance, ticket }, Then::AskAgain);
            }
            Need::Map(_) => unreachable!("handled above"),
            Need::Seal { name, instance } => {
                let cell = map.children_owner(&name).cloned();
                let op = CrossOp::Seal { name: name.clone(), instance };
                self.step(now, Crossed { asked, slot, stage: Stage::Seal(name, instance) }, cell, op);
            }
        }
    }

    /// Answers a request that its cell has not done; the seal that was made for it is undone before.
    fn give_up(&mut self, now: Time, slot: usize, mut asked: Asked, answer: Answer) {
        match asked.progress.sealed.take() {
            Some(seal) if !self.is_ending => {
                self.undo(now, slot, asked, seal, Then::Deliver(Box::new(answer)))
            }
            Some(_) | None => self.deliver(&asked, answer),
        }
    }

    /// Asks something for ourselves, at a cell that can be asked.
    pub(super) fn run(&mut self, now: Time, slot: usize, question: Question, ask: Ask) -> Ticket {
        let ticket = self.next_ticket();
        self.crossings.questions.insert(ticket, question);
        let client = self.slots[slot].client.as_ref();
        if client.is_some_and(|client| client.status() == Status::Safe) {
            self.ask(now, slot, Asked { ticket, ask, tries_left: 1, progress: Progress::default() });
        } else {
            let detail = format!("there is no session with {} at the moment", self.cell_at(slot));
            self.fail(ticket, ErrorCode::Unavailable.because(detail));
        }
        ticket
    }

    /// That what it is about is on its way, or that the cell goes by another map: the version of the cell's.
    fn moved(&self, result: &Result<Reply, Error>) -> Option<u64> {
        match result {
            Ok(Reply::Needs(Need::Map(version), _)) => Some(*version),
            Err(Error { code: ErrorCode::WrongCell { map_version }, .. }) => {
                Some(*map_version).filter(|version| self.map().is_some_and(|map| map.version != *version))
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn cell_at(&self, slot: usize) -> &str {
        self.slots[slot].cell.as_ref().map_or("the cell", |cell| cell.as_str())
    }

    fn deliver(&mut self, asked: &Asked, answer: Answer) {
        self.places.remove(&asked.ticket);
        self.outputs.push_back(Output::Answered(asked.ticket, answer));
    }
}

/// Another cell's word, which is the answer: whoever gets it has seen that cell at that position (P-MONO). Nothing of it
/// may be kept.
fn said(position: Option<Position>, error: Error) -> Answer {
    Answer { number: RequestNumber(0), position, caches: ItemKinds::NONE, result: Err(error) }
}

fn plain(error: Error) -> Answer {
    Answer::plain(RequestNumber(0), Err(error))
}

fn failed(detail: &str) -> Answer {
    plain(ErrorCode::Unavailable.because(detail))
}

/// It was done; whoever asks again under its number hears so when all who have to know do.
fn unsettled() -> Answer {
    failed("whether another cell has to know of it cannot be read in the partition map")
}

fn cancelled() -> Answer {
    plain(ErrorCode::Cancelled.because("by the caller"))
}
