//! What sessions are told without having asked: that what they cache is about to change (`cache-1`), and
//! what happened to the nodes they subscribed to (P-EVENT).

use std::collections::BTreeMap;

use hasp_proto::crossing::CrossOp;
use hasp_proto::event::{EventKind, HandleId, NodeEvent};
use hasp_proto::id::{Instance, Sequence, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::position::Position;
use hasp_proto::request::{EndCause, Op};
use hasp_proto::server::cachers::RoundId;
use hasp_proto::stream::News;

use super::proposals::Purpose;
use super::requests::Cachable;
use super::waiting::Waiter;
use super::{MasterCore, changes};
use crate::state::{Access, Command, Outcome, Who};

/// An event before it is addressed.
struct Happened<'a> {
    kind: EventKind,
    name: &'a Name,
    instance: Instance,
    child: Option<&'a str>,
    position: &'a Position,
}

impl MasterCore {
    /// Proposes a command once nobody caches what it changes (`cache-1`).
    pub(super) fn change(&mut self, command: Command, purpose: Purpose) {
        let items = changes::of(&self.state, &command);
        if items.is_empty() {
            return self.proposals.add(command, purpose);
        }
        self.change_items(items, command, purpose);
    }

    /// Proposes what a router asks for the sake of another cell. What is about to be packed is cached by nobody from here
    /// on (`move-2`), also of those who may have cached it under an earlier master.
    pub(super) fn cross(&mut self, op: CrossOp, purpose: Purpose) {
        if !matches!(op, CrossOp::Pack { version } if version == self.state.map().version) {
            return self.change(Command::Cross(op), purpose);
        }
        self.packing += 1;
        let mut items = self.cachers.items_held();
        items.retain(|item| changes::is_leaving(&self.state, item));
        self.change_items(items, Command::Cross(op), purpose);
    }

    fn change_items(&mut self, items: Vec<Item>, command: Command, purpose: Purpose) {
        self.rounds += 1;
        let round = RoundId(self.rounds);
        let tell = self.cachers.begin(round, items);
        self.proposals.hold(round, command, purpose);
        let floor = self.state.position();
        for (session, items) in tell {
            let news = News::Invalidate { items: items.clone(), floor: floor.clone() };
            match self.server.tell(self.now, session, news) {
                Some(sequence) => self.cachers.told(session, sequence, items),
                // It is over, or this was too much news for it: its copies count until it fades.
                None if self.server.holder(session).is_some() => {}
                None if self.fading.get(session).is_some() => {}
                None => self.holds_nothing(session),
            }
        }
        if self.cachers.is_ready(round) {
            self.proposals.let_go(round);
        }
    }

    pub(super) fn acknowledged(&mut self, session: SessionId, sequence: Sequence) {
        for round in self.cachers.acknowledged(session, sequence) {
            self.proposals.let_go(round);
        }
    }

    /// A session is over. One that said so uses nothing any more; another may until its cache lease ends.
    pub(super) fn fade(&mut self, session: SessionId, cause: EndCause) {
        let cache_end = self.server.cache_end(session).filter(|_| cause == EndCause::Failed);
        match cache_end.filter(|end| *end > self.now) {
            Some(end) => self.fading.set(session, Some(end)),
            None => self.holds_nothing(session),
        }
    }

    /// Whatever the session had cached is void.
    pub(super) fn holds_nothing(&mut self, session: SessionId) {
        for round in self.cachers.gone(session) {
            self.proposals.let_go(round);
        }
    }

    /// Lets a session cache what it is about to be told; returns what it may.
    pub(super) fn let_cache(&mut self, session: SessionId, cachable: &Cachable) -> ItemKinds {
        // What another cell's ACL guards has to be asked for: nobody here hears when that ACL changes.
        let is_guarded_elsewhere = cachable.acl.as_ref().is_some_and(|acl| self.state.is_foreign_acl(acl));
        if is_guarded_elsewhere || !self.server.may_cache(self.now, session) {
            return ItemKinds::NONE;
        }
        let mut granted = ItemKinds::NONE;
        for kind in cachable.kinds.kinds() {
            let item = Item::new(cachable.name.clone(), kind);
            if self.packing > 0 && changes::is_leaving(&self.state, &item) {
                continue;
            }
            if self.cachers.register(session, &item) {
                granted = granted.with(kind);
            }
        }
        // An ACL without a file here is built in: its decisions never change.
        let is_decided = cachable.acl.as_ref().is_some_and(|acl| match self.state.acl_file(acl) {
            Some(file) => self.cachers.register(session, &Item::new(file, ItemKind::Acl)),
            None => true,
        });
        if is_decided { granted.with(ItemKind::Acl) } else { granted }
    }

    /// Tells of what a request did.
    pub(super) fn tell_done(&mut self, op: &Op, outcome: &Outcome, position: &Position) {
        match (op, outcome) {
            (Op::Open(open), Outcome::Created { created: true, .. }) => {
                self.tell_parent(EventKind::ChildAdded, &open.name, position);
            }
            (Op::SetContents { handle, .. }, Outcome::Written { .. }) => {
                let Some(body) = handle.claimed_body() else { return };
                let (name, instance) = (&body.name, body.instance);
                let kind = EventKind::ContentsModified;
                self.tell(&Happened { kind, name, instance, child: None, position });
                self.tell_parent(EventKind::ChildModified, name, position);
            }
            (Op::SetAcl { handle, .. }, Outcome::AclSet { .. }) => {
                let Some(body) = handle.claimed_body() else { return };
                self.tell_parent(EventKind::ChildModified, &body.name, position);
            }
            (Op::Delete(handle), Outcome::Deleted) => {
                let Some(body) = handle.claimed_body() else { return };
                self.tell_deleted(&body.name, body.instance, position);
            }
            _ => {}
        }
    }

