//! What the holder of a session keeps of what it has read: an application's library for one
//! principal, a proxy for many (paper §2.7).
//!
//! Items of a name are kept, and fall, one by one (`cache-2`); open handles and the results of Opens
//! hang on them. The machine knows no clock: whoever serves from it checks first that the cache lease
//! is valid (`lease-3`), and drops everything when it was not ([`Cache::flush_cell`],
//! [`Cache::flush_all`]).
//!
//! ```text
//! fill:   ticket -- asked, answered --> fill -- not voided since the ticket, above the floor --> kept
//! item:   kept -- invalidated, flushed, crowded out --> not kept
//! floor:  an invalidation of an item leaves its position behind: nothing read there or earlier is
//!         kept any more, also if nothing was (cache-3)
//! ```
//!
//! The owner acknowledges an invalidation after [`Cache::invalidate`] and whatever it built on the
//! items is gone. After each fill it calls [`Cache::shrink`].

mod entry;
mod floors;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::id::{CellName, Epoch, Instance};
use crate::item::{Item, ItemKind, ItemKinds};
use crate::name::Name;
use crate::node::{AclNames, Child, Stat};
use crate::position::Position;
use crate::request::{Answer, Reply};

use entry::Entry;
use floors::Floors;

/// Bytes that an application's library keeps unless it is told otherwise.
pub const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The right to keep what a read brings, unless it is voided meanwhile (`cache-3`). To be taken when
/// the read is sent for the first time, or earlier.
#[derive(Clone, Debug)]
pub struct FillTicket {
    since: Step,
    name: Name,
    instance: Option<Instance>,
}

impl FillTicket {
    /// The node that is read.
    pub const fn name(&self) -> &Name {
        &self.name
    }
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit<T> {
    /// What.
    pub value: T,
    /// Where it was read; it has not changed since.
    pub position: Position,
}

/// A directory's children, as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by component; lock generations are 0.
    pub children: Arc<[Child]>,
    /// Of the directory.
    pub acls: AclNames,
}

/// Counts what happens to a cache, so that before and after can be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Step(u64);

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Cache {
    bytes_max: usize,
    bytes: usize,
    steps: Step,
    entries: BTreeMap<Name, Entry>,
    /// Names by their last use.
    used: BTreeMap<Step, Name>,
    floors: Floors,
}

