//! Which sessions below want to hear of which nodes: learned from the handles that cells give out, so
//! that an event from above finds its hearers (P-EVENT). What a handle may hear of is the cell's decision.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::event::{EventMask, HandleId, NodeEvent};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;

/// One handle that wants to hear of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subscription {
    /// That tells of it.
    cell: CellName,
    /// That made the handle: another, if the node has moved since.
    issuer: CellName,
    mask: EventMask,
    /// The session that is told: the client's own, or that of the proxy it is behind.
    speaker: SessionId,
}

/// The table. As long as the sessions below have such handles open, which is bounded for each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    by_node: BTreeMap<(Name, Instance), BTreeMap<HandleId, Subscription>>,
    nodes: BTreeMap<HandleId, (Name, Instance)>,
}

impl Subscriptions {
    /// A cell gave out a handle, or took one for good: its events come to `speaker` from here on. The node is in the
    /// cell of the handle unless another is given.
    pub(super) fn subscribe(&mut self, speaker: SessionId, handle: &HandleToken, owner: Option<&CellName>) {
        let Some(body) = handle.claimed_body() else { return };
        let HandleBody { cell: issuer, name, instance, session, opened_by, events: mask, .. } = body;
        let id = HandleId { session, opened_by };
        self.unsubscribe(id);
        if mask.is_empty() {
            return;
        }
        let cell = owner.unwrap_or(&issuer).clone();
        let node = (name, instance);
        self.nodes.insert(id, node.clone());
        self.by_node.entry(node).or_default().insert(id, Subscription { cell, issuer, mask, speaker });
    }

