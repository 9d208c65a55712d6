//! One replica's copy of a cell's log: terms, entries, how far it is committed and applied. It stands for Raft and
//! promises what Raft promises: a follower takes over its leader's log, and a vote goes only to a log that is not older.

use std::rc::Rc;

use hasp_cell::state::LogEntry;

/// One entry; two copies of it are the same allocation.
#[derive(Debug)]
pub struct Entry {
    /// Of the leader that appended it.
    pub term: u64,
    /// `None`: the empty entry that a new leader begins with.
    pub body: Option<LogEntry>,
}

/// The copy.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Rc<Entry>>,
    /// The newest term that this replica knows.
    pub term: u64,
    /// So many entries are known to be committed.
    pub committed: usize,
    /// So many entries are in the state.
    pub applied: usize,
}

impl Log {
    /// Entries, committed or not.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One of them, from 0.
    pub fn entry(&self, index: usize) -> &Rc<Entry> {
        &self.entries[index]
    }

    /// All from that one on.
    pub fn from(&self, index: usize) -> Vec<Rc<Entry>> {
        self.entries[index.min(self.entries.len())..].to_vec()
    }

    /// Adds one of the leader's own; how many there are then.
    pub fn append(&mut self, body: Option<LogEntry>) -> usize {
        self.entries.push(Rc::new(Entry { term: self.term, body }));
        self.entries.len()
    }

    /// Forgets all but the first entries.
    pub fn truncate(&mut self, kept: usize) {
        self.entries.truncate(kept);
    }

    /// Takes over what the leader sent, after the first `before` entries; how many entries are left of those that were
    /// here, if some went.
    pub fn take_over(&mut self, before: usize, sent: &[Rc<Entry>]) -> Option<usize> {
        assert!(before <= self.entries.len(), "the leader sends from where it knows the logs to agree");
        let mut kept = None;
        for (index, entry) in (before..).zip(sent) {
            match self.entries.get(index) {
                Some(here) if Rc::ptr_eq(here, entry) => {}
                Some(_) => {
                    kept = kept.or(Some(index));
                    self.entries.truncate(index);
                    self.entries.push(entry.clone());
                }
                None => self.entries.push(entry.clone()),
            }
        }
        kept
    }

    /// Whether a vote may go to a replica with that log.
    pub fn is_no_newer_than(&self, other: &Self) -> bool {
        let key = |log: &Self| (log.entries.last().map_or(0, |entry| entry.term), log.entries.len());
        key(self) <= key(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::default();
        for term in terms {
            log.term = *term;
            log.append(None);
        }
        log
    }

    #[test]
    fn a_follower_drops_what_its_leader_does_not_have() {
        let leader = log(&[1, 3, 3]);
        let mut follower = log(&[]);
        assert_eq!(follower.take_over(0, &leader.from(0)[..1]), None);
        follower.term = 2;
        follower.append(None);

        assert_eq!(follower.take_over(1, &leader.from(1)), Some(1), "the entry of term 2 is gone");

        assert_eq!(follower.len(), 3);
        assert!(Rc::ptr_eq(follower.entry(1), leader.entry(1)));
        assert_eq!(follower.take_over(0, &leader.from(0)), None, "the same again changes nothing");
    }

    #[test]
    fn no_vote_goes_to_an_older_log() {
        assert!(log(&[1, 1]).is_no_newer_than(&log(&[1, 1])));
        assert!(log(&[1, 1, 1]).is_no_newer_than(&log(&[1, 2])));
        assert!(!log(&[1, 1]).is_no_newer_than(&log(&[1])));
        assert!(!log(&[2]).is_no_newer_than(&log(&[1, 1, 1])));
    }
}
