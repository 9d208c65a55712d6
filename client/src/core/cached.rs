//! What the library keeps of what it has read, and how reads are answered with it.
//!
//! The rules are the [`Cache`]'s. Here it is put to use: for one principal, by handle, with the names
//! that applications use; and files that were read are shown to the shell, which answers for them
//! without asking the core. Whatever is shown is hidden before an invalidation is acknowledged.

use std::collections::BTreeMap;

use hasp_proto::client::cache::{Cache, FillTicket};
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, Epoch, RequestNumber};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply, Use};

use super::interface::{Shown, Used};

/// The namespace that stands for the first host's own.
const LOCAL: &str = "local";

#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// `None`: nothing is kept.
    cache: Option<Cache>,
    principal: String,
    shown: BTreeMap<Name, Showing>,
    /// What `/ls/local` stands for, once a host has said it.
    namespace: Option<String>,
    /// The latest position of each cell that the application was shown (P-MONO).
    seen: BTreeMap<CellName, Position>,
}

/// A file that is shown.
#[derive(Clone, Debug)]
struct Showing {
    cell: CellName,
    /// The ACL file that lets it be shown.
    acl: Option<Name>,
    used: Used,
}

impl Cached {
    /// Keeps that many bytes for that principal; `None`: nothing.
    pub(super) fn new(bytes_max: Option<usize>, principal: &str, namespace: Option<String>) -> Self {
        Self {
            cache: bytes_max.map(Cache::new),
            principal: principal.to_owned(),
            shown: BTreeMap::new(),
            namespace,
            seen: BTreeMap::new(),
        }
    }

    /// The right to keep what the request brings, if it is a read.
    pub(super) fn ticket(&mut self, op: &Op, body: Option<&HandleBody>) -> Option<FillTicket> {
        let cache = self.cache.as_mut()?;
        match (op, body) {
            (Op::Open(open), _) => {
                let name = true_name(self.namespace.as_deref(), &open.name);
                Some(cache.ticket(name.unwrap_or_else(|| open.name.clone()), None))
            }
            (Op::GetContentsAndStat(_) | Op::GetStat(_) | Op::ReadDir(_), Some(body)) => {
                Some(cache.ticket(body.name.clone(), Some(body.instance)))
            }
            _ => None,
        }
    }

    /// Keeps what may be kept of an answer. Returns the names of which nothing is kept any more, for want
    /// of room.
    pub(super) fn fill(&mut self, ticket: FillTicket, answer: &Answer) -> Vec<Name> {
        if let (Ok(Reply::Opened { handle, .. }), true) = (&answer.result, ticket.name().namespace() == LOCAL)
        {
            self.namespace = handle.claimed_body().map(|body| body.name.namespace().to_owned());
        }
        let Some(cache) = self.cache.as_mut() else { return Vec::new() };
        cache.fill(ticket, &self.principal, answer);
        let is_used = |name: &Name| self.shown.get(name).is_some_and(|showing| showing.used.take());
        let dropped = cache.shrink(is_used);
        dropped.iter().for_each(|name| drop(self.shown.remove(name)));
        dropped
    }

    /// The name as the cells know it, as far as that is known.
    pub(super) fn true_name(&self, name: &Name) -> Option<Name> {
        true_name(self.namespace.as_deref(), name)
    }

    /// The hosts may be others now: what `/ls/local` stands for is to be learned again.
    pub(super) fn forget_namespace(&mut self) {
        self.namespace = None;
    }

    /// The answer to a read by handle, if it is kept.
    pub(super) fn read(&mut self, op: &Op, body: &HandleBody) -> Option<Answer> {
        let cache = self.cache.as_mut()?;
        let (name, instance, principal) = (&body.name, Some(body.instance), &self.principal);
        let (reply, position) = match op {
            Op::GetContentsAndStat(_) => {
                let hit = cache.contents(name, instance, principal)?;
                let (contents, stat) = hit.value;
                (Reply::Contents { contents, stat }, hit.position)
            }
            Op::GetStat(_) => {
                let hit = cache.stat(name, instance, principal)?;
                (Reply::Stat(hit.value), hit.position)
            }
            Op::ReadDir(_) => {
                let hit = cache.listing(name, instance, principal)?;
                (
                    Reply::Children { children: hit.value.children.to_vec(), acls: hit.value.acls },
                    hit.position,
                )
            }
            _ => return None,
        };
        Some(self.answer(Ok(reply), position))
    }

    /// That there is no such node, if that is kept.
    pub(super) fn absence(&mut self, name: &Name) -> Option<Answer> {
        let position = self.cache.as_mut()?.absence(name)?;
        Some(self.answer(Err(ErrorCode::NotFound), position))
    }

