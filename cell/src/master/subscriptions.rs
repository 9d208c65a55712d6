//! Who wants to hear of what (paper §2.5): by node, in the master's memory only. A successor knows of
//! none; holders show their handles again after a fail-over.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::event::{EventKind, EventMask, HandleId};
use hasp_proto::id::{Claim, Instance, SessionId};
use hasp_proto::name::Name;

/// One handle that wants to hear of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The session that is told: the client's own, or that of the host it is behind.
    pub(super) speaker: SessionId,
    /// With which the speaker spoke for the client.
    pub(super) claim: Claim,
    pub(super) instance: Instance,
    pub(super) mask: EventMask,
    /// Who must be allowed to read the node.
    pub(super) principal: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    by_name: BTreeMap<Name, BTreeMap<HandleId, Subscription>>,
    names: BTreeMap<HandleId, Name>,
    by_speaker: BTreeMap<SessionId, BTreeSet<HandleId>>,
}

impl Subscriptions {
    /// A handle was opened, or shown again. The last word on it counts.
    pub(super) fn subscribe(&mut self, handle: HandleId, name: &Name, subscription: Subscription) {
        self.unsubscribe(handle);
        if subscription.mask.is_empty() {
            return;
        }
        self.by_speaker.entry(subscription.speaker).or_default().insert(handle);
        self.names.insert(handle, name.clone());
        self.by_name.entry(name.clone()).or_default().insert(handle, subscription);
    }

    /// A handle was closed.
    pub(super) fn unsubscribe(&mut self, handle: HandleId) {
        let Some(name) = self.names.remove(&handle) else { return };
        let Some(handles) = self.by_name.get_mut(&name) else { return };
        let subscription = handles.remove(&handle);
        if handles.is_empty() {
            self.by_name.remove(&name);
        }
        if let Some(subscription) = subscription
            && let Some(handles) = self.by_speaker.get_mut(&subscription.speaker)
        {
            handles.remove(&handle);
            if handles.is_empty() {
                self.by_speaker.remove(&subscription.speaker);
            }
        }
    }

    /// A node is gone, and with it what its handles wanted to hear.
    pub(super) fn forget_node(&mut self, name: &Name, instance: Instance) {
        let Some(handles) = self.by_name.get(name) else { return };
        let its: Vec<_> =
            handles.iter().filter(|(_, it)| it.instance == instance).map(|(handle, _)| *handle).collect();
        its.into_iter().for_each(|handle| self.unsubscribe(handle));
    }

    /// Nodes of such names are another cell's from here on. Returns who was told of them.
    pub(super) fn forget_names(&mut self, is_meant: impl Fn(&Name) -> bool) -> BTreeSet<SessionId> {
        let named = self.names.iter().filter(|(_, name)| is_meant(name));
        let its: Vec<_> = named.map(|(handle, _)| *handle).collect();
        let all = self.by_speaker.iter();
        let told = all.filter(|(_, handles)| its.iter().any(|handle| handles.contains(handle)));
        let told = told.map(|(speaker, _)| *speaker).collect();
        its.into_iter().for_each(|handle| self.unsubscribe(handle));
        told
    }

    /// A client is gone, with all its handles, as far as those know who spoke for it with this claim or before.
    pub(super) fn forget_client(&mut self, client: SessionId, claim: Claim) {
        let first = HandleId { session: client, opened_by: Default::default() };
        let its: Vec<_> = self
            .names
            .range(first..)
            .take_while(|(handle, _)| handle.session == client)
            .filter(|(handle, name)| {
                let it = self.by_name.get(*name).and_then(|handles| handles.get(handle));
                it.is_some_and(|it| it.claim <= claim)
            })
            .map(|(handle, _)| *handle)
            .collect();
        its.into_iter().for_each(|handle| self.unsubscribe(handle));
    }

    /// A session is over; nobody is there to be told.
    pub(super) fn forget_speaker(&mut self, speaker: SessionId) {
        for handle in self.by_speaker.remove(&speaker).unwrap_or_default() {
            self.unsubscribe(handle);
        }
    }

