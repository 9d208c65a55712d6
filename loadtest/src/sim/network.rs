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
#[derive(Debug)]
pub struct Connection<T> {
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
    up: Pipe<T>,
    down: Pipe<T>,
}

/// One way along a connection: what is in it, in the order in which it comes out.
#[derive(Debug)]
struct Pipe<T> {
    items: BTreeMap<(Moment, u64), T>,
    count: u64,
    /// When the last that was sent was sent, and when it comes out.
    last: Option<(Moment, Moment)>,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), count: 0, last: None }
    }
}

impl<T> Pipe<T> {
    fn put(&mut self, at: Moment, item: T) {
        self.count += 1;
        self.items.insert((at, self.count), item);
    }
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
pub struct Network<T> {
    connections: BTreeMap<ConnectionId, Connection<T>>,
    by_link: BTreeMap<(NodeId, LinkId), ConnectionId>,
    opened: u64,
    cuts: BTreeMap<(NodeId, NodeId), Moment>,
    random: Random,
    /// Of a thousand messages so many take long.
    slow_per_mille: u64,
    slow_ms_max: u64,
}

/// Of a thousand messages that are sent along with another, so many share its way.
const TOGETHER_PER_MILLE: u64 = 800;

impl<T> Network<T> {
    /// No connections; of a thousand messages so many take long, and how many milliseconds at most.
    pub const fn new(random: Random, (slow_per_mille, slow_ms_max): (u64, u64)) -> Self {
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
        let (up, down) = (Pipe::default(), Pipe::default());
        let connection = Connection { holder, link, host, is_accepted: false, is_broken: false, up, down };
        self.connections.insert(id, connection);
        id
    }

    /// The connection of that link, while it stands.
    pub fn of_link(&self, holder: NodeId, link: &LinkId) -> Option<ConnectionId> {
        self.by_link.get(&(holder, link.clone())).copied()
    }

    /// The connection, while anything may still arrive.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<T>> {
        self.connections.get(&id).filter(|connection| !connection.is_broken)
    }

    /// The host knows of it from here on.
    pub fn accepted(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_accepted = true;
        }
    }

    /// When something that is sent now arrives; `None` if the connection is gone. What is sent together mostly
    /// arrives together.
    pub fn arrival(&mut self, now: Moment, id: ConnectionId, way: Way) -> Option<Moment> {
        let (from, to) = match (self.get(id)?, way) {
            (connection, Way::Up) => (connection.holder, connection.host),
            (connection, Way::Down) => (connection.host, connection.holder),
        };
        let sent = self.cut_until(now, from, to).unwrap_or(now);
        let at = sent + self.delay();
        let is_shared = self.random.chance(TOGETHER_PER_MILLE);
        let pipe = self.pipe(id, way)?;
        let at = match pipe.last {
            Some((before, last)) if is_shared && before == now => last,
            Some((_, last)) => at.max(last),
            None => at,
        };
        pipe.last = Some((now, at));
        Some(at)
    }

    /// Sends something; when it arrives, if the connection stands.
    pub fn send(&mut self, now: Moment, id: ConnectionId, way: Way, item: T) -> Option<Moment> {
        let at = self.arrival(now, id, way)?;
        self.send_until(at, id, way, item)
    }

    /// Sends something that arrives at that moment, whatever was sent before it.
    pub fn send_until(&mut self, at: Moment, id: ConnectionId, way: Way, item: T) -> Option<Moment> {
        self.pipe(id, way)?.put(at, item);
        Some(at)
    }

    /// All that has arrived by now and was not taken yet, in order.
    pub fn take(&mut self, now: Moment, id: ConnectionId, way: Way) -> Vec<T> {
        let Some(pipe) = self.pipe(id, way) else { return Vec::new() };
        let later = pipe.items.split_off(&(Moment(now.0 + 1), 0));
        std::mem::replace(&mut pipe.items, later).into_values().collect()
    }

    fn pipe(&mut self, id: ConnectionId, way: Way) -> Option<&mut Pipe<T>> {
        let connection = self.connections.get_mut(&id)?;
        Some(match way {
            Way::Up => &mut connection.up,
            Way::Down => &mut connection.down,
        })
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
    pub fn break_up(&mut self, id: ConnectionId) -> Option<Connection<T>> {
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
        let is_of = |(_, connection): &(&ConnectionId, &Connection<T>)| {
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

#[cfg(test)]
mod tests {
    use hasp_proto::client::Attempt;

    use super::*;

    const HOLDER: NodeId = NodeId::Client(0);
    const HOST: NodeId = NodeId::Replica(0);

    fn network() -> (Network<u32>, ConnectionId) {
        let mut network = Network::new(Random::new(1), (500, 300));
        let id = network.open(HOLDER, LinkId { cell: None, attempt: Attempt(1) }, HOST);
        (network, id)
    }

    #[test]
    fn what_was_sent_comes_out_in_its_order_once_and_never_before_its_time() {
        let (mut network, id) = network();
        let mut last = Moment::default();
        for item in 0..200 {
            let at = network.send(Moment(u64::from(item) / 3 * 1_000), id, Way::Up, item).unwrap();
            assert!(at >= last, "{item} overtakes");
            last = at;
        }

        assert!(network.take(Moment(149), id, Way::Up).is_empty(), "nothing takes no time");
        let mut taken = network.take(Moment(last.0 - 1), id, Way::Up);
        let rest = network.take(last, id, Way::Up);

        assert!(!taken.is_empty() && !rest.is_empty(), "some are late");
        taken.extend(rest);
        assert_eq!(taken, (0..200).collect::<Vec<_>>());
        assert!(network.take(Moment(u64::MAX - 1), id, Way::Up).is_empty());
        assert!(network.take(last, id, Way::Down).is_empty(), "the other way is another");
    }

    #[test]
    fn what_is_sent_while_a_way_is_cut_comes_when_it_is_mended() {
        let (mut network, id) = network();
        let mended = Moment::seconds(5);
        network.cut(HOLDER, HOST, mended);

        assert!(network.send(Moment(1), id, Way::Up, 1).unwrap() > mended);
        assert!(network.send(Moment(1), id, Way::Down, 2).unwrap() < mended, "the way back is open");
    }

    #[test]
    fn a_broken_connection_carries_nothing() {
        let (mut network, id) = network();
        network.send(Moment(1), id, Way::Up, 1);

        assert!(network.break_up(id).is_some());

        assert!(network.break_up(id).is_none(), "it breaks once");
        assert_eq!(network.send(Moment(1), id, Way::Up, 2), None);
        assert!(network.take(Moment::seconds(9), id, Way::Up).is_empty());
    }
}
