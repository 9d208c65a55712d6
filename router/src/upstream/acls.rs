//! Which ACL lists whom, by the word of the home cell, for cells that have to ask (`route-5`).
//!
//! An ACL is kept like anything else that is cached: with leave of the cell, under its cache lease, until it is taken
//! back. While it is kept, whoever is found in it may be vouched for, since the home cell does not change the file before
//! it has heard that nobody goes by the old one any more. That is why an answer that may not be kept says less: it tells
//! who was not in the ACL after the request had come, and that is as good as a read; it does not tell that somebody is in
//! it still when the request is done. The same goes for an answer that raced with an invalidation (`cache-3`).
//!
//! ```text
//! nothing known -- somebody waits --> fetched, they wait -- answered, kept --> known -- voided, crowded out --> nothing known
//!                                          '-- answered, not kept --> nothing known: who has come since waits for the next
//! ```

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::acl::AclEntries;

use super::Ticket;

/// ACLs that are kept at most; the oldest make room.
pub(super) const ACLS_MAX: usize = 1_024;

/// The machine. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Acls {
    kept: BTreeMap<String, Kept>,
    by_age: BTreeMap<u64, String>,
    last: u64,
    fetches: BTreeMap<String, Fetch>,
}

#[derive(Clone, Debug)]
struct Kept {
    age: u64,
    entries: AclEntries,
}

/// An ACL's file is being read.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// The question.
    question: Ticket,
    /// Requests that came before it was asked.
    pub(super) waiting: BTreeSet<Ticket>,
    /// Requests that have come since: the cell may have answered before something they know of (`cache-5`).
    pub(super) late: BTreeSet<Ticket>,
    /// What it brings may not be kept.
    is_void: bool,
}

impl Acls {
    /// What that ACL says, if that is known. To be used under the cache lease only (`lease-3`).
    pub(super) fn entries(&self, acl: &str) -> Option<&AclEntries> {
        self.kept.get(acl).map(|kept| &kept.entries)
    }

    /// Lets a request wait for the fetch after the one that is under way; `false` if none is.
    pub(super) fn join(&mut self, acl: &str, ticket: Ticket) -> bool {
        match self.fetches.get_mut(acl) {
            Some(fetch) => fetch.late.insert(ticket),
            None => false,
        }
    }

    /// The file is asked for, for these.
    pub(super) fn fetch(&mut self, acl: String, question: Ticket, waiting: BTreeSet<Ticket>) {
        let fetch = Fetch { question, waiting, late: BTreeSet::new(), is_void: false };
        let before = self.fetches.insert(acl, fetch);
        assert!(before.is_none(), "cache-5: one fetch of an ACL at a time is under way");
    }

    /// A request waits no longer.
    pub(super) fn leave(&mut self, acl: &str, ticket: Ticket) {
        if let Some(fetch) = self.fetches.get_mut(acl) {
            fetch.waiting.remove(&ticket);
            fetch.late.remove(&ticket);
        }
    }

    /// The fetch has come to its end; `None` if it had before.
    pub(super) fn land(&mut self, acl: &str, question: Ticket) -> Option<Fetch> {
        let is_it = self.fetches.get(acl).is_some_and(|fetch| fetch.question == question);
        if is_it { self.fetches.remove(acl) } else { None }
    }

