//! What is asked of which directory: reads and writes over a sliding window, in a table of bounded size. A request counts
//! for the directory of its node, a listing for the directory listed. Known to the master alone, and only for as
//! long as it is one; what proxies answer from their caches is not seen here.
//!
//! ```text
//!        last            current
//! |----- WINDOW -----|----- elapsed ----|             reads/s = (current + what is left of last) / WINDOW
//!        |<--------- WINDOW ----------->| now
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use hasp_proto::name::Name;
use hasp_proto::time::Time;

use super::requests::{Decision, Read};

/// What rates are averaged over.
const WINDOW: Duration = Duration::from_secs(10);

/// As many directories are counted one by one in a window. When there are more, the lesser half is counted as one.
const DIRECTORIES_MAX: usize = 1_024;

/// Below this much time since the count began, a rate says too much.
const SINCE_MIN: Duration = Duration::from_secs(1);

/// Reads and writes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Answered from the state.
    pub reads: f64,
    /// That go through the log, if they are not refused before.
    pub writes: f64,
}

/// What was asked over the last seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Directory -> what was asked of it and of the nodes directly in it.
    pub directories: BTreeMap<Name, Rates>,
    /// Directories that are not counted one by one.
    pub others: Rates,
    /// For how long anything was counted, up to what rates are averaged over.
    pub over: Duration,
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    /// When counting began, if it has.
    counts_since: Option<Time>,
    /// The first count, if there is any.
    since: Option<Time>,
    /// When the current window began.
    began: Time,
    current: Window,
    last: Window,
}

#[derive(Clone, Debug, Default)]
struct Window {
    directories: BTreeMap<Name, Count>,
    others: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    reads: u64,
    writes: u64,
}

/// What a request does to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Load {
    /// Nothing is counted yet, from now on all is.
    pub(super) fn since(now: Time) -> Self {
        Self { counts_since: Some(now), ..Self::default() }
    }

    /// Counts what is about to be done for a client. What is refused at once, or done for the sake of other cells, is not
    /// counted.
    pub(super) fn count(&mut self, now: Time, decision: &Decision) {
        let (directory, access) = match decision {
            Decision::Read(read) => match read.directory() {
                Some(directory) => (directory, Access::Read),
                None => return,
            },
            Decision::Write(write) => (directory_of(write.name()), Access::Write),
            Decision::Lock(lock) => (directory_of(&lock.holder.name), Access::Write),
            Decision::Close { holder, needs_log: true } => (directory_of(&holder.name), Access::Write),
            Decision::Close { needs_log: false, .. }
            | Decision::Refuse(_)
            | Decision::Need(_)
            | Decision::Cross(_)
            | Decision::Vouch(_)
            | Decision::Watch { .. }
            | Decision::Chores
            | Decision::EndClient(_)
            | Decision::Settle(_)
            | Decision::Claim => return,
        };
        self.add(now, directory, access);
    }

    fn add(&mut self, now: Time, directory: &str, access: Access) {
        self.slide(now);
        self.current.add(directory, access);
    }

    /// Begins another window if it is time.
    fn slide(&mut self, now: Time) {
        if self.since.is_none() {
            (self.since, self.began) = (Some(now), now);
        }
        let elapsed = now.saturating_since(self.began);
        if elapsed >= 2 * WINDOW {
            (self.last, self.current, self.began) = (Window::default(), Window::default(), now);
        } else if elapsed >= WINDOW {
            self.last = std::mem::take(&mut self.current);
            self.began = self.began + WINDOW;
        }
    }

    /// The rates at this time.
    pub(super) fn measured(&self, now: Time) -> Measured {
        let mut slid = self.clone();
        slid.slide(now);
        let elapsed = now.saturating_since(slid.began);
        let left = 1.0 - elapsed.as_secs_f64() / WINDOW.as_secs_f64();
        let since = slid.since.map_or(Duration::ZERO, |since| now.saturating_since(since));
        let seconds = since.clamp(SINCE_MIN, WINDOW).as_secs_f64();
        let per_second = |count: Count, share: f64| Rates {
            reads: count.reads as f64 * share / seconds,
            writes: count.writes as f64 * share / seconds,
        };
        let over = slid.counts_since.map_or(Duration::ZERO, |since| now.saturating_since(since)).min(WINDOW);
        let mut measured = Measured { over, ..Measured::default() };
        for (window, share) in [(&slid.current, 1.0), (&slid.last, left)] {
            for (directory, count) in &window.directories {
                measured.directories.entry(directory.clone()).or_default().add(per_second(*count, share));
            }
            measured.others.add(per_second(window.others, share));
        }
        measured
    }
}

impl Window {
    fn add(&mut self, directory: &str, access: Access) {
        if let Some(count) = self.directories.get_mut(directory) {
            return count.add(access);
        }
        let Ok(name) = Name::parse(directory) else { return self.others.add(access) };
        if self.directories.len() >= DIRECTORIES_MAX {
            self.forget_half();
        }
        self.directories.entry(name).or_default().add(access);
    }

    /// Counts the half of the directories of which least was asked as one. That pays for as many new ones, so
    /// that each costs a few comparisons.
    fn forget_half(&mut self) {
        let mut totals: Vec<_> = self.directories.values().map(|count| count.reads + count.writes).collect();
        let (_, middle, _) = totals.select_nth_unstable(DIRECTORIES_MAX / 2 - 1);
        let (middle, others) = (*middle, &mut self.others);
        let mut above = self.directories.len();
        self.directories.retain(|_, count| {
            // Of those in the middle the first go, else all might stay.
            let goes = count.reads + count.writes <= middle && above > DIRECTORIES_MAX / 2;
            if goes {
                above -= 1;
                others.reads += count.reads;
                others.writes += count.writes;
            }
            !goes
        });
    }
}

