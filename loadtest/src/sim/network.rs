//! Connections between nodes: pipes that keep their order, take their time, and break.
//!
//! What is sent while a way is cut waits until it is mended, as a transport that repeats does; what is in a pipe
//! when it breaks is lost. It does not know what it carries.

use std::collections::BTreeMap;
use std::time::Duration;

use hasp_proto::server::ConnectionId;
use hasp_router::upstream::LinkId;

use super::clock::Moment;
use super::random::Random;
use super::world::NodeId;

/// One connection, from who opened it to a host.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who opened it.
    pub holder: NodeId,
    /// By what its opener knows it.
    pub link: LinkId,
    /// Who was called.
    pub host: NodeId,
    /// The host knows of it.
    pub is_accepted: bool,
    /// Nothing arrives any more.
    pub is_broken: bool,
    up_at: Moment,
    down_at: Moment,
}

/// Which way along a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host.
    Up,
    /// To who opened it.
    Down,
}

/// All connections, and the ways that are cut.
#[derive(Debug)]
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    by_link: BTreeMap<(NodeId, LinkId), ConnectionId>,
    opened: u64,
    cuts: BTreeMap<(NodeId, NodeId), Moment>,
    random: Random,
    /// Of a thousand messages so many take long.
    slow_per_mille: u64,
    slow_ms_max: u64,
}

impl Network {
    /// No connections.
    pub fn new(random: Random, slow_per_mille: u64, slow_ms_max: u64) -> Self {
        Self {
            connections: BTreeMap::new(),
            by_link: BTreeMap::new(),
            opened: 0,
            cuts: BTreeMap::new(),
            random,
            slow_per_mille,
            slow_ms_max,
        }
    }

    /// A new connection; nobody has heard of it yet.
    pub fn open(&mut self, holder: NodeId, link: LinkId, host: NodeId) -> ConnectionId {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        self.by_link.insert((holder, link.clone()), id);
        let (up_at, down_at) = (Moment::default(), Moment::default());
        let connection =
            Connection { holder, link, host, is_accepted: false, is_broken: false, up_at, down_at };
        self.connections.insert(id, connection);
        id
    }

    /// The connection of that link, while it stands.
    pub fn of_link(&self, holder: NodeId, link: &LinkId) -> Option<ConnectionId> {
        self.by_link.get(&(holder, link.clone())).copied()
    }

    /// The connection, while anything may still arrive.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id).filter(|connection| !connection.is_broken)
    }

    /// The host knows of it from here on.
    pub fn accepted(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_accepted = true;
        }
    }

    /// When something that is sent now arrives; `None` if the connection is gone.
    pub fn arrival(&mut self, now: Moment, id: ConnectionId, way: Way) -> Option<Moment> {
        let (from, to) = match (self.get(id)?, way) {
            (connection, Way::Up) => (connection.holder, connection.host),
            (connection, Way::Down) => (connection.host, connection.holder),
        };
        let sent = self.cut_until(now, from, to).unwrap_or(now);
        let at = sent + self.delay();
        let connection = self.connections.get_mut(&id).expect("just seen");
        let last = match way {
            Way::Up => &mut connection.up_at,
            Way::Down => &mut connection.down_at,
        };
        *last = at.max(*last);
        Some(*last)
    }

    /// The time that a message takes.
    pub fn delay(&mut self) -> Duration {
        if self.random.chance(self.slow_per_mille) {
            self.random.millis(20, self.slow_ms_max.max(21))
        } else {
            Duration::from_micros(self.random.between(150, 2_500))
        }
    }

    /// Breaks a connection; who had it. Both ends are to be told, if they are there.
    pub fn break_up(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.get_mut(&id).filter(|connection| !connection.is_broken)?;
        connection.is_broken = true;
        let broken = self.connections.remove(&id).expect("just seen");
        let key = (broken.holder, broken.link.clone());
        if self.by_link.get(&key) == Some(&id) {
            self.by_link.remove(&key);
        }
        Some(broken)
    }

    /// The connections of a node, in order.
    pub fn of_node(&self, node: NodeId) -> Vec<ConnectionId> {
        let is_of = |(_, connection): &(&ConnectionId, &Connection)| {
            connection.holder == node || connection.host == node
        };
        self.connections.iter().filter(is_of).map(|(id, _)| *id).collect()
    }

    /// All connections, in order.
    pub fn all(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// Nothing gets from one node to the other until then.
    pub fn cut(&mut self, from: NodeId, to: NodeId, until: Moment) {
        let cut = self.cuts.entry((from, to)).or_default();
        *cut = (*cut).max(until);
    }

    /// Until when nothing gets through, if so.
    pub fn cut_until(&self, now: Moment, from: NodeId, to: NodeId) -> Option<Moment> {
        self.cuts.get(&(from, to)).copied().filter(|until| *until > now)
    }

    /// From here on messages are quick, and all ways open.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.slow_per_mille = 0;
    }
}
