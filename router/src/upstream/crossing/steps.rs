//! Steps in other cells for a request that waits for them: what each of them is for, and what its answer leads to.
//!
//! ```text
//! Acl, Root, Seal -- got --> asked again with it
//! Void -- the node is there --> Clear: unseal ---.
//!     '-- it is gone ---------> Clear: root record dropped --> asked again, or answered
//! Update -- noted --> the cell of the node is told --> answered
//! Watch -- noted, or nothing may be told --> asked again
//!     '-- Needs --> Describe -- got --> Watch
//! Map -- read --> what the answer means by it
//! ```

use hasp_proto::client::Ask;
use hasp_proto::crossing::{CrossOp, Need, SealTicket};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{CellName, Instance, RequestNumber};
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, OnBehalf, Op, Reply};
use hasp_proto::time::Time;

use super::super::{Asked, Place, Ticket, UpstreamCore, over};
use super::{Landed, NEEDS_MAX, Question, Seal, cancelled, failed, said, unsettled};

/// A request that waits for steps in other cells.
#[derive(Clone, Debug)]
pub(super) struct Crossed {
    pub(super) asked: Asked,
    /// Where it was asked.
    pub(super) slot: usize,
    pub(super) stage: Stage,
}

/// What it waits for.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// What that ACL says.
    Acl(String),
    /// What the directory is.
    Root(Name),
    /// That the directory is empty and stays so.
    Seal(Name, Instance),
    /// That the cell that holds the node goes by the seal no longer, or says that the node is gone.
    Void(Seal, Then),
    /// That the cell that holds the children has let the seal, or the root record, go.
    Clear(Then),
    /// That the cell that holds the children knows the new ACL names, and what the other is told then.
    Update(Answer, CrossOp),
    /// That the cell that holds the children tells the client of them, as asked.
    Watch(Answer, CrossOp),
    /// What the directory is, for that cell.
    Describe(Answer, CrossOp),
    /// That the map is sure.
    Map(Answer),
}

impl Stage {
    /// Whether the answer is known, and only waits.
    const fn is_of_an_answer(&self) -> bool {
        match self {
            Self::Void(_, Then::Deliver(_)) | Self::Clear(Then::Deliver(_)) => true,
            Self::Acl(_)
            | Self::Root(_)
            | Self::Seal(..)
            | Self::Void(_, Then::AskAgain)
            | Self::Clear(Then::AskAgain)
            | Self::Update(..)
            | Self::Watch(..)
            | Self::Describe(..)
            | Self::Map(_) => false,
        }
    }
}

/// What follows when a seal is undone.
#[derive(Clone, Debug)]
pub(super) enum Then {
    AskAgain,
    Deliver(Box<Answer>),
}

impl UpstreamCore {
    /// Who asked waits no longer for a request that waits for other cells. What follows what was done goes on.
    pub(in crate::upstream) fn cancel_crossed(&mut self, now: Time, ticket: Ticket) {
        let Some(crossed) = self.crossings.crossed.get_mut(&ticket) else { return };
        match &crossed.stage {
            Stage::Seal(..) => {
                crossed.asked.cancel();
            }
            Stage::Void(_, Then::Deliver(_))
            | Stage::Clear(Then::Deliver(_))
            | Stage::Update(..)
            | Stage::Watch(..)
            | Stage::Describe(..)
            | Stage::Map(_) => {}
            Stage::Acl(_)
            | Stage::Root(_)
            | Stage::Void(_, Then::AskAgain)
            | Stage::Clear(Then::AskAgain) => {
                let Some(Crossed { asked, slot, stage }) = self.take_crossed(ticket) else { return };
                if let Stage::Acl(acl) = stage {
                    self.crossings.acls.leave(&acl, ticket);
                }
                self.give_up(now, slot, asked, cancelled());
            }
        }
    }

    /// Answers all that wait for other cells.
    pub(in crate::upstream) fn fail_crossed(&mut self) {
        for ticket in self.crossings.tickets().collect::<Vec<_>>() {
            let Some(Crossed { asked, stage, .. }) = self.take_crossed(ticket) else { continue };
            match stage {
                Stage::Void(_, Then::Deliver(answer)) | Stage::Clear(Then::Deliver(answer)) => {
                    self.deliver(&asked, *answer);
                }
                Stage::Acl(acl) => {
                    self.crossings.acls.leave(&acl, ticket);
                    self.fail(ticket, over());
                }
                Stage::Root(_)
                | Stage::Seal(..)
                | Stage::Void(_, Then::AskAgain)
                | Stage::Clear(Then::AskAgain)
                | Stage::Update(..)
                | Stage::Watch(..)
                | Stage::Describe(..)
                | Stage::Map(_) => self.fail(ticket, over()),
            }
        }
    }

