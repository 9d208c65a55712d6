//! What clients can change: create, write, delete, lock. Each checks everything again at apply, since the
//! state may have moved on since the master looked.

use bytes::Bytes;
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{Generation, SessionId};
use hasp_proto::limits::CONTENTS_BYTES_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{LockMode, NodeKind, checksum};

use super::State;
use super::clients::{Admission, LockId};
use super::command::{ClientWrite, Create, Holder, Write};
use super::lock::{Conflict, Grant, HolderId};
use super::node::Node;
use super::outcome::{AppliedOutcome, Outcome};
use super::tree::Parent;

impl State {
    /// Does a write once: checks who speaks, recalls an answer that was given before with its position,
    /// else acts and keeps the answer (P-ONCE).
    pub(super) fn client_write(&mut self, write: &ClientWrite) -> AppliedOutcome {
        if !self.speaker_stands(write.session, write.via) {
            return self.conclude(expired(write.via.unwrap_or(write.session)));
        }
        let applied = match self.clients.admit(write) {
            Ok(Admission::New) => {
                let outcome = self.write(write.session, &write.write);
                self.conclude(outcome)
            }
            Ok(Admission::Repeated(first)) => return first,
            Err(refusal) => {
                // What it settled may have been all that was known of the client.
                self.tidy(write.session);
                return self.conclude(refusal.into());
            }
        };
        if applied.outcome.is_transient() {
            self.tidy(write.session);
        } else {
            self.clients.keep_answer(write.session, write.number, applied.clone());
        }
        applied
    }

    fn write(&mut self, session: SessionId, write: &Write) -> Outcome {
        match write {
            Write::Create(create) => self.create(create),
            Write::SetContents { holder, contents, if_generation } => {
                self.set_contents(holder, contents, *if_generation)
            }
            Write::Delete { holder } => self.delete(session, holder),
            Write::Acquire { holder, mode } => self.acquire(session, holder, *mode),
            Write::Release { holder } => self.release(session, holder),
            Write::CloseHandle { holder } => self.close_handle(session, holder),
        }
    }

    fn create(&mut self, create: &Create) -> Outcome {
        let Create { name, must, kind, contents, ephemeral, acls } = create;
        if *ephemeral {
            return Outcome::failed(ErrorCode::InvalidArgument, "ephemeral nodes are not supported yet");
        }
        if *kind == NodeKind::Directory && !contents.is_empty() {
            return Outcome::failed(ErrorCode::InvalidArgument, "a directory has no contents");
        }
        if contents.len() > CONTENTS_BYTES_MAX {
            return too_large(contents);
        }
        if let Some(node) = self.tree.get(name) {
            return if *must {
                Outcome::failed(ErrorCode::AlreadyExists, format!("{name} exists"))
            } else {
                Outcome::Created { created: false, instance: node.instance, kind: node.kind }
            };
        }
        if let Some(refusal) = self.wrong_cell(name) {
            return refusal;
        }
        let acls = match (self.tree.parent(name), acls) {
            (Parent::Missing, _) => {
                return Outcome::failed(
                    ErrorCode::NotFound,
                    format!("the parent directory of {name} does not exist"),
                );
            }
            (Parent::File, _) => {
                return Outcome::failed(ErrorCode::NotADirectory, format!("the parent of {name} is a file"));
            }
            (Parent::Directory(_), Some(given)) => given.clone().into(),
            (Parent::Directory(inherited), None) => inherited.clone(),
        };
        let node = Node::new(next(&mut self.stamp), *kind, contents.clone(), acls);
        let instance = node.instance;
        self.tree.insert(name, node);
        Outcome::Created { created: true, instance, kind: *kind }
    }

    fn set_contents(
        &mut self,
        holder: &Holder,
        contents: &Bytes,
        if_generation: Option<Generation>,
    ) -> Outcome {
        if contents.len() > CONTENTS_BYTES_MAX {
            return too_large(contents);
        }
        let Some(node) = self.tree.get_mut(&holder.name, holder.instance) else {
            return self.stale(holder);
        };
        if node.kind == NodeKind::Directory {
            return Outcome::failed(ErrorCode::InvalidArgument, format!("{} is a directory", holder.name));
        }
        let previous_generation = node.content_generation;
        if let Some(expected) = if_generation
            && expected != previous_generation
        {
            let detail = format!("content generation is {previous_generation}, not {expected}");
            return Outcome::failed(ErrorCode::GenerationMismatch, detail);
        }
        node.contents = contents.clone();
        node.checksum = checksum(contents);
        node.content_generation = Generation(next(&mut self.stamp));
        Outcome::Written { content_generation: node.content_generation, previous_generation }
    }