impl Count {
    const fn add(&mut self, access: Access) {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
        }
    }
}

impl Rates {
    /// Adds others to these.
    pub fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
    }

    /// Of both kinds.
    pub fn total(self) -> f64 {
        self.reads + self.writes
    }
}

impl Read {
    /// Of which directory this is a read, if a client wants it.
    fn directory(&self) -> Option<&str> {
        match self {
            Self::Open(opening) => Some(directory_of(&opening.name)),
            Self::Contents(name, _) | Self::Stat(name, _) | Self::Sequencer(name, _) => {
                Some(directory_of(name))
            }
            Self::SequencerStands(guard) => Some(directory_of(&guard.name)),
            Self::Refresh(body) => Some(directory_of(&body.name)),
            Self::Children(name, _) | Self::RootChildren { name, .. } => Some(name.as_str()),
            Self::Root(_) | Self::Acl(_) | Self::Map | Self::Parcel { .. } => None,
        }
    }
}

/// The directory that a node is in; the namespace's root counts as its own.
fn directory_of(name: &Name) -> &str {
    name.ancestry().nth(1).unwrap_or(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many milliseconds after the origin.
    const fn t(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn rates(load: &Load, now: Time, directory: &str) -> (f64, f64) {
        let measured = load.measured(now).directories.get(directory).copied().unwrap_or_default();
        (measured.reads, measured.writes)
    }

    fn check(found: (f64, f64), reads: f64, writes: f64) {
        assert!((found.0 - reads).abs() < 1e-9 && (found.1 - writes).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_steady_load_is_measured_as_it_is() {
        let mut load = Load::default();
        for tick in 0..=300 {
            load.add(t(tick * 100), "/ls/dev/d", Access::Read);
            if tick % 5 == 0 {
                load.add(t(tick * 100), "/ls/dev/e", Access::Write);
            }
        }

        let found = rates(&load, t(30_000), "/ls/dev/d");
        assert!((found.0 - 10.0).abs() < 0.2 && found.1 < 1e-9, "{found:?}");
        let found = rates(&load, t(30_000), "/ls/dev/e");
        assert!((found.1 - 2.0).abs() < 0.2 && found.0 < 1e-9, "{found:?}");
    }

    #[test]
    fn what_has_just_begun_is_not_taken_for_little() {
        let mut load = Load::default();
        for tick in 0..20 {
            load.add(t(5_000 + tick * 100), "/ls/dev/d", Access::Write);
        }

        check(rates(&load, t(7_000), "/ls/dev/d"), 0.0, 10.0);
        check(rates(&load, t(5_001), "/ls/dev/d"), 0.0, 20.0);
    }

    #[test]
    fn what_was_asked_is_forgotten_within_two_windows() {
        let mut load = Load::default();
        for _ in 0..100 {
            load.add(t(0), "/ls/dev/d", Access::Read);
        }

        check(rates(&load, t(9_999), "/ls/dev/d"), 100.0 / 9.999, 0.0);
        check(rates(&load, t(15_000), "/ls/dev/d"), 5.0, 0.0);
        check(rates(&load, t(20_000), "/ls/dev/d"), 0.0, 0.0);
        assert_eq!(load.measured(t(3_600_000)), Measured::default());
        load.add(t(3_600_000), "/ls/dev/d", Access::Read);
        check(rates(&load, t(3_600_000), "/ls/dev/d"), 0.1, 0.0);
    }

    #[test]
    fn it_is_said_for_how_long_was_counted() {
        let mut load = Load::since(t(1_000));
        let over = |load: &Load, now| load.measured(t(now)).over;

        assert_eq!(over(&load, 1_000), Duration::ZERO);
        load.add(t(3_000), "/ls/dev/d", Access::Read);
        assert_eq!(over(&load, 5_500), Duration::from_millis(4_500), "although the first came later");
        assert_eq!(over(&load, 60_000), WINDOW, "what was before that no longer counts");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_hot() {
        let mut load = Load::default();
        for number in 0..100_000_u64 {
            load.add(t(0), &format!("/ls/dev/cold{number}"), Access::Read);
            if number % 10 == 0 {
                load.add(t(0), "/ls/dev/hot", Access::Write);
            }
        }

        assert!(load.current.directories.len() <= DIRECTORIES_MAX);
        assert_eq!(load.current.directories["/ls/dev/hot"].writes, 10_000);
        let measured = load.measured(t(10_000 - 1));
        let mut total = measured.others;
        measured.directories.values().for_each(|rates| total.add(*rates));
        assert!((total.total() * 9.999 - 110_000.0).abs() < 1.0, "nothing is lost: {total:?}");
    }

    #[test]
    fn a_full_table_of_equals_makes_room() {
        let mut window = Window::default();
        for number in 0..=DIRECTORIES_MAX {
            window.add(&format!("/ls/dev/d{number}"), Access::Read);
        }

        assert_eq!(window.directories.len(), DIRECTORIES_MAX / 2 + 1);
        assert_eq!(window.others.reads, DIRECTORIES_MAX as u64 / 2);
    }
}
