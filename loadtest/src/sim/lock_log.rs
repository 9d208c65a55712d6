//! What became of the locks of one cell, as its log says: who took one, who lost one, which lock-delays were ended.

use std::time::Duration;

use hasp_cell::state::{ClientWrite, Command, HolderId, Lock, State, Write};
use hasp_proto::id::{Instance, SessionId};
use hasp_proto::name::Name;
use hasp_proto::request::EndCause;

use super::clock::Moment;

/// All that matters of a cell's locks, in the order of its log.
#[derive(Debug, Default)]
pub struct LockLog {
    /// A free lock was taken.
    pub taken: Vec<Taken>,
    /// A holder failed.
    pub lost: Vec<Lost>,
    /// A lock-delay was taken for over.
    pub delays_ended: Vec<DelayEnded>,
    /// A master began.
    pub masters: Vec<(u64, Moment)>,
    /// A proxy began a session: its first, or one after another that was lost.
    pub proxies: Vec<Moment>,
}

/// A lock that was free is held.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Of which node.
    pub name: Name,
    /// Of that name.
    pub instance: Instance,
    /// Who holds it.
    pub session: SessionId,
    /// The command that gave it.
    pub index: u64,
    /// When that was committed.
    pub at: Moment,
}

/// A holder's session ended without a release.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Of which node.
    pub name: Name,
    /// Of that name.
    pub instance: Instance,
    /// Who held it.
    pub holder: HolderId,
    /// The lock-delay that the state has for it.
    pub delay: Duration,
    /// The command that ended the session.
    pub index: u64,
    /// When that was committed.
    pub at: Moment,
}

/// The log says that a lock-delay is over.
#[derive(Clone, Debug)]
pub struct DelayEnded {
    /// Of which node.
    pub name: Name,
    /// Index of the command that began it.
    pub began: u64,
    /// Of the command that ends it.
    pub index: u64,
    /// When that was committed.
    pub at: Moment,
}

impl LockLog {
    /// A command was applied.
    pub fn note(&mut self, at: Moment, before: &State, after: &State, command: &Command) {
        let index = after.index();
        match command {
            Command::MasterEpoch { .. } => self.masters.push((index, at)),
            Command::CreateSession(create) if create.role.is_tier() => self.proxies.push(at),
            Command::EndLockDelay { name, began, .. } => {
                self.delays_ended.push(DelayEnded { name: name.clone(), began: *began, index, at });
            }
            Command::ClientWrite(ClientWrite { session, write: Write::Acquire { holder, .. }, .. }) => {
                let mode = |state: &State| state.node(&holder.name).and_then(|node| node.lock.mode());
                if mode(before).is_none() && mode(after).is_some() {
                    let (name, instance) = (holder.name.clone(), holder.instance);
                    self.taken.push(Taken { name, instance, session: *session, index, at });
                }
            }
            Command::EndSession { session, cause: EndCause::Failed }
            | Command::EndClient { session, cause: EndCause::Failed, .. }
            | Command::OrphanEnd { session, .. } => self.note_lost(at, before, after, *session),
            _ => {}
        }
    }

    fn note_lost(&mut self, at: Moment, before: &State, after: &State, session: SessionId) {
        let Some(client) = before.client(session) else { return };
        for held in client.locks() {
            let holder = HolderId { session, opened_by: held.opened_by };
            let delay_in = |lock: &Lock| lock.holders().find(|(it, _)| *it == holder).map(|(_, delay)| delay);
            let Some(delay) = before.node(&held.name).and_then(|node| delay_in(&node.lock)) else { continue };
            let still = after.node(&held.name).is_some_and(|node| node.lock.is_held_by(holder));
            if !still {
                let (name, instance) = (held.name.clone(), held.instance);
                self.lost.push(Lost { name, instance, holder, delay, index: after.index(), at });
            }
        }
    }
}