    /// The answer to an `Open` that this handle could serve, if the cell would let it through.
    pub(super) fn open(&mut self, body: &HandleBody, token: &HandleToken) -> Option<Answer> {
        let cache = self.cache.as_mut()?;
        let hit = cache.stat(&body.name, Some(body.instance), &self.principal)?;
        let (acls, cell) = (&hit.value.acls, &hit.position.cell);
        let is_allowed = match body.r#use {
            Use::Read => true,
            Use::WriteAndLock => cache.is_in_acl(&body.name, &acls.write, &self.principal, cell),
            Use::ChangeAcl => false,
        };
        if !is_allowed || hit.value.ephemeral {
            return None;
        }
        let reply = Reply::Opened { handle: token.clone(), created: false, stat: hit.value };
        Some(self.answer(Ok(reply), hit.position))
    }

    /// Whether an idle handle may be of use again.
    pub(super) fn is_known(&self, body: &HandleBody) -> bool {
        let may = |cache: &Cache| cache.may_open(&body.name, body.instance, &self.principal);
        self.cache.as_ref().is_some_and(may)
    }

    /// The file to be shown from here on, if it is kept.
    pub(super) fn show(&mut self, body: &HandleBody, cell: Option<CellName>) -> Option<Shown> {
        let cache = self.cache.as_mut()?;
        let hit = cache.contents(&body.name, Some(body.instance), &self.principal)?;
        let (contents, stat) = hit.value;
        let used = Used::default();
        let acl = Name::parse(&format!("/ls/{}/acl/{}", body.name.namespace(), stat.acls.read)).ok();
        let showing = Showing { cell: hit.position.cell.clone(), acl, used: used.clone() };
        self.shown.insert(body.name.clone(), showing);
        Some(Shown {
            name: body.name.clone(),
            instance: body.instance,
            contents,
            stat,
            position: hit.position,
            cell,
            used,
        })
    }

    /// Drops these items. Returns names that are not shown any more.
    pub(super) fn invalidate(&mut self, items: &[Item], floor: &Position) -> Vec<Name> {
        if let Some(cache) = &mut self.cache {
            cache.invalidate(items, floor);
        }
        let hangs_on = |name: &Name, showing: &Showing, item: &Item| match item.kind {
            ItemKind::Data | ItemKind::Lock => item.name == *name,
            ItemKind::Acl => showing.acl.as_ref().is_none_or(|acl| *acl == item.name),
            ItemKind::Listing | ItemKind::Absence => false,
        };
        self.hide(|name, showing| items.iter().any(|item| hangs_on(name, showing, item)))
    }

    /// Drops everything of that cell; `None`: of all. Returns names that are not shown any more.
    pub(super) fn flush(&mut self, cell: Option<&CellName>, epoch: Option<Epoch>) -> Vec<Name> {
        match (&mut self.cache, cell) {
            (None, _) => {}
            (Some(cache), Some(cell)) => cache.flush_cell(cell, epoch),
            (Some(cache), None) => cache.flush_all(),
        }
        self.hide(|_, showing| cell.is_none_or(|cell| showing.cell == *cell))
    }

    /// The application is shown something at that position.
    pub(super) fn saw(&mut self, position: &Position) {
        match self.seen.get_mut(&position.cell) {
            None => drop(self.seen.insert(position.cell.clone(), position.clone())),
            Some(seen) if seen.is_before(position) => *seen = position.clone(),
            Some(_) => {}
        }
    }

    fn hide(&mut self, is_void: impl Fn(&Name, &Showing) -> bool) -> Vec<Name> {
        self.shown.extract_if(.., |name, showing| is_void(name, showing)).map(|(name, _)| name).collect()
    }

    /// What is kept has not changed since it was read, so it is also what there was at the latest
    /// position that was seen: a change since then would have waited for an acknowledgement.
    fn answer(&self, result: Result<Reply, ErrorCode>, position: Position) -> Answer {
        let position = match self.seen.get(&position.cell) {
            Some(seen) if position.is_before(seen) => seen.clone(),
            _ => position,
        };
        let result = result.map_err(|code| code.because("there is no such node"));
        Answer { number: RequestNumber(0), position: Some(position), caches: ItemKinds::NONE, result }
    }
}

fn true_name(namespace: Option<&str>, name: &Name) -> Option<Name> {
    if name.namespace() != LOCAL {
        return Some(name.clone());
    }
    let below = name.as_str().strip_prefix("/ls/local")?;
    Name::parse(&format!("/ls/{}{below}", namespace?)).ok()
}
