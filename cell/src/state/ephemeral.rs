//! Ephemeral nodes: which handles keep one in being, and how it goes (paper §2.3, `time-4`).
//!
//! ```text
//!                          last handle closed, or its client ended
//!   Create --> open ------------------------------------------------> abandoned --- Reap --> gone
//!               ^   (a directory with children stays until they go)      |
//!               '---------------- opened, or a child made ---------------'
//! ```
//!
//! The handles are on record with the node and with their clients, so they outlive the master, and the loss of a
//! proxy (`proxy-3`). The state only says which nodes are abandoned; the master proposes that they go.

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Instance, SessionId};
use hasp_proto::limits::HANDLES_PER_CLIENT;
use hasp_proto::name::Name;

use super::State;
use super::access::{Access, Refusal};
use super::clients::NodeHandle;
use super::command::ClientWrite;
use super::lock::HolderId;
use super::node::Node;
use super::outcome::Outcome;

impl State {
    /// The ephemeral nodes that nobody has open and that have no children, by name: the master proposes
    /// a `Reap` for each. Directories whose children live elsewhere are not among them: see [`State::left_elsewhere`]. Nor
    /// are those whose children are on their way from here.
    pub fn abandoned(&self) -> impl Iterator<Item = (Name, Instance)> + '_ {
        let is_here = |(name, _): &(&Name, &Node)| {
            !self.has_children_elsewhere(name) && self.check_children_not_packed(name).is_ok()
        };
        self.tree.abandoned().filter(is_here).map(|(name, node)| (name.clone(), node.instance))
    }

    /// The ephemeral directories that nobody has open and of which another cell knows whether they have children, by
    /// name.
    pub fn left_elsewhere(&self) -> impl Iterator<Item = (Name, Instance)> + '_ {
        let is_elsewhere = |(name, _): &(&Name, &Node)| self.has_children_elsewhere(name);
        self.tree.abandoned().filter(is_elsewhere).map(|(name, node)| (name.clone(), node.instance))
    }

    /// Whether the handle keeps an ephemeral node in being.
    pub fn keeps_open(&self, name: &Name, handle: HolderId) -> bool {
        self.tree.get(name).is_some_and(|node| node.handles.contains(&handle))
    }

    /// Opens a node that was seen, and puts the handle on record if it is ephemeral. If the node has gone since,
    /// there is nothing to open: somebody who asks by name is not told of a stale handle.
    pub(super) fn open(
        &mut self,
        asked: &ClientWrite,
        handle: NodeHandle,
        access: Access,
    ) -> Result<Outcome, Refusal> {
        let NodeHandle { name, instance, .. } = &handle;
        let Some(node) = self.tree.get(name).filter(|node| node.instance == *instance) else {
            self.check_cell(name)?;
            return Err(ErrorCode::NotFound.because(name.to_string()).into());
        };
        self.system.acls().check(&node.acls, name, asked.who(), access)?;
        let outcome = Outcome::Created { created: false, stat: Box::new(node.stat()) };
        if node.ephemeral {
            self.check_room(asked.session)?;
            self.put_on_record(asked.session, handle);
        }
        Ok(outcome)
    }

    /// Refuses one more handle on an ephemeral node to a client that has as many as it may.
    pub(super) fn check_room(&self, session: SessionId) -> Result<(), Error> {
        if self.clients.has_room(session) {
            return Ok(());
        }
        let detail = format!("{HANDLES_PER_CLIENT} handles on ephemeral nodes are the most of one client");
        Err(ErrorCode::QuotaExceeded.because(detail))
    }

    /// Records a handle on an ephemeral node that is there.
    pub(super) fn put_on_record(&mut self, session: SessionId, handle: NodeHandle) {
        let NodeHandle { name, instance, opened_by } = &handle;
        let node = self.tree.get_mut(name, *instance).expect("the caller has looked");
        node.handles.insert_mut(HolderId { session, opened_by: *opened_by });
        self.tree.note_opens(name);
        self.clients.list_open(session, handle);
    }

    /// Takes a handle off the record, if it is on it.
    pub(super) fn take_off_record(&mut self, session: SessionId, handle: &NodeHandle) {
        let NodeHandle { name, instance, opened_by } = handle;
        let id = HolderId { session, opened_by: *opened_by };
        if self.tree.get(name).is_some_and(|node| node.instance == *instance && node.handles.contains(&id)) {
            let node = self.tree.get_mut(name, *instance).expect("just seen");
            node.handles.remove_mut(&id);
            self.tree.note_opens(name);
            self.clients.unlist_open(session, handle);
        }
    }

    /// Deletes an abandoned node. Its parent may be abandoned then.
    pub(super) fn reap(&mut self, name: &Name, instance: Instance) -> Outcome {
        let is_that = self.tree.get(name).is_some_and(|node| node.instance == instance);
        let deleted = is_that
            && self.tree.is_abandoned(name)
            && !self.has_children_elsewhere(name)
            && self.check_children_not_packed(name).is_ok();
        if deleted {
            self.remove_node(name, None);
        }
        Outcome::Reaped { deleted }
    }
}