impl Cache {
    /// Keeps about that many bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            steps: Step::default(),
            entries: BTreeMap::new(),
            used: BTreeMap::new(),
            floors: Floors::default(),
        }
    }

    /// About how many bytes are kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of how many names something is kept.
    pub fn names(&self) -> usize {
        self.entries.len()
    }

    /// A read of that node is about to be sent: `Open` by name, anything else on a handle of that
    /// instance. The name is the node's true one, not below `/ls/local`.
    pub fn ticket(&mut self, name: Name, instance: Option<Instance>) -> FillTicket {
        FillTicket { since: self.step(), name, instance }
    }

    /// Keeps of an answer what may be kept: what its `caches` say, unless that was voided since the
    /// ticket or is at or below the floor. Returns which kinds are kept; `Acl` is that of the node's
    /// `acls.read`.
    pub fn fill(&mut self, ticket: FillTicket, principal: &str, answer: &Answer) -> ItemKinds {
        let FillTicket { since, name, instance } = ticket;
        let Some(position) = &answer.position else { return ItemKinds::NONE };
        let mut fill = Fill { cache: self, since, granted: answer.caches, kept: ItemKinds::NONE, position };
        match &answer.result {
            // What was created may have changed since the position of its creation.
            Ok(Reply::Opened { created: true, .. }) => {}
            Ok(Reply::Opened { handle, stat, .. }) => {
                // What was asked for may have been relative to the host's own namespace.
                let name = handle.claimed_body().map_or(name, |body| body.name);
                fill.node(&name, principal, stat, None);
            }
            Ok(Reply::Stat(stat)) => fill.node_of(instance, &name, principal, stat, None),
            Ok(Reply::Contents { contents, stat }) => {
                fill.node_of(instance, &name, principal, stat, Some(contents));
            }
            Ok(Reply::Children { children, acls }) => {
                fill.listing(&name, instance, principal, children, acls)
            }
            Err(error) if error.code == ErrorCode::NotFound => fill.absence(&name),
            Ok(_) | Err(_) => {}
        }
        fill.kept
    }

    /// Drops these items and leaves the floor behind; tickets from before are void for them.
    pub fn invalidate(&mut self, items: &[Item], floor: &Position) {
        let at = self.step();
        for item in items {
            self.floors.raise(item, at, floor);
            self.change(&item.name, |entry| entry.void(item.kind));
        }
    }

    /// Drops what is kept of that cell; tickets from before are void for it. With the epoch of a new
    /// master, nothing that an earlier one said is kept any more.
    pub fn flush_cell(&mut self, cell: &CellName, epoch: Option<Epoch>) {
        let at = self.step();
        self.floors.raise_cell(cell, at, epoch.map(|epoch| (epoch, 0)));
        let of_cell = |(name, entry): (&Name, &Entry)| entry.is_of(cell).then(|| name.clone());
        let names: Vec<_> = self.entries.iter().filter_map(of_cell).collect();
        names.iter().for_each(|name| self.change(name, |entry| entry.void_cell(cell)));
    }

    /// Drops everything; all tickets from before are void.
    pub fn flush_all(&mut self) {
        let at = self.step();
        self.floors.raise_all(at);
        self.entries.clear();
        self.used.clear();
        self.bytes = 0;
    }

    /// Drops what was used longest ago until the rest fits. Who serves some names without asking the
    /// cache says of each whether it was used since it was asked last. Returns the names dropped.
    pub fn shrink(&mut self, mut is_used: impl FnMut(&Name) -> bool) -> Vec<Name> {
        let mut dropped = Vec::new();
        let mut chances = self.entries.len();
        while self.bytes > self.bytes_max {
            let Some((_, name)) = self.used.pop_first() else { break };
            if chances > 0 && is_used(&name) {
                chances -= 1;
                let step = self.step();
                self.entries.get_mut(&name).expect("what is used is there").used = step;
                self.used.insert(step, name);
                continue;
            }
            let entry = self.entries.remove(&name).expect("what is used is there");
            self.bytes -= entry.weight;
            dropped.push(name);
        }
        dropped
    }

    /// The file's contents and metadata, for that principal; with an instance only of that node.
    pub fn contents(
        &mut self,
        name: &Name,
        instance: Option<Instance>,
        principal: &str,
    ) -> Option<Hit<(Bytes, Stat)>> {
        let Hit { value: stat, position } = self.stat(name, instance, principal)?;
        let contents = self.entries.get(name)?.data.as_ref()?.contents.clone()?;
        Some(Hit { value: (contents, stat), position })
    }

    /// The node's metadata, for that principal; with an instance only of that node. What an `Open` for
    /// reading would bring.
    pub fn stat(&mut self, name: &Name, instance: Option<Instance>, principal: &str) -> Option<Hit<Stat>> {
        let entry = self.entries.get(name)?;
        let (data, lock) = (entry.data.as_ref()?, entry.lock.as_ref()?);
        let is_asked_for = instance.is_none_or(|instance| instance == data.stat.instance);
        if !is_asked_for || data.position.cell != lock.position.cell {
            return None;
        }
        let stat = Stat { lock_generation: lock.generation, ..data.stat.clone() };
        let position = later(&data.position, &lock.position).clone();
        self.may(name, &stat.acls.read, principal, &position.cell)?;
        self.touch(name);
        Some(Hit { value: stat, position })
    }

    /// Whether an `Open` of that node for reading would be let through, as far as is known: the node is
    /// there, and the principal may read it. Says nothing of its lock.
    pub fn may_open(&self, name: &Name, instance: Instance, principal: &str) -> bool {
        let data = self.entries.get(name).and_then(|entry| entry.data.as_ref());
        data.is_some_and(|data| {
            let acl = &data.stat.acls.read;
            data.stat.instance == instance && self.knows(name, acl, principal, &data.position.cell).is_some()
        })
    }

    /// The directory's children, for that principal; with an instance only of that directory.
    pub fn listing(
        &mut self,
        name: &Name,
        instance: Option<Instance>,
        principal: &str,
    ) -> Option<Hit<Listing>> {
        let kept = self.entries.get(name)?.listing.as_ref()?;
        if instance.is_some() && instance != kept.instance {
            return None;
        }
        let hit = Hit { value: kept.listing.clone(), position: kept.position.clone() };
        self.may(name, &hit.value.acls.read, principal, &hit.position.cell)?;
        self.touch(name);
        Some(hit)
    }

    /// Where it was seen that there is no such node, if that is known to hold still. It needs no
    /// decision.
    pub fn absence(&mut self, name: &Name) -> Option<Position> {
        let position = self.entries.get(name)?.absence.clone()?;
        self.touch(name);
        Some(position)
    }

    /// Whether the principal is known to be in the ACL of that name, in the namespace of the node and
    /// by the word of that cell.
    pub fn is_in_acl(&mut self, node: &Name, acl: &str, principal: &str, cell: &CellName) -> bool {
        self.may(node, acl, principal, cell).is_some()
    }

    fn may(&mut self, node: &Name, acl: &str, principal: &str, cell: &CellName) -> Option<()> {
        let file = self.knows(node, acl, principal, cell)?;
        self.touch(&file);
        Some(())
    }

    /// The ACL's file, if it is known to hold the principal.
    fn knows(&self, node: &Name, acl: &str, principal: &str, cell: &CellName) -> Option<Name> {
        let file = acl_file(node, acl)?;
        self.entries.get(&file)?.decisions.holds(cell, principal).then_some(file)
    }

    fn touch(&mut self, name: &Name) {
        let is_last = self.used.last_key_value().is_some_and(|(_, last)| last == name);
        if is_last || !self.entries.contains_key(name) {
            return;
        }
        let step = self.step();
        if let Some(entry) = self.entries.get_mut(name) {
            let before = std::mem::replace(&mut entry.used, step);
            let name = self.used.remove(&before).expect("every entry has a last use");
            self.used.insert(step, name);
        }
    }

    /// Changes what is kept of a name, and counts it anew.
    fn change(&mut self, name: &Name, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.bytes -= entry.weight;
        change(entry);
        entry.weight = entry.weigh(name);
        self.bytes += entry.weight;
        if entry.is_empty() {
            self.bytes -= entry.weight;
            self.used.remove(&entry.used);
            self.entries.remove(name);
        }
    }

    fn step(&mut self) -> Step {
        self.steps.0 += 1;
        self.steps
    }

    /// Walks everything. For tests.
    ///
    /// # Panics
    /// If something that must always hold does not.
    pub fn check_invariants(&self) {
        let bytes: usize = self.entries.values().map(|entry| entry.weight).sum();
        assert_eq!(bytes, self.bytes, "what is kept is counted");
        assert_eq!(self.used.len(), self.entries.len(), "every entry has one last use");
        for (name, entry) in &self.entries {
            assert!(!entry.is_empty(), "nothing is kept of {name}");
            assert_eq!(entry.weight, entry.weigh(name), "{name} is weighed");
            assert_eq!(self.used.get(&entry.used), Some(name), "{name} has a last use");
            assert!(entry.absence.is_none() || entry.data.is_none(), "{name} is there and not there");
        }
        self.floors.check_invariants();
    }
}

