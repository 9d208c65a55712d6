//! What an onlooker knows who sees everything at once: what was acknowledged and read, what took effect, and which promise
//! was broken.

use hasp_proto::id::Generation;

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// P-LIN: a read began after something newer had been written or read, and shows something older.
    Stale(String),
    /// P-LEASE, P-LOCK: a client believes in a lock that the cell has taken from it.
    LockGone(String),
    /// P-ONCE: a write took effect twice.
    Twice(String),
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The newest contents that any write or read has brought to its caller.
    pub newest: Generation,
    /// Numbers of the writes that took effect, in order.
    pub took_effect: Vec<u64>,
    /// The first promise that was broken.
    pub broken: Option<Broken>,
}

/// What has come about on the way to a state. No part of it: two ways to one state have the same future.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// A read was answered from a cache.
    pub cached_read: bool,
    /// A write was acknowledged.
    pub write: bool,
    /// A write was acknowledged after a fail-over.
    pub write_after_fail_over: bool,
    /// A client resumed its session at another proxy.
    pub move_between_proxies: bool,
}