    /// A handle is closed.
    pub(super) fn unsubscribe(&mut self, handle: HandleId) {
        let Some(node) = self.nodes.remove(&handle) else { return };
        if let Some(handles) = self.by_node.get_mut(&node) {
            handles.remove(&handle);
            if handles.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// A client is gone, with all its handles.
    pub(super) fn forget_client(&mut self, client: SessionId) {
        let all = HandleId { session: client, opened_by: RequestNumber(0) }..=HandleId {
            session: client,
            opened_by: RequestNumber(u64::MAX),
        };
        let its: Vec<_> = self.nodes.range(all).map(|(handle, _)| *handle).collect();
        its.into_iter().for_each(|handle| self.unsubscribe(handle));
    }

    /// What that cell took for good, it did under a mastership or in a session that is over: handles must be shown to it
    /// again, or they would hear of what they may not hear of any more (P-ACL).
    pub(super) fn forget_cell(&mut self, cell: &CellName) {
        self.forget(|it| it.cell == *cell);
    }

    /// Nodes of such names are another cell's: it knows of no subscription. Returns who was told before, by handles of which
    /// cell.
    pub(super) fn forget_names(
        &mut self,
        is_meant: impl Fn(&Name) -> bool,
    ) -> BTreeSet<(SessionId, CellName)> {
        let moved = self.by_node.iter().filter(|((name, _), _)| is_meant(name));
        let its: Vec<_> = moved
            .flat_map(|(_, handles)| handles)
            .map(|(handle, it)| (*handle, (it.speaker, it.issuer.clone())))
            .collect();
        its.iter().for_each(|(handle, _)| self.unsubscribe(*handle));
        its.into_iter().map(|(_, speaker)| speaker).collect()
    }

    /// The session of a proxy is gone: nobody is there to be told for its clients.
    pub(super) fn forget_speaker(&mut self, speaker: SessionId) {
        self.forget(|it| it.speaker == speaker);
    }

    fn forget(&mut self, is_meant: impl Fn(&Subscription) -> bool) {
        let is_meant = |(_, it): &(&HandleId, &Subscription)| is_meant(it);
        let all = self.by_node.values().flatten();
        let its: Vec<_> = all.filter(is_meant).map(|(handle, _)| *handle).collect();
        its.into_iter().for_each(|handle| self.unsubscribe(handle));
    }

    /// The sessions that are to be told of an event, each once. One that is meant for a single handle goes
    /// to that handle's client and to nobody else.
    pub(super) fn hearers(&self, event: &NodeEvent) -> BTreeSet<SessionId> {
        let handles = self.by_node.get(&(event.name.clone(), event.instance));
        match (event.to, handles) {
            (Some(handle), handles) => {
                let speaker = handles.and_then(|handles| handles.get(&handle)).map(|it| it.speaker);
                BTreeSet::from([speaker.unwrap_or(handle.session)])
            }
            (None, handles) => {
                let wants = |it: &&Subscription| it.mask.contains(event.kind);
                handles.into_iter().flat_map(BTreeMap::values).filter(wants).map(|it| it.speaker).collect()
            }
        }
    }

    /// The sessions that subscribed to anything in that cell with a handle of another, and of which.
    pub(super) fn strangers_in(&self, cell: &CellName) -> BTreeSet<(SessionId, CellName)> {
        let all = self.by_node.values().flat_map(BTreeMap::values);
        let strangers = all.filter(|it| it.cell == *cell && it.issuer != *cell);
        strangers.map(|it| (it.speaker, it.issuer.clone())).collect()
    }

    /// The sessions that subscribed to anything in that cell.
    pub(super) fn hearers_of(&self, cell: &CellName) -> BTreeSet<SessionId> {
        let all = self.by_node.values().flat_map(BTreeMap::values);
        all.filter(|it| it.cell == *cell).map(|it| it.speaker).collect()
    }

    pub(super) fn check_invariants(&self) {
        let pairs: usize = self.by_node.values().map(BTreeMap::len).sum();
        assert_eq!(pairs, self.nodes.len(), "every handle is listed under its node");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hasp_proto::event::EventKind;
    use hasp_proto::handle::HandleKey;
    use hasp_proto::id::Epoch;
    use hasp_proto::node::NodeKind;
    use hasp_proto::position::Position;
    use hasp_proto::request::Use;

    use super::*;

    const S1: SessionId = SessionId([1; 16]);
    const S2: SessionId = SessionId([2; 16]);
    const PROXY: SessionId = SessionId([9; 16]);

    fn name() -> Name {
        Name::parse("/ls/dev/f").expect("good")
    }

    fn handle(session: SessionId, number: u64, kinds: &[EventKind]) -> HandleToken {
        HandleKey::new(bytes::Bytes::from_static(b"key")).seal(&HandleBody {
            cell: CellName::new("a"),
            name: name(),
            instance: Instance(7),
            kind: NodeKind::File,
            r#use: Use::Read,
            session,
            opened_by: RequestNumber(number),
            epoch: Epoch(1),
            lock_delay: Duration::ZERO,
            events: EventMask::of(kinds.iter().copied()),
            ephemeral: false,
        })
    }

    fn event(kind: EventKind, instance: u64, to: Option<HandleId>) -> NodeEvent {
        let (name, instance) = (name(), Instance(instance));
        NodeEvent { kind, name, instance, child: None, to, position: Position::default() }
    }

    fn heard(all: &Subscriptions, event: &NodeEvent) -> Vec<SessionId> {
        all.check_invariants();
        all.hearers(event).into_iter().collect()
    }

    #[test]
    fn a_session_hears_once_of_what_its_handles_subscribed_to_of_that_instance() {
        let mut all = Subscriptions::default();
        all.subscribe(S1, &handle(S1, 1, &[EventKind::ContentsModified]), None);
        all.subscribe(S1, &handle(S1, 2, &[EventKind::ContentsModified]), None);
        all.subscribe(S2, &handle(S2, 1, &[EventKind::LockAcquired]), None);
        all.subscribe(S2, &handle(S2, 2, &[]), None);

        assert_eq!(heard(&all, &event(EventKind::ContentsModified, 7, None)), [S1]);
        assert_eq!(heard(&all, &event(EventKind::ContentsModified, 8, None)), [], "another node");
        assert_eq!(heard(&all, &event(EventKind::LockAcquired, 7, None)), [S2]);
    }

    #[test]
    fn an_event_for_one_handle_goes_to_its_client_alone() {
        let mut all = Subscriptions::default();
        all.subscribe(S1, &handle(S1, 1, &[EventKind::LockConflict]), None);
        all.subscribe(PROXY, &handle(S2, 1, &[EventKind::LockConflict]), None);
        let to = |session| Some(HandleId { session, opened_by: RequestNumber(1) });

        assert_eq!(heard(&all, &event(EventKind::LockConflict, 7, to(S1))), [S1]);
        assert_eq!(heard(&all, &event(EventKind::LockConflict, 7, to(S2))), [PROXY], "behind which it is");
    }

    #[test]
    fn what_is_closed_or_gone_hears_nothing() {
        let mut all = Subscriptions::default();
        for number in 1..=3 {
            all.subscribe(S1, &handle(S1, number, &[EventKind::ContentsModified]), None);
        }
        all.subscribe(PROXY, &handle(S2, 1, &[EventKind::ContentsModified]), None);
        all.unsubscribe(HandleId { session: S1, opened_by: RequestNumber(2) });
        assert_eq!(all.hearers_of(&CellName::new("a")).len(), 2);
        assert!(all.hearers_of(&CellName::new("b")).is_empty());

        all.forget_client(S1);
        assert_eq!(heard(&all, &event(EventKind::ContentsModified, 7, None)), [PROXY]);
        all.forget_speaker(PROXY);
        assert_eq!(heard(&all, &event(EventKind::ContentsModified, 7, None)), []);
    }
}
