//! What this cell does for the sake of another, and what it needs of others (`route-3`, `route-4`): directories whose node
//! and whose children live in different cells.

use std::collections::BTreeSet;

use hasp_proto::crossing::{Chore, CrossOp, Evidence, Need, Root, SealTicket};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;

use super::State;
use super::access::Refusal;
use super::outcome::Outcome;
use super::roots::{RootRecord, Seal};
use super::writes::next;

impl State {
    /// Does what a router asks for the sake of another cell.
    pub(super) fn cross(&mut self, op: &CrossOp) -> Outcome {
        self.crossed(op).unwrap_or_else(Outcome::from)
    }

    fn crossed(&mut self, op: &CrossOp) -> Result<Outcome, Refusal> {
        Ok(match op {
            CrossOp::Seal { name, instance } => self.seal(name, *instance)?,
            CrossOp::Unseal { name, ticket, .. } => {
                self.check_children_cell(name)?;
                self.tree.roots_mut().unseal(name, *ticket);
                Outcome::Noted
            }
            CrossOp::VoidSeals { name, instance, below } => self.void_seals(name, *instance, *below)?,
            CrossOp::DropRoot { name, instance, as_of } => {
                self.check_children_cell(name)?;
                self.check_is_its_cell(name, &as_of.cell)?;
                if !self.has_children(name) {
                    self.tree.roots_mut().remove(name, *instance);
                }
                self.tree.roots_mut().void_before(name, as_of.clone());
                Outcome::Noted
            }
            CrossOp::UpdateRoot(root) => self.update_root(root)?,
            CrossOp::ReapRoot { name, instance, ticket } => {
                self.check_cell(name)?;
                self.reap_root(name, *instance, *ticket)
            }
            CrossOp::Propagated { name, instance, acl_generation } => {
                self.check_cell(name)?;
                if self.is_there(name, *instance) {
                    self.tree.roots_mut().propagated(name, *acl_generation);
                }
                Outcome::Noted
            }
            CrossOp::Adopt(map) => self.adopt(map)?,
            CrossOp::Pack { version } => self.pack(*version)?,
            CrossOp::Import { version, from, part, parts, data } => {
                self.import(*version, from, *part, *parts, data)?
            }
            CrossOp::Finish { version } => self.finish_move(*version)?,
            CrossOp::GiveUp { version, why } => self.give_up_move(*version, why)?,
            CrossOp::Announced { version } => self.map_announced(*version),
            CrossOp::DescribeRoot(_)
            | CrossOp::ReadAcl(_)
            | CrossOp::ReadMap
            | CrossOp::Export { .. }
            | CrossOp::ListRoot { .. }
            | CrossOp::WatchRoot { .. }
            | CrossOp::Chores
            | CrossOp::Vouch(_) => {
                let detail = format!("{} changes nothing", op.name());
                return Err(ErrorCode::InvalidArgument.because(detail).into());
            }
        })
    }

    /// Lets nobody create below the directory, if it has no child. That and the look are one step.
    fn seal(&mut self, name: &Name, instance: Instance) -> Result<Outcome, Refusal> {
        self.check_holds_children(name)?;
        let roots = self.tree.roots();
        let known = roots.get(name).map(|record| record.instance);
        let seal = roots.seal(name);
        let gone = || ErrorCode::StaleHandle.because(format!("directory {instance} of {name} is gone"));
        if known.max(seal.map(|seal| seal.instance)) > Some(instance) {
            return Err(gone().into());
        }
        if let Some(Seal { ticket, .. }) = seal.filter(|seal| seal.instance == instance) {
            return Ok(Outcome::Sealed(ticket));
        }
        if self.has_children(name) {
            return Err(ErrorCode::NotEmpty.because(format!("{name} has children")).into());
        }
        let ticket = SealTicket(next(&mut self.stamp));
        self.tree.roots_mut().insert_seal(name, Seal { instance, ticket });
        Ok(Outcome::Sealed(ticket))
    }

    fn void_seals(&mut self, name: &Name, instance: Instance, below: SealTicket) -> Result<Outcome, Refusal> {
        self.check_cell(name)?;
        if !self.is_there(name, instance) {
            let detail = format!("directory {instance} of {name} is gone");
            return Err(ErrorCode::StaleHandle.because(detail).into());
        }
        self.tree.roots_mut().void_seals(name, below);
        Ok(Outcome::Noted)
    }

    /// An ephemeral directory goes that nobody has open, and that has no child in the other cell while the seal counts.
    fn reap_root(&mut self, name: &Name, instance: Instance, ticket: SealTicket) -> Outcome {
        let deleted = self.is_there(name, instance)
            && self.tree.is_abandoned(name)
            && self.tree.roots().counts(name, ticket)
            && self.check_children_not_packed(name).is_ok();
        if deleted {
            self.remove_node(name, None);
        }
        Outcome::Reaped { deleted }
    }

