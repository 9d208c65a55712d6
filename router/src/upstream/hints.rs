//! Which ACLs a cell is likely to ask for, so that what they say goes along with a request instead of after it (`route-5`).
//!
//! A cell that lacks the word of an ACL's home cell says so, and the request comes to it a second time. What lies in one
//! directory is mostly guarded alike: the next request of that kind for something in it brings the word at once. That is
//! never wrong, only needless at times: a cell goes by what it needs, and asks for what is missing.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::name::Name;
use hasp_proto::request::Op;

/// Directories that are kept in mind before those that were not asked about for longest are forgotten.
const DIRECTORIES_MAX: usize = 1_024;

/// ACLs of one directory. One that has more is guarded node by node, and nothing can be guessed.
const ACLS_MAX: usize = 4;

/// What a request is, as far as it is guessed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    slot: usize,
    directory: Name,
    op: &'static str,
}

impl Kind {
    /// `None` for requests that bring nothing before they are asked to: a cell that holds one for long would be told to
    /// give it up for the sake of an ACL that it does not go by.
    fn of(slot: usize, op: &Op) -> Option<Self> {
        let name = match op {
            Op::Acquire(..) => return None,
            Op::Open(open) => open.name.clone(),
            _ => op.handle()?.claimed_body()?.name,
        };
        Some(Self { slot, directory: name.parent()?, op: op.name() })
    }
}

/// All of them. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    recent: BTreeMap<Kind, BTreeSet<String>>,
    /// What was not asked about since there were too many.
    older: BTreeMap<Kind, BTreeSet<String>>,
}

impl Hints {
    /// The cell of that slot has asked for an ACL to decide `op`.
    pub(super) fn learn(&mut self, slot: usize, op: &Op, acl: &str) {
        let Some(kind) = Kind::of(slot, op) else { return };
        let mut acls = self.take(&kind);
        acls.insert(acl.to_owned());
        if acls.len() > ACLS_MAX {
            acls = BTreeSet::from([acl.to_owned()]);
        }
        self.put(kind, acls);
    }

    /// What it is likely to ask for.
    pub(super) fn of(&mut self, slot: usize, op: &Op) -> BTreeSet<String> {
        if self.recent.is_empty() && self.older.is_empty() {
            return BTreeSet::new();
        }
        let Some(kind) = Kind::of(slot, op) else { return BTreeSet::new() };
        if let Some(acls) = self.recent.get(&kind) {
            return acls.clone();
        }
        let acls = self.take(&kind);
        if !acls.is_empty() {
            self.put(kind, acls.clone());
        }
        acls
    }

    fn take(&mut self, kind: &Kind) -> BTreeSet<String> {
        let recent = self.recent.remove(kind);
        recent.or_else(|| self.older.remove(kind)).unwrap_or_default()
    }

    fn put(&mut self, kind: Kind, acls: BTreeSet<String>) {
        if self.recent.len() == DIRECTORIES_MAX {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(kind, acls);
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::request::{Open, Use};

    use super::*;

    fn open(name: &str) -> Op {
        Op::Open(Open::existing(Name::parse(name).expect("a good name"), Use::Read))
    }

    fn known(hints: &mut Hints, slot: usize, name: &str) -> Vec<String> {
        hints.of(slot, &open(name)).into_iter().collect()
    }

    #[test]
    fn what_is_beside_it_is_guarded_alike_in_that_cell() {
        let mut hints = Hints::default();
        hints.learn(1, &open("/ls/dev/d/a"), "staff");
        hints.learn(1, &open("/ls/dev/d/b"), "team");

        assert_eq!(known(&mut hints, 1, "/ls/dev/d/c"), ["staff", "team"]);
        assert!(known(&mut hints, 2, "/ls/dev/d/c").is_empty(), "another cell");
        assert!(known(&mut hints, 1, "/ls/dev/d").is_empty(), "what is above");
        assert!(known(&mut hints, 1, "/ls/dev/d/c/e").is_empty(), "what is below");
    }

    #[test]
    fn of_a_directory_with_many_acls_only_the_last_is_guessed() {
        let mut hints = Hints::default();
        for number in 0..=ACLS_MAX {
            hints.learn(0, &open("/ls/dev/d/a"), &format!("acl-{number}"));
        }

        assert_eq!(known(&mut hints, 0, "/ls/dev/d/a"), ["acl-4"]);
    }

    #[test]
    fn directories_that_nobody_asks_about_make_room() {
        let mut hints = Hints::default();
        let learn = |hints: &mut Hints, number: usize| {
            hints.learn(0, &open(&format!("/ls/dev/{number}/f")), "staff");
        };
        (0..DIRECTORIES_MAX).for_each(|number| learn(&mut hints, number));
        learn(&mut hints, DIRECTORIES_MAX);
        assert_eq!(known(&mut hints, 0, "/ls/dev/0/g"), ["staff"], "and from now on it is recent");
        (DIRECTORIES_MAX + 1..2 * DIRECTORIES_MAX).for_each(|number| learn(&mut hints, number));

        assert_eq!(known(&mut hints, 0, "/ls/dev/0/g"), ["staff"]);
        assert!(known(&mut hints, 0, "/ls/dev/1/g").is_empty());
        assert!(hints.recent.len() + hints.older.len() <= 2 * DIRECTORIES_MAX);
    }
}