/// One answer on its way into the cache.
struct Fill<'a> {
    cache: &'a mut Cache,
    since: Step,
    granted: ItemKinds,
    kept: ItemKinds,
    position: &'a Position,
}

impl Fill<'_> {
    /// Of a read by handle: what is brought must be of the node that the handle is bound to.
    fn node_of(
        &mut self,
        instance: Option<Instance>,
        name: &Name,
        principal: &str,
        stat: &Stat,
        contents: Option<&Bytes>,
    ) {
        if instance.is_none_or(|instance| instance == stat.instance) {
            self.node(name, principal, stat, contents);
        }
    }

    fn node(&mut self, name: &Name, principal: &str, stat: &Stat, contents: Option<&Bytes>) {
        let position = self.position;
        self.keep(name, ItemKind::Data, |entry| entry.set_data(stat, contents, position));
        self.keep(name, ItemKind::Lock, |entry| entry.set_lock(stat.lock_generation, position));
        self.decision(name, &stat.acls.read, principal);
    }

    fn listing(
        &mut self,
        name: &Name,
        instance: Option<Instance>,
        principal: &str,
        children: &[Child],
        acls: &AclNames,
    ) {
        let position = self.position;
        let listing = || Listing { children: children.into(), acls: acls.clone() };
        self.keep(name, ItemKind::Listing, |entry| entry.set_listing(listing(), instance, position));
        self.decision(name, &acls.read, principal);
    }

    fn absence(&mut self, name: &Name) {
        let position = self.position;
        self.keep(name, ItemKind::Absence, |entry| entry.set_absence(position));
    }

    fn decision(&mut self, node: &Name, acl: &str, principal: &str) {
        let cell = &self.position.cell;
        if let Some(file) = acl_file(node, acl) {
            self.keep(&file, ItemKind::Acl, |entry| entry.decisions.add(cell, principal));
        }
    }

    fn keep(&mut self, name: &Name, kind: ItemKind, keep: impl FnOnce(&mut Entry)) {
        let is_current = || self.cache.floors.allow(name, kind, self.since, self.position);
        if !self.granted.contains(kind) || !is_current() {
            return;
        }
        if !self.cache.entries.contains_key(name) {
            let used = self.cache.step();
            self.cache.used.insert(used, name.clone());
            self.cache.entries.insert(name.clone(), Entry::new(used));
        }
        self.cache.change(name, keep);
        self.cache.touch(name);
        self.kept = self.kept.with(kind);
    }
}

/// The file of an ACL that guards a node.
fn acl_file(node: &Name, acl: &str) -> Option<Name> {
    Name::parse(&format!("/ls/{}/acl/{acl}", node.namespace())).ok()
}

/// The later of two positions of one cell.
fn later<'a>(one: &'a Position, other: &'a Position) -> &'a Position {
    if one.is_before(other) { other } else { one }
}
