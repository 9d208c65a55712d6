//! What may happen in a world, each at its moment.

use std::rc::Rc;

use hasp_client::machine::CallId;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_router::upstream::LinkId;

use super::faults::Fault;
use super::log::Entry;
use super::network::Way;
use super::node::NodeId;

/// What travels along a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// A connection is asked for.
    Open,
    /// It stands.
    Opened,
    /// From its opener.
    Up(Up),
    /// From its host.
    Down(Down),
    /// The host has said all.
    Closed,
}

/// What is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A machine has something due.
    Wake(NodeId),
    /// Something comes out of a connection, that way.
    Arrive(ConnectionId, Way),
    /// A holder finds that its connection is gone.
    LinkLost(NodeId, u64, LinkId),
    /// A host finds that a connection is gone.
    ConnectionLost(NodeId, u64, ConnectionId),
    /// A leader sends what its followers lack.
    Beat(usize, u64),
    /// A follower hears its leader.
    Append(usize, Rc<Append>),
    /// A leader hears a follower.
    Appended(usize, Appended),
    /// A follower looks whether it should stand for election.
    ElectionDue(usize, u64),
    /// A replica that leaves looks whether it can.
    Leaving(usize, u64),
    /// An application does the next thing.
    Think(usize, u64),
    /// An application has waited long enough for a lock.
    GiveUp(usize, u64, CallId),
    /// Something goes wrong.
    Fault(Fault),
    /// A pause is over.
    Resume(NodeId),
    /// A node starts again.
    Start(NodeId),
    /// Everything is well from here on.
    Heal,
}

/// From a leader to a follower.
#[derive(Debug)]
pub struct Append {
    /// The leader.
    pub from: usize,
    /// Its term.
    pub term: u64,
    /// When it was sent, by the leader's clock.
    pub sent: Time,
    /// After so many entries.
    pub before: usize,
    /// These.
    pub entries: Vec<Rc<Entry>>,
    /// So many are committed.
    pub committed: usize,
}

/// From a follower to its leader.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// The follower.
    pub from: usize,
    /// Its term.
    pub term: u64,
    /// Its log agrees with the leader's for so many entries.
    pub matched: usize,
    /// When what it answers was sent, by the leader's clock.
    pub sent: Time,
}
