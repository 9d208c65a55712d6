//! Every limit and default of the protocol, in one place, with its unit and reason.

use std::time::Duration;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 1_024;
/// Longest component of a name, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Most components of a name, `ls` and the namespace included.
pub const COMPONENTS_MAX: usize = 64;
/// Largest contents of a file (paper §4.5: 256 kB).
pub const CONTENTS_BYTES_MAX: usize = 256 * 1024;
/// Largest listing of a directory, in bytes on the wire: with the rest of a batch it must stay below
/// the 1 MiB that a client takes in as one message.
pub const LISTING_BYTES_MAX: usize = 896 * 1024;

/// Session and cache lease that a host grants when it is not under load (paper §2.8).
pub const LEASE: Duration = Duration::from_secs(12);
/// KeepAlives are answered at multiples of this on the host's clock, a little early rather than
/// late: a host of thousands wakes up a few times a second for all of them, not once for each.
pub const KEEP_ALIVE_TICK: Duration = Duration::from_millis(100);
/// No lease is ever longer: what a new master must assume of its predecessor (`lease-5`).
pub const LEASE_MAX: Duration = Duration::from_secs(60);
/// How long a client in jeopardy looks for its host before it gives the session up (paper §2.8).
pub const GRACE: Duration = Duration::from_secs(45);
/// How long what belongs to the clients of a lost proxy is kept for them (`proxy-3`).
pub const CLAIM_WINDOW: Duration = Duration::from_secs(60);
/// How long a cell remembers a client on which nothing hangs any more, at least: longer than any proxy that it left may
/// go on speaking for it, and than it may come back itself (`proxy-1`, `proxy-4`).
pub const LINGERS: Duration = Duration::from_secs(70);
/// Longest grace period that an application may choose.
pub const GRACE_MAX: Duration = Duration::from_secs(60);
/// Lock-delay if the opener does not choose (paper §2.4 gives only the bound).
pub const LOCK_DELAY: Duration = Duration::from_secs(10);
/// Longest lock-delay (paper §2.4).
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);

/// Bound on how much faster one clock may run than another, in millionths (1%).
pub const CLOCK_RATE_BOUND_PPM: u32 = 10_000;

/// Requests of one client that a host works on at a time; more are refused with `RateLimited`.
pub const REQUESTS_IN_FLIGHT_PER_CLIENT: usize = 1_024;
/// Requests of one proxy or router that a host works on at a time.
pub const REQUESTS_IN_FLIGHT_PER_TIER: usize = 65_536;
/// Unacknowledged news of one session; a session with more is ended.
pub const NEWS_PER_SESSION: usize = 4_096;
/// Unacknowledged events of one session; those beyond are not told, only that there were some.
pub const EVENTS_PER_SESSION: usize = 256;
/// KeepAlives that a host means to answer in a second: with more sessions than that allows under the
/// usual lease, leases grow (`ka-4`).
pub const KEEP_ALIVES_PER_SECOND: usize = 4_000;
/// Sessions that may come to a relay from other hosts in a second before that is a storm, in which leases grow (`ka-4`).
pub const ARRIVALS_PER_SECOND: u32 = 50;
/// Handles that one client may have open.
pub const HANDLES_PER_CLIENT: usize = 8_192;
/// Requests of one client that may wait for locks.
pub const LOCK_WAITS_PER_CLIENT: usize = 512;
/// Longest name of an ACL, in bytes: one component.
pub const ACL_NAME_BYTES_MAX: usize = COMPONENT_BYTES_MAX;
/// How long a session without handles and calls is kept by its holder (paper §2.8).
pub const IDLE: Duration = Duration::from_secs(60);
/// Bytes queued towards one session's connection; a peer that reads slower loses its connection.
pub const OUTBOX_BYTES_CLIENT: usize = 4 * 1024 * 1024;
/// Bytes queued towards a proxy or router, or by a client towards its host.
pub const OUTBOX_BYTES_TIER: usize = 64 * 1024 * 1024;
/// Items queued in one outbox.
pub const OUTBOX_ITEMS: usize = 131_072;
/// Nodes that move between cells at once (`move-2`): both pause for as long as it takes to pack or unpack them.
pub const MOVE_NODES_MAX: usize = 100_000;
/// Bytes of their contents.
pub const MOVE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes after which the next part of what moves begins.
pub const MOVE_PART_BYTES: usize = 256 * 1024;
/// Answers kept for one client until it says that they arrived; more writes are refused meanwhile.
pub const ANSWERS_KEPT_PER_CLIENT: usize = 2_048;
/// Longest principal, in bytes.
pub const PRINCIPAL_BYTES_MAX: usize = 255;

/// Version of the session stream that this code speaks.
pub const PROTOCOL: u32 = 1;
