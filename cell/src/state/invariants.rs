//! What must always hold across the parts of the state; each part checks its own.

use hasp_proto::id::SessionId;
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::position::Position;

use super::State;
use super::clients::{ClientRecord, NodeHandle};
use super::lock::HolderId;
use super::system::System;

impl State {
    /// What must always hold.
    ///
    /// # Panics
    /// If it does not. Walks everything: for tests.
    pub fn check_invariants(&self) {
        self.tree.check_invariants(self.stamp);
        for (session, record) in self.clients.iter() {
            self.check_client(session, record);
        }
        for (session, _) in self.sessions.iter() {
            assert!(self.clients.get(session).is_some(), "{session:?} has a client record");
        }
        for (name, node) in self.tree.iter() {
            for (HolderId { session, opened_by }, _) in node.lock.holders() {
                let lock = NodeHandle { name: name.clone(), instance: node.instance, opened_by };
                let lists = self.clients.get(session).is_some_and(|record| record.holds(&lock));
                assert!(lists, "{session:?} lists the lock it holds on {name}");
            }
            for HolderId { session, opened_by } in node.handles.iter() {
                let open = NodeHandle { name: name.clone(), instance: node.instance, opened_by: *opened_by };
                let lists = self.clients.get(*session).is_some_and(|record| record.keeps_open(&open));
                assert!(lists, "{session:?} lists {name}, which it keeps in being");
            }
        }
        if let Some(genesis) = self.genesis() {
            let read = System::read_all(genesis, &self.tree).expect("files that the cell reads can be read");
            assert!(
                read == self.system,
                "ACLs and quotas are those of the files, and usage is that of the tree"
            );
        }
        assert!(self.lease_max <= LEASE_MAX, "lease-5");
    }

    fn check_client(&self, session: SessionId, record: &ClientRecord) {
        let has_own_session = self.sessions.contains(session);
        match (record.via, record.orphaned_at) {
            _ if record.has_ended => assert!(record.is_idle(), "{session:?} has ended and left nothing"),
            (None, None) => assert!(has_own_session, "{session:?} speaks for itself"),
            (Some(proxy), None) => assert!(self.sessions.is_tier(proxy), "{session:?} has a speaker"),
            // Without a speaker: what it left came from another cell (`move-3`).
            (_, Some(at)) => assert!(at <= self.index, "{session:?} was orphaned in the past"),
        }
        let lingers = record.lingers_since.is_some();
        assert_eq!(
            lingers,
            record.is_idle() && !has_own_session,
            "proxy-1: nothing is known of {session:?} without need for long"
        );
        assert!(record.lingers_since <= Some(self.index), "{session:?} lingers since the past");
        let unsettled = record.answers().all(|(number, _)| number >= record.settled_below);
        assert!(unsettled, "{session:?}: settled answers are forgotten");
        let here = self.position();
        let is_past = |at: &Position| at.cell != here.cell || !here.is_before(at);
        let past = record.answers().all(|(_, kept)| is_past(&kept.applied.position));
        assert!(past, "{session:?}: what was answered took effect in the past");
        for NodeHandle { name, instance, opened_by } in record.locks() {
            let holder = HolderId { session, opened_by: *opened_by };
            let node = self.tree.get(name).filter(|node| node.instance == *instance);
            assert!(
                node.is_some_and(|node| node.lock.is_held_by(holder)),
                "{session:?} holds {name} as listed"
            );
        }
        for NodeHandle { name, instance, opened_by } in record.opens() {
            let handle = HolderId { session, opened_by: *opened_by };
            let node = self.tree.get(name).filter(|node| node.instance == *instance);
            assert!(
                node.is_some_and(|node| node.handles.contains(&handle)),
                "{session:?} keeps {name} in being as listed"
            );
        }
    }
}
