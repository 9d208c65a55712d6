//! Requests under way that carry what an ACL of the home cell says. The home cell may change the ACL only when none of
//! those that carry the old one can be done any more: until then it does not hear our acknowledgement (`cache-4`).
//!
//! ```text
//! request:  carries -- the ACL is taken back --> stale ... answered
//! news:     come -- nobody carries it -------------------------------> free: acknowledged when the owner says so
//!             '-- held -- all who carried it are answered, or nobody believes them any more --> free
//! ```

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::client::NewsId;
use hasp_proto::time::Time;

use super::Ticket;

/// All of them. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Carriers {
    by_ticket: BTreeMap<Ticket, Carrier>,
    by_acl: BTreeMap<String, BTreeSet<Ticket>>,
    /// Those that may wait long, by the slot where they do.
    waiting: BTreeMap<usize, BTreeSet<Ticket>>,
    /// Those that carry what is void, by slot.
    stale: BTreeMap<usize, BTreeSet<Ticket>>,
    /// Until when the cell of that slot believes what was said to it again.
    renewed: BTreeMap<usize, Time>,
    /// As many as the home cell has unacknowledged news for a session.
    held: BTreeMap<NewsId, Held>,
    due: BTreeSet<(Time, NewsId)>,
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    /// With the session of that slot.
    pub(super) slot: usize,
    /// ACLs that it carries something of.
    pub(super) acls: Vec<String>,
    /// It may wait for long.
    pub(super) is_waiting: bool,
    /// Nobody believes it from then on, unless it is said again.
    pub(super) until: Time,
}

/// A piece of news that must not be acknowledged yet.
#[derive(Clone, Debug)]
struct Held {
    carriers: BTreeSet<Ticket>,
    until: Time,
    /// The owner has done its part.
    is_dealt_with: bool,
}

impl Carriers {
    /// A request goes out.
    pub(super) fn add(&mut self, ticket: Ticket, carrier: Carrier) {
        for acl in &carrier.acls {
            self.by_acl.entry(acl.clone()).or_default().insert(ticket);
        }
        if carrier.is_waiting {
            self.waiting.entry(carrier.slot).or_default().insert(ticket);
        }
        self.by_ticket.insert(ticket, carrier);
    }

    /// A request was answered. Returns the news that can be acknowledged.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Vec<NewsId> {
        let Some(carrier) = self.by_ticket.remove(&ticket) else { return Vec::new() };
        carrier.acls.iter().for_each(|acl| remove(&mut self.by_acl, acl, ticket));
        remove(&mut self.waiting, &carrier.slot, ticket);
        remove(&mut self.stale, &carrier.slot, ticket);
        let mut free = Vec::new();
        for (id, held) in &mut self.held {
            if held.carriers.remove(&ticket) && held.carriers.is_empty() {
                free.push(*id);
            }
        }
        free.retain(|id| self.release(*id));
        free
    }

    /// The home cell takes that ACL back: returns those that carry it.
    pub(super) fn void(&mut self, acl: &str) -> BTreeSet<Ticket> {
        let carriers = self.by_acl.get(acl).cloned().unwrap_or_default();
        carriers.iter().for_each(|ticket| self.note_stale(*ticket));
        carriers
    }

    /// Nothing that the home cell said holds: returns all.
    pub(super) fn void_all(&mut self) -> BTreeSet<Ticket> {
        let carriers: BTreeSet<_> = self.by_ticket.keys().copied().collect();
        carriers.iter().for_each(|ticket| self.note_stale(*ticket));
        carriers
    }

    /// Holds that piece of news back until these are answered, or nobody believes them any more.
    pub(super) fn hold(&mut self, news: NewsId, carriers: BTreeSet<Ticket>) {
        let Some(until) = carriers.iter().map(|ticket| self.believed_until(*ticket)).max() else { return };
        self.due.insert((until, news));
        self.held.insert(news, Held { carriers, until, is_dealt_with: false });
    }

    /// The owner has dealt with a piece of news; whether it can be acknowledged at once.
    pub(super) fn dealt_with(&mut self, news: NewsId) -> bool {
        match self.held.get_mut(&news) {
            Some(held) => {
                held.is_dealt_with = true;
                false
            }
            None => true,
        }
    }

    /// The next piece of news that is held back by nobody who is still believed, to be acknowledged.
    pub(super) fn take_due(&mut self, now: Time) -> Option<NewsId> {
        while let Some((_, news)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            if self.release(news) {
                return Some(news);
            }
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What requests at that slot carry is said again, to be believed until then.
    pub(super) fn renewed(&mut self, slot: usize, until: Time) {
        let end = self.renewed.entry(slot).or_default();
        *end = (*end).max(until);
    }

    /// Slots where something may wait for long. What is carried there may be said again only if none of it is void.
    pub(super) fn to_renew(&self) -> Vec<usize> {
        self.waiting.keys().filter(|slot| !self.stale.contains_key(slot)).copied().collect()
    }

    /// Whether something may wait for long anywhere.
    pub(super) fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether that request may wait for long.
    pub(super) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.by_ticket.get(&ticket).is_some_and(|carrier| carrier.is_waiting)
    }

    fn believed_until(&self, ticket: Ticket) -> Time {
        let Some(carrier) = self.by_ticket.get(&ticket) else { return Time::ZERO };
        carrier.until.max(self.renewed.get(&carrier.slot).copied().unwrap_or_default())
    }

    fn note_stale(&mut self, ticket: Ticket) {
        if let Some(carrier) = self.by_ticket.get(&ticket) {
            self.stale.entry(carrier.slot).or_default().insert(ticket);
        }
    }

    /// Holds a piece of news no longer; whether the owner has done its part.
    fn release(&mut self, news: NewsId) -> bool {
        let Some(held) = self.held.remove(&news) else { return false };
        self.due.remove(&(held.until, news));
        held.is_dealt_with
    }

    /// The requests that carry something. For tests.
    pub(super) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.by_ticket.keys().copied()
    }

    /// Walks everything. For tests.
    pub(super) fn check_invariants(&self) {
        for (acl, tickets) in &self.by_acl {
            assert!(!tickets.is_empty(), "{acl} is carried");
            assert!(tickets.iter().all(|it| self.by_ticket[it].acls.contains(acl)), "{acl} is carried");
        }
        for (slot, tickets) in self.waiting.iter().chain(&self.stale) {
            assert!(!tickets.is_empty(), "slots without requests are not listed");
            assert!(tickets.iter().all(|it| self.by_ticket[it].slot == *slot), "it is at slot {slot}");
        }
        assert_eq!(self.held.len(), self.due.len(), "every piece of news has its end");
        for (news, held) in &self.held {
            assert!(!held.carriers.is_empty(), "{news:?} waits for nobody");
            assert!(held.carriers.iter().all(|it| self.by_ticket.contains_key(it)), "for those under way");
            assert!(self.due.contains(&(held.until, *news)), "{news:?} has its end");
        }
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Ticket>>, key: &K, ticket: Ticket) {
    if let Some(tickets) = index.get_mut(key)
        && tickets.remove(&ticket)
        && tickets.is_empty()
    {
        index.remove(key);
    }
}
