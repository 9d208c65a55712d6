//! What can happen next, in the protocol's words.

use std::fmt;

use hasp_proto::server::ConnectionId;

use super::node::NodeId;
use super::wires::Way;

/// One step of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What is first in a pipe arrives.
    Deliver(ConnectionId, Way),
    /// A majority has the next entry.
    Commit,
    /// A client reads the file.
    Read(usize),
    /// A client writes the file.
    Write(usize),
    /// A client waits for the lock.
    Acquire(usize),
    /// A client gives the lock back.
    Release(usize),
    /// Time passes, and nothing arrives.
    Pass,
    /// Time passes, and everything arrives at once.
    Calm,
    /// A connection breaks.
    Break(ConnectionId),
    /// Nothing passes between a holder and a host.
    Cut(NodeId, NodeId),
    /// Everything passes between them again.
    Heal(NodeId, NodeId),
    /// The leader crashes.
    Crash,
    /// No majority answers the leader any more.
    Isolate,
    /// Another replica leads, with what was proposed and not committed.
    ElectWithTail,
    /// Another replica leads, without it.
    ElectWithoutTail,
    /// The outdated leader hears that it is none.
    Depose,
    /// A proxy dies.
    Kill(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(connection, Way::Up) => {
                write!(f, "arrives on connection {}, upwards", connection.0)
            }
            Self::Deliver(connection, Way::Down) => {
                write!(f, "arrives on connection {}, downwards", connection.0)
            }
            Self::Commit => f.write_str("the next entry is committed"),
            Self::Read(client) => write!(f, "c{} reads the file", client + 1),
            Self::Write(client) => write!(f, "c{} writes the file", client + 1),
            Self::Acquire(client) => write!(f, "c{} asks for the lock", client + 1),
            Self::Release(client) => write!(f, "c{} releases the lock", client + 1),
            Self::Pass => f.write_str("time passes, and nothing arrives"),
            Self::Calm => f.write_str("time passes, and everything arrives at once"),
            Self::Break(connection) => write!(f, "connection {} breaks", connection.0),
            Self::Cut(holder, host) => write!(f, "nothing passes between {holder} and {host} any more"),
            Self::Heal(holder, host) => write!(f, "everything passes between {holder} and {host} again"),
            Self::Crash => f.write_str("the master crashes"),
            Self::Isolate => f.write_str("no majority answers the master any more"),
            Self::ElectWithTail => f.write_str("another replica leads, with the entries that were proposed"),
            Self::ElectWithoutTail => f.write_str("another replica leads, with what was committed"),
            Self::Depose => f.write_str("the outdated master hears that it is none"),
            Self::Kill(proxy) => write!(f, "p{} dies", proxy + 1),
        }
    }
}
