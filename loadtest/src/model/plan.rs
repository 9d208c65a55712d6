//! What a world is made of, and how much may happen in it. Every bound is a number here.

use std::time::Duration;

use super::node::NodeId;
use super::omission::Omission;

/// How often something may happen in a world, from its beginning on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Reads of the file.
    pub reads: u8,
    /// Writes of the file.
    pub writes: u8,
    /// Acquisitions of its lock.
    pub acquires: u8,
    /// Releases of its lock.
    pub releases: u8,
    /// Stretches of time in which nothing is delivered.
    pub passes: u8,
    /// Stretches of time in which everything is delivered at once.
    pub calms: u8,
    /// Connections that break.
    pub breaks: u8,
    /// Pairs of nodes between which nothing passes for a while.
    pub cuts: u8,
    /// Masters that crash.
    pub crashes: u8,
    /// Masters that lose their quorum and do not know it.
    pub isolations: u8,
    /// Proxies that die.
    pub kills: u8,
}

/// Some of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// Every one.
    All,
    /// Not one.
    None,
    /// Those of that holder.
    Of(NodeId),
}

impl Links {
    /// Whether a connection of that holder is one of them.
    pub fn contains(&self, holder: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Of(node) => *node == holder,
        }
    }
}

/// What an application does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Role {
    /// Reads.
    pub reads: bool,
    /// Writes.
    pub writes: bool,
    /// Acquires the lock.
    pub locks: bool,
    /// It goes through proxies.
    pub is_behind: bool,
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is called.
    pub name: &'static str,
    /// The applications.
    pub clients: Vec<Role>,
    /// How many proxies there are.
    pub proxies: usize,
    /// The clocks of the applications, and of the proxies, gain so many millionths on those of masters (lose, if negative).
    pub holders_ppm: i64,
    /// Length of a stretch in which nothing is delivered.
    pub pass: Duration,
    /// Length of a stretch in which everything is.
    pub calm: Duration,
    /// An entry is committed as soon as it is proposed.
    pub commits_at_once: bool,
    /// The lock is held when the world begins.
    pub begins_locked: bool,
    /// Where messages may take any time; elsewhere they arrive at once.
    pub slow: Links,
    /// Where breaks and cuts may be.
    pub weak: Links,
    /// How much may happen.
    pub bounds: Bounds,
    /// What is left out.
    pub omission: Option<Omission>,
}

/// As slow as a holder's clock may be: leases allow for it to the last microsecond.
const SLOWEST_PPM: i64 = -9_900;
/// Slower than that.
const TOO_SLOW_PPM: i64 = -250_000;

const READER: Role = Role { reads: true, writes: false, locks: false, is_behind: false };
const WRITER: Role = Role { reads: false, writes: true, locks: false, is_behind: false };
const LOCKER: Role = Role { reads: false, writes: false, locks: true, is_behind: true };

impl Plan {
    /// One client caches what another writes, straight at the master: leases and invalidations.
    pub fn cache() -> Self {
        Self {
            name: "cache",
            clients: vec![READER, WRITER],
            proxies: 0,
            holders_ppm: SLOWEST_PPM,
            pass: Duration::from_secs(4),
            calm: Duration::from_secs(4),
            commits_at_once: true,
            begins_locked: false,
            slow: Links::All,
            weak: Links::All,
            bounds: Bounds { reads: 3, writes: 2, passes: 5, breaks: 1, ..Bounds::default() },
            omission: None,
        }
    }

    /// The same through a fail-over, with a master that dies or one that does not know that it is none any more.
    pub fn fail_over() -> Self {
        let bounds =
            Bounds { reads: 2, writes: 2, passes: 4, crashes: 1, isolations: 1, ..Bounds::default() };
        Self { name: "fail-over", commits_at_once: false, bounds, ..Self::cache() }
    }

    /// A cache in a proxy and one in its client, against a writer at the master.
    pub fn tier() -> Self {
        let bounds = Bounds { reads: 2, writes: 2, passes: 4, breaks: 1, ..Bounds::default() };
        let behind = Role { is_behind: true, ..READER };
        Self { name: "tier", clients: vec![behind, WRITER], proxies: 1, bounds, ..Self::cache() }
    }

