//! What was left behind between cells (`route-4`): every cell has a router that it can tell, and whichever it tells
//! finishes it or undoes it. Nobody waits for that, so nothing is done about what fails: the cell tells of it again.
//!
//! ```text
//! End:        seal the children -- empty --> reap the node -- gone --> drop the root record
//!                                                 '-- in use --.
//! Unseal:                                      void the seal --+-- the node is there --> take the seal back
//!                                                              '-- it is gone --> drop the root record
//! Propagate:  describe the node --> update the root record --> tell the cell of the node
//! ```

use std::time::Duration;

use hasp_proto::client::Status;
use hasp_proto::crossing::{Chore, CrossOp, SealTicket};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::time::Time;

use super::super::UpstreamCore;
use super::{Question, Seal};

/// Pause before a cell is asked again that could not say.
const PAUSE: Duration = Duration::from_secs(5);

/// A step of a chore that is under way.
#[derive(Clone, Debug)]
pub(in crate::upstream) enum Duty {
    Seal(Name, Instance),
    Reap(Seal),
    Void(Seal),
    Describe(Name),
    Update(CrossOp),
    /// Whatever comes of it.
    Last,
}

/// Which cell, of the two that a directory is in.
#[derive(Clone, Copy)]
enum Part {
    Node,
    Children,
}

impl UpstreamCore {
    /// The session of that slot stands: its cell has a router to tell.
    pub(super) fn offer(&mut self, now: Time, slot: usize) {
        let is_router = self.config.role.is_tier() && self.map().is_some_and(|map| map.cells.len() > 1);
        if is_router && !self.is_ending && !self.crossings.offers.contains(&slot) {
            self.crossings.offers.insert(slot);
            self.crossings.offer_again.remove(&slot);
            self.run(now, slot, Question::Offer(slot), Op::Cross(CrossOp::Chores).into());
        }
    }

    /// Asks cells again that could not say.
    pub(super) fn offer_due(&mut self, now: Time) {
        let due = |(slot, at): (&usize, &Time)| (*at <= now).then_some(*slot);
        for slot in self.crossings.offer_again.iter().filter_map(due).collect::<Vec<_>>() {
            self.crossings.offer_again.remove(&slot);
            let status = self.slots[slot].client.as_ref().map(|client| client.status());
            if status == Some(Status::Safe) {
                self.offer(now, slot);
            }
        }
    }

    /// A cell has told of what was left behind, or could not.
    pub(super) fn told_of(&mut self, now: Time, slot: usize, answer: Answer) {
        self.crossings.offers.remove(&slot);
        let Ok(Reply::Chores(chores)) = answer.result else {
            self.crossings.offer_again.insert(slot, now + PAUSE);
            return;
        };
        for chore in chores {
            match chore {
                Chore::End { name, instance } => {
                    let op = CrossOp::Seal { name: name.clone(), instance };
                    self.go_about(now, Part::Children, &name.clone(), Duty::Seal(name, instance), op);
                }
                Chore::Unseal { name, instance, ticket } => {
                    self.void(now, Seal { name, instance, ticket });
                }
                Chore::Move(version) | Chore::Announce(version) => self.take_up_move(now, version),
                Chore::Propagate { name, .. } => {
                    let op = CrossOp::DescribeRoot(name.clone());
                    self.go_about(now, Part::Node, &name.clone(), Duty::Describe(name), op);
                }
            }
        }
        self.offer(now, slot);
    }

    /// A step has come to its end.
    pub(super) fn duty_done(&mut self, now: Time, duty: Duty, answer: Answer) {
        let Answer { position, result, .. } = answer;
        match (duty, result, position) {
            (Duty::Seal(name, instance), Ok(Reply::Sealed(ticket)), _) => {
                let seal = Seal { name: name.clone(), instance, ticket };
                self.go_about(
                    now,
                    Part::Node,
                    &name.clone(),
                    Duty::Reap(seal),
                    CrossOp::ReapRoot { name, instance, ticket },
                );
            }
            (Duty::Reap(seal), Ok(Reply::Noted), Some(as_of)) => self.drop_root(now, seal, as_of),
            (Duty::Reap(seal), Err(_), Some(_)) => self.void(now, seal),
            (Duty::Void(Seal { name, instance, ticket }), Ok(Reply::Noted), _) => {
                let op = CrossOp::Unseal { name: name.clone(), instance, ticket };
                self.go_about(now, Part::Children, &name, Duty::Last, op);
            }
            (Duty::Void(seal), Err(error), Some(as_of))
                if matches!(error.code, ErrorCode::StaleHandle | ErrorCode::NotFound) =>
            {
                self.drop_root(now, seal, as_of);
            }
            (Duty::Describe(name), Ok(Reply::Root(root)), _) if root.name == name => {
                let told = propagated(&root.name, root.instance, root.acl_generation);
                self.go_about(now, Part::Children, &name, Duty::Update(told), CrossOp::UpdateRoot(root));
            }
            (Duty::Update(told), Ok(Reply::Noted), _) => self.tell_propagated(now, told),
            (
                Duty::Seal(..)
                | Duty::Reap(_)
                | Duty::Void(_)
                | Duty::Describe(_)
                | Duty::Update(_)
                | Duty::Last,
                Ok(_) | Err(_),
                _,
            ) => {}
        }
    }

    /// The cell of the children knows the ACL names: that of the node need not tell of them any more.
    pub(super) fn tell_propagated(&mut self, now: Time, told: CrossOp) {
        let CrossOp::Propagated { name, .. } = &told else { return };
        self.go_about(now, Part::Node, &name.clone(), Duty::Last, told);
    }

    fn void(&mut self, now: Time, seal: Seal) {
        let Seal { name, instance, ticket } = seal.clone();
        let below = SealTicket(ticket.0.saturating_add(1));
        let op = CrossOp::VoidSeals { name: name.clone(), instance, below };
        self.go_about(now, Part::Node, &name, Duty::Void(seal), op);
    }

    fn drop_root(&mut self, now: Time, Seal { name, instance, .. }: Seal, as_of: Position) {
        let op = CrossOp::DropRoot { name: name.clone(), instance, as_of };
        self.go_about(now, Part::Children, &name, Duty::Last, op);
    }

    fn go_about(&mut self, now: Time, part: Part, name: &Name, duty: Duty, op: CrossOp) {
        let Some(map) = self.map() else { return };
        let cell: Option<CellName> = match part {
            Part::Node => map.owner(name),
            Part::Children => map.children_owner(name),
        }
        .cloned();
        if let Some(slot) = cell.and_then(|cell| self.slot_of(Some(&cell))) {
            self.run(now, slot, Question::Duty(duty), Op::Cross(op).into());
        }
    }
}

/// That the other cell knows these ACL names.
pub(super) fn propagated(name: &Name, instance: Instance, acl_generation: Generation) -> CrossOp {
    CrossOp::Propagated { name: name.clone(), instance, acl_generation }
}