    /// The map was read, or could not be: answers that wait for it are looked at again.
    pub(in crate::upstream) fn settle(&mut self, now: Time, was_read: bool) {
        let is_map = |crossed: &Crossed| matches!(crossed.stage, Stage::Map(_));
        let waiting = self.crossings.crossed.iter().filter(|(_, crossed)| is_map(crossed));
        for ticket in waiting.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            let Some(Crossed { asked, slot, stage: Stage::Map(answer) }) = self.take_crossed(ticket) else {
                continue;
            };
            if !was_read {
                self.give_up(now, slot, asked, unsettled());
                continue;
            }
            let is_sure = self.is_map_sure(now);
            let next = asked.next(self.map().expect("it was read"), is_sure, answer);
            self.go_on(now, slot, asked, next);
        }
    }

    /// A step for that request was answered. It is ignored if the request was answered before.
    pub(super) fn stepped(&mut self, now: Time, ticket: Ticket, answer: Answer) {
        let Some(Crossed { mut asked, slot, stage }) = self.take_crossed(ticket) else { return };
        let is_the_cells_word = answer.position.is_some();
        if !stage.is_of_an_answer()
            && let Some(version) = self.moved(&answer.result)
            && !self.is_ending
        {
            return self.wait_for_map(now, asked, version);
        }
        match (stage, answer.result) {
            (Stage::Root(name), Ok(Reply::Root(root))) if root.name == name => {
                asked.evidence().expect("a client's").root = Some(root);
                self.ask_again(now, slot, asked);
            }
            (Stage::Root(name), Err(error)) if is_the_cells_word && error.code == ErrorCode::NotFound => {
                let gone = match &asked.ask.op {
                    op if matches!(op, Op::Cross(_)) || op.is_relative_to(&name) => {
                        ErrorCode::StaleHandle.because(format!("the directory {name} is gone"))
                    }
                    _ => error.code.because(format!("the parent directory {name} does not exist")),
                };
                self.give_up(now, slot, asked, said(answer.position, gone));
            }
            (Stage::Root(_), Err(error)) if is_the_cells_word && error.code == ErrorCode::NotADirectory => {
                self.give_up(now, slot, asked, said(answer.position, error));
            }
            (Stage::Seal(name, instance), Ok(Reply::Sealed(ticket))) => {
                asked.progress.sealed = Some(Seal { name, instance, ticket });
                if asked.progress.is_cancelled {
                    return self.give_up(now, slot, asked, cancelled());
                }
                asked.evidence().expect("a client's").seal = Some(ticket);
                self.ask_again(now, slot, asked);
            }
            (Stage::Seal(..), Err(error)) if is_the_cells_word && error.code == ErrorCode::NotEmpty => {
                self.give_up(now, slot, asked, said(answer.position, error));
            }
            (Stage::Void(seal, then), Ok(Reply::Noted)) => {
                let Seal { name, instance, ticket } = seal;
                let cell = self.cell_of_children(slot, &name, &then);
                let op = CrossOp::Unseal { name, instance, ticket };
                self.step(now, Crossed { asked, slot, stage: Stage::Clear(then) }, cell, op);
            }
            (Stage::Void(Seal { name, instance, .. }, then), Err(error))
                if is_the_cells_word
                    && matches!(error.code, ErrorCode::StaleHandle | ErrorCode::NotFound) =>
            {
                let cell = self.cell_of_children(slot, &name, &then);
                let as_of = answer.position.expect("the cell's word");
                let op = CrossOp::DropRoot { name, instance, as_of };
                self.step(now, Crossed { asked, slot, stage: Stage::Clear(then) }, cell, op);
            }
            (Stage::Clear(Then::AskAgain), Ok(Reply::Noted)) => {
                asked.evidence().expect("a client's").root = None;
                self.ask_again(now, slot, asked);
            }
            (Stage::Update(answer, told), Ok(Reply::Noted)) => {
                self.tell_propagated(now, told);
                self.deliver(&asked, answer);
            }
            (Stage::Watch(answer, op), Ok(Reply::Needs(Need::Root(name), _)))
                if asked.progress.needs < NEEDS_MAX =>
            {
                asked.progress.needs += 1;
                let cell = self.map().and_then(|map| map.owner(&name)).cloned();
                let stage = Stage::Describe(answer, op);
                self.step(now, Crossed { asked, slot, stage }, cell, CrossOp::DescribeRoot(name));
            }
            (Stage::Describe(answer, op), Ok(Reply::Root(root))) => {
                let cell = self.map().and_then(|map| map.children_owner(&root.name)).cloned();
                if let Some(evidence) = asked.evidence() {
                    evidence.root = Some(root);
                }
                let stage = Stage::Watch(answer, op.clone());
                self.step(now, Crossed { asked, slot, stage }, cell, op);
            }
            // What the cell of the node told of it meanwhile went to nobody: it is asked once more, and what it tells after
            // that comes after its answer. Nothing is told of what another cell's ACL guards, or to who may not read it.
            (Stage::Watch(..), Ok(Reply::Noted | Reply::Needs(Need::Acl(_), _))) => {
                asked.progress.watched_at = self.teller_of(&asked);
                self.ask_again(now, slot, asked);
            }
            (Stage::Watch(..) | Stage::Describe(..), Err(error))
                if is_the_cells_word
                    && matches!(
                        error.code,
                        ErrorCode::PermissionDenied | ErrorCode::StaleHandle | ErrorCode::NotFound
                    ) =>
            {
                asked.progress.watched_at = self.teller_of(&asked);
                self.ask_again(now, slot, asked);
            }
            // Whoever is in the way of a seal or a root record that was left behind undoes it.
            (Stage::Void(_, Then::Deliver(answer)) | Stage::Clear(Then::Deliver(answer)), _) => {
                self.deliver(&asked, *answer);
            }
            (
                Stage::Root(_)
                | Stage::Seal(..)
                | Stage::Void(_, Then::AskAgain)
                | Stage::Clear(Then::AskAgain)
                | Stage::Update(..)
                | Stage::Watch(..)
                | Stage::Describe(..)
                | Stage::Map(_)
                | Stage::Acl(_),
                result,
            ) => {
                let why = match result {
                    Ok(_) => "another cell's answer makes no sense".to_owned(),
                    Err(error) => format!("another cell is needed for it: {}", error.detail),
                };
                self.give_up(now, slot, asked, failed(&why));
            }
        }
    }

    /// The slot of the cell that tells of the children.
    fn teller_of(&self, asked: &Asked) -> Option<usize> {
        let name = match &asked.ask.op {
            Op::Open(open) => open.name.clone(),
            op => op.handle()?.claimed_body()?.name,
        };
        self.slot_of(self.map()?.children_owner(&name))
    }

    /// What the cell of that slot was to tell of, it does not know any more.
    pub(in crate::upstream) fn forget_watches(&mut self, teller: usize) {
        let asked = self.slots.iter_mut().flat_map(|slot| slot.asked.values_mut());
        let crossed = self.crossings.crossed.values_mut().map(|crossed| &mut crossed.asked);
        for asked in asked.chain(crossed).filter(|it| it.progress.watched_at == Some(teller)) {
            asked.progress.watched_at = None;
        }
    }

    /// Which cell's part of a directory is put right.
    fn cell_of_children(&self, slot: usize, name: &Name, then: &Then) -> Option<CellName> {
        match then {
            Then::AskAgain => self.slots[slot].cell.clone(),
            Then::Deliver(_) => self.map().and_then(|map| map.children_owner(name)).cloned(),
        }
    }

    pub(super) fn undo(&mut self, now: Time, slot: usize, asked: Asked, seal: Seal, then: Then) {
        let (name, instance) = (seal.name.clone(), seal.instance);
        let cell = self.map().and_then(|map| map.owner(&name)).cloned();
        let below = SealTicket(seal.ticket.0.saturating_add(1));
        let op = CrossOp::VoidSeals { name, instance, below };
        self.step(now, Crossed { asked, slot, stage: Stage::Void(seal, then) }, cell, op);
    }

    /// Asks that cell something for a request, which waits for it.
    pub(super) fn step(&mut self, now: Time, crossed: Crossed, cell: Option<CellName>, op: CrossOp) {
        let ticket = crossed.asked.ticket;
        // Whom a cell tells of children is a client of ours. Under the number of the request its answer may be kept (P-ONCE).
        let client = crossed.asked.ask.on_behalf.as_ref().filter(|_| matches!(op, CrossOp::WatchRoot { .. }));
        let client = client.map(|client| OnBehalf { number: RequestNumber(0), ..client.clone() });
        self.wait(crossed);
        match cell.and_then(|cell| self.slot_of(Some(&cell))) {
            Some(index) => {
                let ask = Ask { on_behalf: client, ..Op::Cross(op).into() };
                self.run(now, index, Question::Step(ticket), ask);
            }
            None => {
                let answer = failed("the directory is in no cell of the map");
                self.crossings.landed.push_back(Landed::Question(
                    ticket,
                    Question::Step(ticket),
                    Box::new(answer),
                ));
            }
        }
    }

    pub(super) fn wait(&mut self, crossed: Crossed) {
        let ticket = crossed.asked.ticket;
        self.places.insert(ticket, Place::Crossing);
        self.slots[crossed.slot].crossing += 1;
        self.crossings.crossed.insert(ticket, crossed);
    }

    pub(super) fn take_crossed(&mut self, ticket: Ticket) -> Option<Crossed> {
        let crossed = self.crossings.crossed.remove(&ticket)?;
        self.slots[crossed.slot].crossing -= 1;
        Some(crossed)
    }
}
