//! What clients can change: create, write, delete, lock, set ACL names. Each checks everything again at apply,
//! since the state may have moved on since the master looked: the sequencer first, then whether the node is
//! there, then its ACL, then the rest.

use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::acl::ADMIN;
use hasp_proto::crossing::Need;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Generation, Instance, SessionId};
use hasp_proto::limits::CONTENTS_BYTES_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};

use super::State;
use super::access::{Access, Refusal, check_acl_names};
use super::clients::{Admission, KeptAnswer, NodeHandle};
use super::command::{ClientWrite, Create, Guard, Holder, Write};
use super::lock::{Conflict, Grant, HolderId};
use super::node::Node;
use super::outcome::{AppliedOutcome, Outcome};
use super::tree::Parent;

impl State {
    /// Does a write once: checks who speaks, recalls an answer that was given before with its position,
    /// else acts and keeps the answer (P-ONCE).
    pub(super) fn client_write(&mut self, write: &ClientWrite) -> AppliedOutcome {
        if !self.speaker_stands(write.session, write.via) {
            return self.conclude(expired(write.session, write.via));
        }
        let applied = match self.clients.admit(write) {
            Ok(Admission::New) => {
                let outcome = self.write(write).unwrap_or_else(Outcome::from);
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
            let kept = KeptAnswer { applied: applied.clone(), name: Some(write.write.name().clone()) };
            self.clients.keep_answer(write.session, write.number, kept);
        }
        applied
    }

    fn write(&mut self, asked: &ClientWrite) -> Result<Outcome, Refusal> {
        if let Some(guard) = &asked.guard
            && !self.sequencer_stands(guard)
        {
            let Guard { name, lock_generation, .. } = guard;
            self.check_cell(name)?;
            let detail =
                format!("acquisition {lock_generation} of the lock of {name} does not stand any more");
            return Err(ErrorCode::SequencerInvalid.because(detail).into());
        }
        match &asked.write {
            Write::Create(create) => self.create(asked, create),
            Write::SetContents { holder, contents, if_generation } => {
                self.set_contents(asked, holder, contents, *if_generation)
            }
            Write::Delete { holder } => self.delete(asked, holder),
            Write::Acquire { holder, mode } => self.acquire(asked, holder, *mode),
            Write::Release { holder } => self.release(asked.session, holder),
            Write::CloseHandle { holder } => self.close_handle(asked.session, holder),
            Write::SetAcl { holder, acls, if_generation } => {
                self.set_acl(asked, holder, acls, *if_generation)
            }
            Write::OpenEphemeral { holder, r#use } => self.open(asked, handle_of(holder), (*r#use).into()),
        }
    }

    fn create(&mut self, asked: &ClientWrite, create: &Create) -> Result<Outcome, Refusal> {
        let Create { name, must, kind, contents, ephemeral, acls, r#use, relative_to } = create;
        check_contents(*kind, contents)?;
        if let Some(acls) = acls {
            self.check_acl_names(acls)?;
        }
        self.check_base(relative_to.as_ref())?;
        let opened_by = asked.number;
        if let Some(node) = self.tree.get(name) {
            if *must {
                return Err(ErrorCode::AlreadyExists.because(format!("{name} exists")).into());
            }
            let handle = NodeHandle { name: name.clone(), instance: node.instance, opened_by };
            return self.open(asked, handle, (*r#use).into());
        }
        self.check_cell(name)?;
        if let Some(parent) = name.parent() {
            self.admit_root(&parent, asked.evidence.as_deref())?;
            // It may be known here only since then.
            self.check_base(relative_to.as_ref())?;
        }
        let acls = self.acls_of_new(asked, name, acls.as_ref())?;
        let reading = self.system.read_new(name, *kind, contents)?;
        if !self.system.is_beyond_quotas(name) {
            self.system.quotas().check_node(name, contents.len())?;
        }
        if *ephemeral {
            self.check_room(asked.session)?;
        }

        let mut node = Node::new(next(&mut self.stamp), *kind, contents.clone(), acls);
        node.ephemeral = *ephemeral;
        let (instance, stat) = (node.instance, Box::new(node.stat()));
        self.tree.insert(name, node);
        self.system.quotas_mut().add_node(name, contents.len());
        self.system.put(name, reading, &self.tree);
        if *ephemeral {
            self.put_on_record(asked.session, NodeHandle { name: name.clone(), instance, opened_by });
        }
        Ok(Outcome::Created { created: true, stat })
    }

    /// The ACL names of a new node, if its parent is a directory below which the client may create.
    fn acls_of_new(
        &self,
        asked: &ClientWrite,
        name: &Name,
        given: Option<&AclNames>,
    ) -> Result<Arc<AclNames>, Refusal> {
        let (parent, inherited) = match self.tree.parent(name) {
            Parent::Directory(parent, acls) => (parent, acls),
            Parent::File => {
                return Err(ErrorCode::NotADirectory
                    .because(format!("the parent of {name} is a file"))
                    .into());
            }
            Parent::Missing => {
                let detail = format!("the parent directory of {name} does not exist");
                return Err(ErrorCode::NotFound.because(detail).into());
            }
        };
        self.system.acls().check(inherited, &parent, asked.who(), Access::Write)?;
        Ok(given.map_or_else(|| inherited.clone(), |given| given.clone().into()))
    }

    fn set_contents(
        &mut self,
        asked: &ClientWrite,
        holder: &Holder,
        contents: &Bytes,
        if_generation: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        let Holder { name, .. } = holder;
        let node = self.held(asked, holder, Access::Write)?;
        if node.kind == NodeKind::Directory {
            return Err(ErrorCode::InvalidArgument.because(format!("{name} is a directory")).into());
        }
        check_contents(node.kind, contents)?;
        let previous_generation = node.content_generation;
        check_generation("content", previous_generation, if_generation)?;
        let (from, to) = (node.contents.len(), contents.len());
        let reading = self.system.read_new(name, node.kind, contents)?;
        let is_map = self.system.map_file() == Some(name);
        let map = if is_map { self.check_map_written(contents)? } else { None };
        if !self.system.is_beyond_quotas(name) {
            self.system.quotas().check_resize(name, from, to)?;
        }

        let stamp = next(&mut self.stamp);
        self.held_mut(holder).set_contents(contents.clone(), stamp);
        self.system.quotas_mut().resize_node(name, from, to);
        self.system.put(name, reading, &self.tree);
        if let Some(map) = map {
            self.map_was_written(&map);
        }
        Ok(Outcome::Written { content_generation: Generation(stamp), previous_generation })
    }

    fn set_acl(
        &mut self,
        asked: &ClientWrite,
        holder: &Holder,
        acls: &AclNames,
        if_generation: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        self.check_acl_names(acls)?;
        let node = self.held(asked, holder, Access::ChangeAcl)?;
        self.check_children_not_packed(&holder.name)?;
        check_generation("ACL", node.acl_generation, if_generation)?;
        if self.system.is_protected(&holder.name) && acls.change != ADMIN {
            let detail =
                format!("who may change the ACL names of {} stays in the ACL \"admin\"", holder.name);
            return Err(ErrorCode::PermissionDenied.because(detail).into());
        }

        let acl_generation = Generation(next(&mut self.stamp));
        let node = self.held_mut(holder);
        node.acls = acls.clone().into();
        node.acl_generation = acl_generation;
        if self.has_children_elsewhere(&holder.name) {
            self.tree.roots_mut().has_news(&holder.name, acl_generation);
        }
        Ok(Outcome::AclSet { acl_generation })
    }

    fn delete(&mut self, asked: &ClientWrite, holder: &Holder) -> Result<Outcome, Refusal> {
        let Holder { name, .. } = holder;
        self.held(asked, holder, Access::Write)?;
        if self.system.is_protected(name) {
            let detail = format!("{name} cannot be deleted: the system goes by it");
            return Err(ErrorCode::PermissionDenied.because(detail).into());
        }
        if self.has_rule(name) {
            let detail = format!("the partition map has a rule for {name}: a directory with a rule stays");
            return Err(ErrorCode::NotEmpty.because(detail).into());
        }
        self.check_children_not_packed(name)?;
        if self.has_children(name) {
            return Err(ErrorCode::NotEmpty.because(format!("{name} has children")).into());
        }
        if self.has_children_elsewhere(name) {
            let seal = asked.evidence.as_ref().and_then(|evidence| evidence.seal);
            if !seal.is_some_and(|ticket| self.tree.roots().counts(name, ticket)) {
                return Err(Need::Seal { name: name.clone(), instance: holder.instance }.into());
            }
        }
        // The deleter's own record waits for the answer.
        self.remove_node(name, Some(asked.session));
        Ok(Outcome::Deleted)
    }

    fn acquire(&mut self, asked: &ClientWrite, holder: &Holder, mode: LockMode) -> Result<Outcome, Refusal> {
        self.held(asked, holder, Access::Write)?;
        let id = HolderId { session: asked.session, opened_by: holder.opened_by };
        let node = self.tree.get_mut(&holder.name, holder.instance).expect("just looked at");
        let is_first = match node.lock.acquire(id, mode, holder.lock_delay) {
            Ok(Grant::First) => {
                node.lock_generation = Generation(next(&mut self.stamp));
                true
            }
            Ok(Grant::Joined) => false,
            Ok(Grant::Repeated) => {
                return Ok(Outcome::Acquired { lock_generation: node.lock_generation, is_first: false });
            }
            Err(Conflict::Held) => return Ok(Outcome::LockHeld),
            Err(Conflict::Delayed(longest)) => return Ok(Outcome::LockDelayed { longest }),
            Err(Conflict::HeldBySelf(held)) => {
                return Err(ErrorCode::LockHeld
                    .because(format!("this handle holds it already, {held:?}"))
                    .into());
            }
        };
        let lock_generation = node.lock_generation;
        self.clients.list_lock(asked.session, handle_of(holder));
        Ok(Outcome::Acquired { lock_generation, is_first })
    }

    fn release(&mut self, session: SessionId, holder: &Holder) -> Result<Outcome, Refusal> {
        let Some(node) = self.tree.get_mut(&holder.name, holder.instance) else {
            return Err(self.stale(holder));
        };
        if !node.lock.release(HolderId { session, opened_by: holder.opened_by }) {
            return Err(ErrorCode::LockNotHeld.because("this handle does not hold the lock").into());
        }
        self.clients.unlist_lock(session, &handle_of(holder));
        Ok(Outcome::Released)
    }

    fn close_handle(&mut self, session: SessionId, holder: &Holder) -> Result<Outcome, Refusal> {
        if self.tree.get(&holder.name).is_none() {
            // What the handle holds may have gone to another cell.
            self.check_cell(&holder.name)?;
        }
        let id = HolderId { session, opened_by: holder.opened_by };
        let handle = handle_of(holder);
        if let Some(node) = self.tree.get_mut(&holder.name, holder.instance)
            && node.lock.release(id)
        {
            self.clients.unlist_lock(session, &handle);
        }
        self.take_off_record(session, &handle);
        Ok(Outcome::Closed)
    }

    /// Takes a node out that has no children, with all that is held on it. Of `asker` the record stays.
    pub(super) fn remove_node(&mut self, name: &Name, asker: Option<SessionId>) {
        let node = self.tree.get(name).expect("the caller has looked");
        let (instance, bytes) = (node.instance, node.contents.len());
        let locks: Vec<HolderId> = node.lock.holders().map(|(holder, _)| holder).collect();
        let opens: Vec<HolderId> = node.handles.iter().copied().collect();
        let handle = |opened_by| NodeHandle { name: name.clone(), instance, opened_by };
        for HolderId { session, opened_by } in &locks {
            self.clients.unlist_lock(*session, &handle(*opened_by));
        }
        for HolderId { session, opened_by } in &opens {
            self.clients.unlist_open(*session, &handle(*opened_by));
        }
        self.tree.remove(name);
        self.system.quotas_mut().remove_node(name, bytes);
        self.system.forget(name);
        for HolderId { session, .. } in locks.into_iter().chain(opens) {
            if Some(session) != asker {
                self.tidy(session);
            }
        }
    }

    /// The node of a handle that is in use, if the ACL allows this.
    fn held(&self, asked: &ClientWrite, holder: &Holder, access: Access) -> Result<&Node, Refusal> {
        let Holder { name, instance, opened_by, .. } = holder;
        let Some(node) = self.tree.get(name).filter(|node| node.instance == *instance) else {
            return Err(self.stale(holder));
        };
        if !node.may_be_open(HolderId { session: asked.session, opened_by: *opened_by }) {
            return Err(ErrorCode::StaleHandle.because(format!("the handle on {name} is closed")).into());
        }
        self.system.acls().check(&node.acls, name, asked.who(), access)?;
        Ok(node)
    }

    /// The node of a handle that was just looked at, for the change.
    fn held_mut(&mut self, holder: &Holder) -> &mut Node {
        self.tree.get_mut(&holder.name, holder.instance).expect("just looked at")
    }

    /// The refusal of a handle whose node is not there.
    fn stale(&self, holder: &Holder) -> Refusal {
        let Holder { name, instance, .. } = holder;
        match self.check_cell(name) {
            Ok(()) => ErrorCode::StaleHandle.because(format!("node {instance} of {name} is gone")).into(),
            Err(elsewhere) => elsewhere,
        }
    }

    /// Checks that a directory that a name was relative to is still there. One that another cell holds cannot
    /// be checked here.
    fn check_base(&self, base: Option<&(Name, Instance)>) -> Result<(), Error> {
        let Some((name, instance)) = base else { return Ok(()) };
        let stands = self.tree.get(name).is_some_and(|node| node.instance == *instance);
        if stands || (self.check_cell(name).is_err() && !self.has_later_root(name, *instance)) {
            return Ok(());
        }
        Err(ErrorCode::StaleHandle.because(format!("directory {instance} of {name} is gone")))
    }

    /// Whether another cell's directory of that name is known to be a later one than that.
    pub fn has_later_root(&self, name: &Name, instance: Instance) -> bool {
        self.tree.roots().get(name).is_some_and(|root| root.instance > instance)
    }

    fn check_acl_names(&self, acls: &AclNames) -> Result<(), Error> {
        self.system.acl_directory().map_or(Ok(()), |directory| check_acl_names(directory, acls))
    }

    /// Whether the partition map has a rule for exactly this name, plain or for the directories below it.
    fn has_rule(&self, name: &Name) -> bool {
        self.map().has_rule(name)
    }
}

/// A stamp greater than all before it in the cell.
pub(super) fn next(stamp: &mut u64) -> u64 {
    *stamp += 1;
    *stamp
}

fn handle_of(holder: &Holder) -> NodeHandle {
    NodeHandle { name: holder.name.clone(), instance: holder.instance, opened_by: holder.opened_by }
}

fn check_contents(kind: NodeKind, contents: &Bytes) -> Result<(), Error> {
    if kind == NodeKind::Directory && !contents.is_empty() {
        return Err(ErrorCode::InvalidArgument.because("a directory has no contents"));
    }
    if contents.len() > CONTENTS_BYTES_MAX {
        let detail = format!("{} bytes of contents, the limit is {CONTENTS_BYTES_MAX}", contents.len());
        return Err(ErrorCode::TooLarge.because(detail));
    }
    Ok(())
}

/// Compare-and-swap, if it was asked for.
fn check_generation(which: &str, current: Generation, expected: Option<Generation>) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != current => {
            let detail = format!("{which} generation is {current}, not {expected}");
            Err(ErrorCode::GenerationMismatch.because(detail))
        }
        _ => Ok(()),
    }
}

/// The refusal of what a speaker without a session says. If it speaks for another, that is its own misfortune, not
/// its client's.
pub(super) fn expired(session: SessionId, via: Option<SessionId>) -> Outcome {
    match via {
        Some(via) => {
            Outcome::failed(ErrorCode::Unavailable, format!("{via:?} is over or was never of that kind"))
        }
        None => Outcome::failed(ErrorCode::SessionExpired, format!("{session:?} is over")),
    }
}