    /// Tells of what was done for the sake of another cell.
    pub(super) fn tell_crossed(&mut self, op: &CrossOp, outcome: &Outcome, position: &Position) {
        match (op, outcome) {
            (CrossOp::Finish { .. } | CrossOp::GiveUp { .. }, Outcome::Written { .. }) => {
                let Some(name) = self.state.map_file().cloned() else { return };
                let Some(instance) = self.state.node(&name).map(|node| node.instance) else { return };
                let kind = EventKind::ContentsModified;
                self.tell(&Happened { kind, name: &name, instance, child: None, position });
                self.tell_parent(EventKind::ChildModified, &name, position);
            }
            (CrossOp::ReapRoot { name, instance, .. }, Outcome::Reaped { deleted: true }) => {
                self.tell_deleted(name, *instance, position);
            }
            (CrossOp::DropRoot { name, instance, .. }, _) => self.subscriptions.forget_node(name, *instance),
            _ => {}
        }
    }

    /// A node is gone, and what was subscribed to of it.
    pub(super) fn tell_deleted(&mut self, name: &Name, instance: Instance, position: &Position) {
        let kind = EventKind::HandleInvalid;
        self.tell(&Happened { kind, name, instance, child: None, position });
        self.subscriptions.forget_node(name, instance);
        self.tell_parent(EventKind::ChildRemoved, name, position);
    }

    /// A handle on a node that is gone by now, since it was opened before: its holder hears so. Others may have to hear first of
    /// what happened to the node until then, if the state is ahead.
    pub(super) fn tell_if_gone(&mut self, handle: HandleId, name: &Name, instance: Instance) {
        if self.state.node(name).is_some_and(|node| node.instance == instance) {
            return;
        }
        self.tell_handle(EventKind::HandleInvalid, handle, name, instance);
        self.subscriptions.unsubscribe(handle);
    }

    /// A lock was granted; if others wait for it already, its holder hears of them.
    pub(super) fn tell_acquired(&mut self, waiter: &Waiter, is_first: bool, position: &Position) {
        let holder = &waiter.lock.holder;
        let (name, instance) = (&holder.name, holder.instance);
        if is_first {
            let kind = EventKind::LockAcquired;
            self.tell(&Happened { kind, name, instance, child: None, position });
        }
        if self.queues.is_wanted(name) {
            let handle = HandleId { session: waiter.actor.client, opened_by: holder.opened_by };
            self.tell_handle(EventKind::LockConflict, handle, name, instance);
        }
    }

    /// Somebody wants a lock that others hold in a mode that conflicts: they hear of it.
    pub(super) fn tell_conflict(&mut self, waiter: &Waiter) {
        let holder = &waiter.lock.holder;
        let asks = HandleId { session: waiter.actor.client, opened_by: holder.opened_by };
        if !self.subscriptions.has(&holder.name) {
            return;
        }
        let Some(node) = self.state.node(&holder.name) else { return };
        let is_compatible =
            node.lock.mode() != Some(LockMode::Exclusive) && waiter.lock.mode == LockMode::Shared;
        if node.instance != holder.instance || is_compatible {
            return;
        }
        let holders: Vec<_> = node
            .lock
            .holders()
            .map(|(id, _)| HandleId { session: id.session, opened_by: id.opened_by })
            .filter(|handle| *handle != asks)
            .collect();
        for handle in holders {
            self.tell_handle(EventKind::LockConflict, handle, &holder.name, holder.instance);
        }
    }

    /// Tells the holder of that handle alone of what has just happened to it.
    fn tell_handle(&mut self, kind: EventKind, handle: HandleId, name: &Name, instance: Instance) {
        let speaker = self
            .subscriptions
            .of(name, instance, kind)
            .find(|(it, _)| *it == handle)
            .map(|(_, it)| it.speaker);
        if let Some(speaker) = speaker {
            let position = self.state.position();
            let event =
                NodeEvent { kind, name: name.clone(), instance, child: None, to: Some(handle), position };
            self.server.tell_event(self.now, speaker, event);
        }
    }

    fn tell_parent(&mut self, kind: EventKind, child: &Name, position: &Position) {
        let Some(parent) = child.parent() else { return };
        let Some(instance) = self.subscriptions.instance_of(&parent) else { return };
        self.tell(&Happened { kind, name: &parent, instance, child: Some(child.component()), position });
    }

    /// One event for each session with handles that may hear of it; addressed to each of them by itself
    /// if others of the same session may not (P-ACL).
    fn tell(&mut self, happened: &Happened<'_>) {
        let Happened { kind, name, instance, child, position } = *happened;
        if !self.subscriptions.has(name) {
            return;
        }
        let mut hearers = BTreeMap::<SessionId, (Vec<HandleId>, bool)>::new();
        for (handle, it) in self.subscriptions.of(name, instance, kind) {
            let may_read = self.state.check_access(name, Who::alone(&it.principal), Access::Read).is_ok();
            let (may, all_may) = hearers.entry(it.speaker).or_insert((Vec::new(), true));
            *all_may &= may_read;
            may.extend(may_read.then_some(handle));
        }
        for (speaker, (handles, all_may)) in hearers {
            let addressees: Vec<_> =
                if all_may { vec![None] } else { handles.into_iter().map(Some).collect() };
            for to in addressees {
                let (name, child) = (name.clone(), child.map(str::to_owned));
                let event = NodeEvent { kind, name, instance, child, to, position: position.clone() };
                self.server.tell_event(self.now, speaker, event);
            }
        }
    }
}
