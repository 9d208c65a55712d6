//! What came of a world.

use std::fmt;

/// Below so many worlds the figures say nothing.
const WORLDS_MIN: u64 = 500;

/// Figures of one world, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Those with proxies, among which are all that have directories in two cells.
    pub routed: u64,
    /// Replicas, proxies and clients that crashed.
    pub crashes: u64,
    /// Other faults: pauses, cuts, resets, hand-overs.
    pub other_faults: u64,
    /// Elections won.
    pub elections: u64,
    /// Calls answered.
    pub answers: u64,
    /// Changes acknowledged, but for those of locks.
    pub writes: u64,
    /// Reads answered from the client's own cache.
    pub cached_reads: u64,
    /// Reads that a proxy answered beside its machine.
    pub viewed_reads: u64,
    /// Locks acquired.
    pub locks: u64,
    /// Locks that went from one client to another.
    pub hand_overs: u64,
    /// Locks lost with their holder's session.
    pub locks_lost: u64,
    /// Events told to applications, and that some were lost.
    pub events: u64,
    /// Acknowledged changes of who may do what.
    pub acl_changes: u64,
    /// Calls refused for want of rights.
    pub denials: u64,
    /// Nodes created in directories that are in another cell than they are.
    pub split_children: u64,
    /// Directories deleted whose children are in another cell.
    pub split_deletions: u64,
    /// Nodes that went to another cell, or came back.
    pub moved: u64,
    /// Ephemeral nodes that came and went, or are there.
    pub ephemeral: u64,
    /// Things that were compared with what they had to be.
    pub checks: u64,
}

impl Counts {
    /// Adds another's.
    pub const fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.routed += other.routed;
        self.crashes += other.crashes;
        self.other_faults += other.other_faults;
        self.elections += other.elections;
        self.answers += other.answers;
        self.writes += other.writes;
        self.cached_reads += other.cached_reads;
        self.viewed_reads += other.viewed_reads;
        self.locks += other.locks;
        self.hand_overs += other.hand_overs;
        self.locks_lost += other.locks_lost;
        self.events += other.events;
        self.acl_changes += other.acl_changes;
        self.denials += other.denials;
        self.split_children += other.split_children;
        self.split_deletions += other.split_deletions;
        self.moved += other.moved;
        self.ephemeral += other.ephemeral;
        self.checks += other.checks;
    }

    /// What happened too rarely for the worlds to mean anything, with how often it had to; nothing of few worlds.
    pub fn too_few(&self) -> Vec<String> {
        // Of a thousand worlds.
        let wanted = [
            ("crashes", self.crashes, 700),
            ("other faults", self.other_faults, 3_000),
            ("elections", self.elections, 2_000),
            ("acknowledged writes", self.writes, 70_000),
            ("cached reads", self.cached_reads, 70_000),
            ("locks", self.locks, 10_000),
            ("locks handed over", self.hand_overs, 3_000),
            ("locks lost", self.locks_lost, 100),
            ("events", self.events, 20_000),
            ("changes of ACLs", self.acl_changes, 5_000),
            ("denials", self.denials, 5_000),
            ("ephemeral nodes", self.ephemeral, 1_000),
        ];
        let wanted_of_routed = [
            ("children in split directories", self.split_children, 500),
            ("split directories deleted", self.split_deletions, 120),
            ("nodes moved", self.moved, 1_000),
        ];
        if self.worlds < WORLDS_MIN {
            return Vec::new();
        }
        let of = |worlds: u64| move |(what, count, wanted)| (what, count, wanted * worlds / 1_000);
        let all = wanted.into_iter().map(of(self.worlds));
        let all = all.chain(wanted_of_routed.into_iter().map(of(self.routed)));
        let few = |(what, count, wanted): (&str, u64, u64)| {
            (count < wanted).then(|| format!("{count} {what} of {wanted}"))
        };
        all.filter_map(few).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} crashes, {} other faults, ", self.crashes, self.other_faults)?;
        write!(f, "{} elections, {} answers, ", self.elections, self.answers)?;
        write!(f, "{} acknowledged writes, {} cached reads, ", self.writes, self.cached_reads)?;
        write!(f, "{} reads by views of proxies, ", self.viewed_reads)?;
        write!(f, "{} locks, {} handed over, {} lost, ", self.locks, self.hand_overs, self.locks_lost)?;
        write!(f, "{} events, {} changes of ACLs, ", self.events, self.acl_changes)?;
        write!(f, "{} children in split directories, ", self.split_children)?;
        write!(f, "{} split directories deleted, ", self.split_deletions)?;
        write!(f, "{} nodes moved, ", self.moved)?;
        write!(f, "{} denials, {} ephemeral nodes, {} checks", self.denials, self.ephemeral, self.checks)
    }
}

/// What came of one world.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Of the world.
    pub seed: u64,
    /// Promises that were broken, each in words; empty if all were kept.
    pub broken: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// Of the story.
    pub fingerprint: u64,
    /// The story, if it was asked for.
    pub story: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: usize = 15;

    #[test]
    fn many_worlds_in_which_little_happened_are_told_from_those_in_which_much_did() {
        let mut busy = Counts { worlds: 500, routed: 500, ..Counts::default() };
        assert_eq!(busy.too_few().len(), WANTED);

        for figure in [
            &mut busy.crashes,
            &mut busy.other_faults,
            &mut busy.elections,
            &mut busy.writes,
            &mut busy.cached_reads,
            &mut busy.locks,
            &mut busy.hand_overs,
            &mut busy.locks_lost,
            &mut busy.events,
            &mut busy.acl_changes,
            &mut busy.denials,
            &mut busy.split_children,
            &mut busy.split_deletions,
            &mut busy.moved,
            &mut busy.ephemeral,
        ] {
            *figure = 35_000;
        }
        assert_eq!(busy.too_few(), Vec::<String>::new());

        busy.writes = 34_999;
        assert_eq!(busy.too_few(), ["34999 acknowledged writes of 35000"]);
    }

    #[test]
    fn few_worlds_need_not_show_anything() {
        assert!(Counts { worlds: 499, ..Counts::default() }.too_few().is_empty());
    }
}