    /// A client that holds a lock through one of two proxies, either of which it or the cell may lose.
    pub fn claims() -> Self {
        let bounds = Bounds { passes: 2, calms: 4, breaks: 1, cuts: 2, kills: 1, ..Bounds::default() };
        Self {
            name: "claims",
            clients: vec![LOCKER],
            proxies: 2,
            calm: Duration::from_secs(8),
            begins_locked: true,
            bounds,
            ..Self::cache()
        }
    }

    /// Writes whose answers are lost with a connection or a master, and that are asked again.
    pub fn once() -> Self {
        let bounds = Bounds { writes: 2, passes: 2, breaks: 2, crashes: 1, ..Bounds::default() };
        let behind = Role { is_behind: true, ..WRITER };
        Self {
            name: "once",
            clients: vec![behind, WRITER],
            proxies: 1,
            pass: Duration::from_secs(1),
            commits_at_once: false,
            bounds,
            ..Self::cache()
        }
    }

    /// A client that holds a lock straight at a master, which loses it and then its quorum: the next master has the client
    /// while the last one still wants to end it.
    pub fn two_masters() -> Self {
        let bounds = Bounds { passes: 2, calms: 1, cuts: 1, isolations: 1, ..Bounds::default() };
        Self {
            name: "two-masters",
            clients: vec![Role { is_behind: false, ..LOCKER }],
            pass: Duration::from_secs(13),
            commits_at_once: false,
            begins_locked: true,
            slow: Links::None,
            bounds,
            ..Self::cache()
        }
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        vec![Self::cache(), Self::fail_over(), Self::tier(), Self::claims(), Self::once()]
    }

    /// The world in which an omission shows soonest; `None` if it has a model of its own.
    pub fn without(omission: Omission) -> Option<Self> {
        let slow_reader = Self { slow: Links::Of(NodeId::Client(0)), ..Self::cache() };
        let plan = match omission {
            Omission::InvalidationNotAwaited => slow_reader,
            Omission::LeaseFromReceipt => Self {
                pass: Duration::from_millis(3_200),
                bounds: Bounds { reads: 1, writes: 1, breaks: 0, ..slow_reader.bounds },
                ..slow_reader
            },
            Omission::ClocksUnbounded => Self { holders_ppm: TOO_SLOW_PPM, ..slow_reader },
            Omission::FailOverNotAwaited => Self {
                slow: Links::Of(NodeId::Client(0)),
                commits_at_once: true,
                bounds: Bounds { isolations: 0, ..Self::fail_over().bounds },
                ..Self::fail_over()
            },
            Omission::MasterLeaseUnearned => Self {
                slow: Links::None,
                commits_at_once: true,
                bounds: Bounds { breaks: 1, passes: 6, crashes: 0, ..Self::fail_over().bounds },
                ..Self::fail_over()
            },
            Omission::EpochShared => Self {
                slow: Links::None,
                pass: Duration::from_millis(1_900),
                weak: Links::Of(NodeId::Client(0)),
                bounds: Bounds {
                    reads: 2,
                    writes: 2,
                    passes: 3,
                    breaks: 1,
                    isolations: 1,
                    ..Bounds::default()
                },
                ..Self::cache()
            },
            Omission::EndedByOldMaster => Self::two_masters(),
            Omission::ClaimNotAwaited => Self::claims(),
            Omission::RetriedAnew => Self {
                slow: Links::Of(NodeId::Client(1)),
                commits_at_once: true,
                bounds: Bounds { calms: 1, ..Self::once().bounds },
                ..Self::once()
            },
            Omission::FloorForgotten
            | Omission::SealNotVoided
            | Omission::EvidenceNotVoided
            | Omission::ChildrenNotLookedFor
            | Omission::DeletedUnsealed
            | Omission::MoveNotDecided
            | Omission::NotPacked
            | Omission::ImportNotAwaited
            | Omission::ParcelNotDropped
            | Omission::AnswersLeftBehind
            | Omission::StampLeftBehind
            | Omission::LocksLeftBehind
            | Omission::OrphanKept
            | Omission::KeysLeftBehind => return None,
        };
        Some(Self { omission: Some(omission), ..plan })
    }
}