    fn delete(&mut self, deleter: SessionId, holder: &Holder) -> Outcome {
        let Holder { name, instance, .. } = holder;
        let Some(node) = self.tree.get(name).filter(|node| node.instance == *instance) else {
            return self.stale(holder);
        };
        if self.has_rule(name) {
            let detail = format!("the partition map has a rule for {name}: a directory with a rule stays");
            return Outcome::failed(ErrorCode::NotEmpty, detail);
        }
        if self.has_children(name) {
            return Outcome::failed(ErrorCode::NotEmpty, format!("{name} has children"));
        }
        let holders: Vec<HolderId> = node.lock.holders().map(|(holder, _)| holder).collect();
        self.tree.remove(name);
        for HolderId { session, opened_by } in holders {
            let lock = LockId { name: name.clone(), instance: *instance, opened_by };
            self.clients.unlist_lock(session, &lock);
            // The deleter's own record waits for the answer.
            if session != deleter {
                self.tidy(session);
            }
        }
        Outcome::Deleted
    }

    fn acquire(&mut self, session: SessionId, holder: &Holder, mode: LockMode) -> Outcome {
        let Some(node) = self.tree.get_mut(&holder.name, holder.instance) else {
            return self.stale(holder);
        };
        let id = HolderId { session, opened_by: holder.opened_by };
        match node.lock.acquire(id, mode, holder.lock_delay) {
            Ok(Grant::First) => node.lock_generation = Generation(next(&mut self.stamp)),
            Ok(Grant::Joined) => {}
            Ok(Grant::Repeated) => return Outcome::Acquired { lock_generation: node.lock_generation },
            Err(Conflict::Held) => return Outcome::LockHeld,
            Err(Conflict::Delayed(longest)) => return Outcome::LockDelayed { longest },
            Err(Conflict::HeldBySelf(held)) => {
                return Outcome::failed(
                    ErrorCode::LockHeld,
                    format!("this handle holds it already, {held:?}"),
                );
            }
        }
        let lock_generation = node.lock_generation;
        self.clients.list_lock(session, lock_of(holder));
        Outcome::Acquired { lock_generation }
    }

    fn release(&mut self, session: SessionId, holder: &Holder) -> Outcome {
        let Some(node) = self.tree.get_mut(&holder.name, holder.instance) else {
            return self.stale(holder);
        };
        if !node.lock.release(HolderId { session, opened_by: holder.opened_by }) {
            return Outcome::failed(ErrorCode::LockNotHeld, "this handle does not hold the lock");
        }
        self.clients.unlist_lock(session, &lock_of(holder));
        Outcome::Released
    }

    fn close_handle(&mut self, session: SessionId, holder: &Holder) -> Outcome {
        let id = HolderId { session, opened_by: holder.opened_by };
        if let Some(node) = self.tree.get_mut(&holder.name, holder.instance)
            && node.lock.release(id)
        {
            self.clients.unlist_lock(session, &lock_of(holder));
        }
        Outcome::Closed
    }

    /// The refusal of a handle whose node is not there.
    fn stale(&self, holder: &Holder) -> Outcome {
        let Holder { name, instance, .. } = holder;
        self.wrong_cell(name).unwrap_or_else(|| {
            Outcome::failed(ErrorCode::StaleHandle, format!("node {instance} of {name} is gone"))
        })
    }

    /// The refusal of a name that another cell owns. Nodes that are there need no such check: only names
    /// of this cell get in.
    fn wrong_cell(&self, name: &Name) -> Option<Outcome> {
        let genesis = self.genesis.as_ref()?;
        let owner = genesis.map.owner(name);
        if owner == Some(&genesis.cell) {
            return None;
        }
        let detail = match owner {
            Some(owner) => format!("{name} belongs to cell {owner}"),
            None => format!("{name} is not in namespace {}", genesis.map.namespace),
        };
        Some(Outcome::failed(ErrorCode::WrongCell { map_version: genesis.map.version }, detail))
    }

    /// Whether the partition map has a rule for exactly this name: a boundary, or the namespace's root.
    fn has_rule(&self, name: &Name) -> bool {
        self.genesis.as_ref().is_some_and(|genesis| genesis.map.rules().any(|(prefix, _)| prefix == name))
    }
}

/// A stamp greater than all before it in the cell.
pub(super) fn next(stamp: &mut u64) -> u64 {
    *stamp += 1;
    *stamp
}

fn lock_of(holder: &Holder) -> LockId {
    LockId { name: holder.name.clone(), instance: holder.instance, opened_by: holder.opened_by }
}

fn too_large(contents: &Bytes) -> Outcome {
    let detail = format!("{} bytes of contents, the limit is {CONTENTS_BYTES_MAX}", contents.len());
    Outcome::failed(ErrorCode::TooLarge, detail)
}

/// The refusal of a write whose speaker has no session.
pub(super) fn expired(session: SessionId) -> Outcome {
    Outcome::failed(ErrorCode::SessionExpired, format!("{session:?} is over or was never of that kind"))
}