    /// What was left behind between this cell and others, in order.
    pub fn chores(&self) -> BTreeSet<Chore> {
        let roots = self.tree.roots();
        let ends = self.left_elsewhere().map(|(name, instance)| Chore::End { name, instance });
        let unseal = |(name, Seal { instance, ticket }): (&Name, Seal)| Chore::Unseal {
            name: name.clone(),
            instance,
            ticket,
        };
        let propagate = |(name, _): (&Name, Generation)| {
            let instance = self.tree.get(name)?.instance;
            Some(Chore::Propagate { name: name.clone(), instance })
        };
        let left = ends.chain(roots.seals().map(unseal)).chain(roots.unpropagated().filter_map(propagate));
        left.chain(self.moving_chore()).collect()
    }

    fn is_there(&self, name: &Name, instance: Instance) -> bool {
        self.tree.get(name).is_some_and(|node| node.instance == instance)
    }

    /// Its ACL names are these from here on, unless something later is known of it.
    fn update_root(&mut self, root: &Root) -> Result<Outcome, Refusal> {
        self.check_holds_children(&root.name)?;
        self.check_is_its_cell(&root.name, root.cell())?;
        let roots = self.tree.roots_mut();
        if let Some(known) = roots.get(&root.name)
            && known.is_of(root.instance)
            && known.acl_generation < root.acl_generation
        {
            let record = RootRecord { instance: known.instance, ..RootRecord::from(root) };
            roots.insert(&root.name, record);
        }
        roots.void_before(&root.name, root.as_of.clone());
        Ok(Outcome::Noted)
    }

    /// Sees that a directory of another cell can have children here (`route-3`). What evidence says of it is kept.
    pub(super) fn admit_root(&mut self, name: &Name, evidence: Option<&Evidence>) -> Result<(), Refusal> {
        if !self.is_foreign_directory(name) {
            return Ok(());
        }
        let described = self.described(name, evidence);
        let roots = self.tree.roots();
        match (roots.get(name), roots.seal(name), described) {
            (Some(known), _, Some(root)) if known.instance < root.instance && !known.is_of(root.instance) => {
                if self.has_children(name) {
                    let detail = format!("{name} has children of an earlier directory of its name");
                    return Err(ErrorCode::Unavailable.because(detail).into());
                }
            }
            (Some(_), _, _) => return Ok(()),
            (None, Some(seal), root) if root.is_none_or(|root| root.instance <= seal.instance) => {
                let Seal { instance, ticket } = seal;
                return Err(Need::Unseal { name: name.clone(), instance, ticket }.into());
            }
            (None, ..) => {}
        }
        let root = described.ok_or_else(|| Need::Root(name.clone()))?;
        self.tree.roots_mut().insert(name, root.into());
        Ok(())
    }

    /// What evidence says of a directory, if that counts.
    pub fn described<'a>(&self, name: &Name, evidence: Option<&'a Evidence>) -> Option<&'a Root> {
        let root = evidence?.root.as_ref()?;
        let is_its_cell = self.map().owner(name) == Some(root.cell());
        (root.name == *name && is_its_cell && self.tree.roots().is_current(root)).then_some(root)
    }

    /// Whether the directory of that name has its node in another cell than its children, and the children here.
    pub fn is_foreign_directory(&self, name: &Name) -> bool {
        self.homes(name).is_some_and(|(node, children, own)| node != own && children == own)
    }

    /// Whether the directory of that name has its node here and its children in another cell.
    pub fn has_children_elsewhere(&self, name: &Name) -> bool {
        let is_directory = self.tree.get(name).is_some_and(|node| node.kind == NodeKind::Directory);
        is_directory && self.homes(name).is_some_and(|(node, children, own)| node == own && children != own)
    }

    /// All root records, by name.
    pub fn roots(&self) -> impl Iterator<Item = (&Name, &RootRecord)> {
        self.tree.roots().records()
    }

    /// The root record of a directory of another cell.
    pub fn root(&self, name: &Name) -> Option<&RootRecord> {
        self.tree.roots().get(name)
    }

    /// The cells of a directory's node and of its children, and this one.
    fn homes(&self, name: &Name) -> Option<(&CellName, &CellName, &CellName)> {
        let genesis = self.genesis()?;
        Some((self.map().owner(name)?, self.map().children_owner(name)?, &genesis.cell))
    }

    /// What a cell says of a directory counts if its node is there, by the map of both.
    fn check_is_its_cell(&self, name: &Name, cell: &CellName) -> Result<(), Error> {
        let map = self.map();
        if map.owner(name) == Some(cell) {
            return Ok(());
        }
        let detail = format!("by version {} of the map {name} is not in cell {cell}", map.version);
        Err(ErrorCode::WrongCell { map_version: map.version }.because(detail))
    }

    fn check_holds_children(&self, name: &Name) -> Result<(), Refusal> {
        self.check_children_cell(name)?;
        if self.is_foreign_directory(name) {
            return Ok(());
        }
        let detail = format!("{name} is no directory with its children here and its node elsewhere");
        Err(ErrorCode::WrongCell { map_version: self.map().version }.because(detail).into())
    }
}