    /// Keeps what a fetch brought, if nothing has voided it; whether it is kept.
    pub(super) fn keep(&mut self, acl: &str, fetch: &Fetch, entries: AclEntries) -> bool {
        if fetch.is_void {
            return false;
        }
        self.forget(acl);
        self.last += 1;
        self.by_age.insert(self.last, acl.to_owned());
        self.kept.insert(acl.to_owned(), Kept { age: self.last, entries });
        if self.kept.len() > ACLS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.kept.remove(&oldest);
        }
        true
    }

    /// The home cell takes this ACL back.
    pub(super) fn void(&mut self, acl: &str) {
        self.forget(acl);
        if let Some(fetch) = self.fetches.get_mut(acl) {
            fetch.is_void = true;
        }
    }

    /// Nothing that the home cell said may be used any more.
    pub(super) fn void_all(&mut self) {
        self.kept.clear();
        self.by_age.clear();
        self.fetches.values_mut().for_each(|fetch| fetch.is_void = true);
    }

    /// The fetches under way: of which ACL, and the question.
    pub(super) fn fetches(&self) -> impl Iterator<Item = (&String, Ticket)> {
        self.fetches.iter().map(|(acl, fetch)| (acl, fetch.question))
    }

    fn forget(&mut self, acl: &str) {
        if let Some(kept) = self.kept.remove(acl) {
            self.by_age.remove(&kept.age);
        }
    }

    /// Whether that request waits for this ACL. For tests.
    pub(super) fn is_waited_for(&self, acl: &str, ticket: Ticket) -> bool {
        let holds = |fetch: &Fetch| fetch.waiting.contains(&ticket) || fetch.late.contains(&ticket);
        self.fetches.get(acl).is_some_and(holds)
    }

    /// Walks everything. For tests.
    pub(super) fn check_invariants(&self) {
        assert!(self.kept.len() <= ACLS_MAX, "ACLs are bounded");
        assert_eq!(self.kept.len(), self.by_age.len(), "every ACL has one age");
        for (age, acl) in &self.by_age {
            assert_eq!(self.kept.get(acl).map(|kept| kept.age), Some(*age), "of this ACL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> AclEntries {
        AclEntries::parse(b"alice\n").expect("good")
    }

    fn fetched(acls: &mut Acls, acl: &str) -> bool {
        acls.fetch(acl.to_owned(), Ticket(100), BTreeSet::new());
        let fetch = acls.land(acl, Ticket(100)).expect("under way");
        acls.keep(acl, &fetch, alice())
    }

    #[test]
    fn who_comes_while_a_fetch_is_under_way_is_told_apart_from_who_was_there() {
        let mut acls = Acls::default();
        assert!(!acls.join("ops", Ticket(1)), "nothing to wait for");

        acls.fetch("ops".into(), Ticket(100), [Ticket(1), Ticket(2)].into());
        assert!(acls.join("ops", Ticket(3)) && acls.join("ops", Ticket(4)));
        acls.leave("ops", Ticket(2));
        acls.leave("ops", Ticket(4));

        assert!(acls.land("ops", Ticket(99)).is_none(), "another question");
        let fetch = acls.land("ops", Ticket(100)).expect("under way");
        assert_eq!((fetch.waiting, fetch.late), ([Ticket(1)].into(), [Ticket(3)].into()));
        assert!(acls.land("ops", Ticket(100)).is_none(), "once");
    }

    #[test]
    fn what_is_voided_is_forgotten_and_not_kept_if_it_was_under_way() {
        let mut acls = Acls::default();
        assert!(fetched(&mut acls, "ops") && fetched(&mut acls, "dev"));
        acls.void("ops");
        assert_eq!((acls.entries("ops"), acls.entries("dev")), (None, Some(&alice())));

        acls.fetch("ops".into(), Ticket(1), BTreeSet::new());
        acls.void("dev");
        let fetch = acls.land("ops", Ticket(1)).expect("under way");
        assert!(acls.keep("ops", &fetch, alice()), "another ACL");

        for void in [|acls: &mut Acls| acls.void("ops"), Acls::void_all] {
            acls.fetch("ops".into(), Ticket(2), BTreeSet::new());
            void(&mut acls);
            let fetch = acls.land("ops", Ticket(2)).expect("under way");
            assert!(!acls.keep("ops", &fetch, alice()), "it raced");
            assert_eq!(acls.entries("ops"), None);
        }
        assert!(fetched(&mut acls, "ops"), "the next is good again");
        acls.check_invariants();
    }

    #[test]
    fn the_oldest_acl_makes_room() {
        let mut acls = Acls::default();
        for index in 0..ACLS_MAX {
            fetched(&mut acls, &format!("acl-{index}"));
        }
        fetched(&mut acls, "acl-0");
        fetched(&mut acls, "one-more");
        acls.check_invariants();

        assert!(acls.entries("acl-0").is_some(), "it was fetched again");
        assert!(acls.entries("acl-1").is_none());
        assert!(acls.entries("acl-2").is_some() && acls.entries("one-more").is_some());
    }
}