    /// The handles that want to hear of such an event, in order.
    pub(super) fn of(
        &self,
        name: &Name,
        instance: Instance,
        kind: EventKind,
    ) -> impl Iterator<Item = (HandleId, &Subscription)> {
        self.by_name
            .get(name)
            .into_iter()
            .flatten()
            .filter(move |(_, it)| it.instance == instance && it.mask.contains(kind))
            .map(|(handle, it)| (*handle, it))
    }

    /// The instance of that name that somebody wants to hear of. If they are several the state was ahead when the later one
    /// was opened: the end of the first is yet to be told, and what is told before that is of the first.
    pub(super) fn instance_of(&self, name: &Name) -> Option<Instance> {
        self.by_name.get(name)?.values().map(|it| it.instance).min()
    }

    /// Whether anybody wants to hear anything of this name.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn check_invariants(&self) {
        let count: usize = self.by_name.values().map(BTreeMap::len).sum();
        assert_eq!(count, self.names.len(), "every handle is listed under its name");
        let by_speaker: usize = self.by_speaker.values().map(BTreeSet::len).sum();
        assert_eq!(count, by_speaker, "and under its speaker");
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::RequestNumber;

    use super::*;

    const S1: SessionId = SessionId([1; 16]);
    const S2: SessionId = SessionId([2; 16]);

    fn name() -> Name {
        Name::parse("/ls/dev/f").expect("good")
    }

    fn handle(session: SessionId, number: u64) -> HandleId {
        HandleId { session, opened_by: RequestNumber(number) }
    }

    fn subscription(speaker: SessionId, kinds: &[EventKind]) -> Subscription {
        Subscription {
            speaker,
            claim: Claim(1),
            instance: Instance(7),
            mask: EventMask::of(kinds.iter().copied()),
            principal: "alice".into(),
        }
    }

    fn told(subscriptions: &Subscriptions, kind: EventKind) -> Vec<HandleId> {
        subscriptions.check_invariants();
        subscriptions.of(&name(), Instance(7), kind).map(|(handle, _)| handle).collect()
    }

    #[test]
    fn a_handle_hears_what_it_asked_for_of_its_instance_until_it_is_closed() {
        let mut all = Subscriptions::default();
        all.subscribe(handle(S1, 1), &name(), subscription(S1, &[EventKind::ContentsModified]));
        all.subscribe(handle(S2, 1), &name(), subscription(S2, &[EventKind::LockAcquired]));

        assert_eq!(told(&all, EventKind::ContentsModified), [handle(S1, 1)]);
        assert_eq!(all.of(&name(), Instance(8), EventKind::ContentsModified).count(), 0);
        all.unsubscribe(handle(S1, 1));
        assert_eq!(told(&all, EventKind::ContentsModified), []);
        assert_eq!(told(&all, EventKind::LockAcquired), [handle(S2, 1)]);
    }

    #[test]
    fn a_handle_shown_through_another_host_is_told_there_and_no_longer_here() {
        let mut all = Subscriptions::default();
        let proxy = SessionId([9; 16]);
        all.subscribe(handle(S1, 1), &name(), subscription(proxy, &[EventKind::ContentsModified]));

        all.subscribe(handle(S1, 1), &name(), subscription(S2, &[EventKind::ContentsModified]));
        all.forget_speaker(proxy);

        let speakers: Vec<_> =
            all.of(&name(), Instance(7), EventKind::ContentsModified).map(|(_, it)| it.speaker).collect();
        assert_eq!(speakers, [S2]);
    }

    #[test]
    fn with_a_client_go_its_handles_and_no_others() {
        let mut all = Subscriptions::default();
        for number in 1..4 {
            all.subscribe(handle(S1, number), &name(), subscription(S2, &[EventKind::ChildAdded]));
        }
        all.subscribe(handle(S2, 1), &name(), subscription(S2, &[EventKind::ChildAdded]));

        all.forget_client(S1, Claim(1));

        assert_eq!(told(&all, EventKind::ChildAdded), [handle(S2, 1)]);
    }
}
