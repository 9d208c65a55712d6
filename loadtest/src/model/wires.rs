//! Connections, and what is on its way along them: two pipes each, in order. A pipe may be slow without bound; it loses
//! what is in it only with its connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_router::upstream::LinkId;

use super::hashed::fingerprint;
use super::node::NodeId;

/// Along which pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Towards the host.
    Up,
    /// Towards the holder.
    Down,
}

/// What travels up.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all that travels is of the large one")]
pub enum Upward {
    /// An item of the protocol.
    Item(Up),
    /// The holder has closed the connection.
    Gone,
}

/// What travels down.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all that travels is of the large one")]
pub enum Downward {
    /// An item of the protocol.
    Item(Down),
    /// The host has closed the connection.
    Gone,
}

/// A message, and the fingerprint of its text.
#[derive(Clone, Debug)]
pub struct Sealed<T> {
    print: u64,
    /// The message.
    pub value: Arc<T>,
}

impl<T: Debug> Sealed<T> {
    /// Seals a message.
    pub fn new(value: T) -> Self {
        Self { print: fingerprint(&value), value: Arc::new(value) }
    }

    /// The fingerprint.
    pub const fn print(&self) -> u64 {
        self.print
    }
}

/// Seals what goes up. Of a Hello the text does not show whose it is.
pub fn sealed_up(up: Up) -> Sealed<Upward> {
    let session = match &up {
        Up::Hello(hello) => Some(hello.key.id()),
        _ => None,
    };
    let value = Upward::Item(up);
    Sealed { print: fingerprint(&(&value, session)), value: Arc::new(value) }
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Who opened it.
    pub holder: NodeId,
    /// What its opener calls it; nobody, once its opener has closed it.
    pub link: Option<LinkId>,
    /// To whom.
    pub host: NodeId,
    /// The last KeepAlive, and when it was sent by its holder's clock. Its holder knows that, too, as long as it matters.
    pub asked: Option<(u64, Time)>,
    up: VecDeque<Sealed<Upward>>,
    down: VecDeque<Sealed<Downward>>,
}

impl Hash for Wire {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.holder, &self.link, self.host).hash(state);
        state.write_usize(self.up.len());
        self.up.iter().for_each(|item| state.write_u64(item.print));
        state.write_usize(self.down.len());
        self.down.iter().for_each(|item| state.write_u64(item.print));
    }
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Wires {
    wires: BTreeMap<ConnectionId, Wire>,
    ever: u64,
    /// Between whom nothing passes.
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Hash for Wires {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.wires.len());
        for (connection, wire) in &self.wires {
            (connection, wire).hash(state);
        }
        self.cuts.hash(state);
        self.ever.hash(state);
    }
}

impl Wires {
    /// A new connection.
    pub fn open(&mut self, holder: NodeId, link: LinkId, host: NodeId) -> ConnectionId {
        self.ever += 1;
        let connection = ConnectionId(self.ever);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.wires.insert(connection, Wire { holder, link: Some(link), host, asked: None, up, down });
        connection
    }

    /// A connection that stands, at one end at least.
    pub fn get(&self, connection: ConnectionId) -> Option<&Wire> {
        self.wires.get(&connection)
    }

    /// Its holder sends a KeepAlive.
    pub fn asks(&mut self, connection: ConnectionId, keep_alive: u64, now: Time) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.asked = Some((keep_alive, now));
        }
    }

    /// What its opener calls so.
    pub fn of_link(&self, holder: NodeId, link: &LinkId) -> Option<ConnectionId> {
        let is_it = |wire: &Wire| wire.holder == holder && wire.link.as_ref() == Some(link);
        self.wires.iter().find(|(_, wire)| is_it(wire)).map(|(connection, _)| *connection)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (ConnectionId, &Wire)> {
        self.wires.iter().map(|(connection, wire)| (*connection, wire))
    }

    /// Takes it away, with everything in it.
    pub fn remove(&mut self, connection: ConnectionId) -> Option<Wire> {
        self.wires.remove(&connection)
    }

    /// Puts something in at the lower end.
    pub fn put_up(&mut self, connection: ConnectionId, item: Sealed<Upward>) {
        if let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.link.is_some()) {
            wire.up.push_back(item);
        }
    }

    /// Puts something in at the upper end.
    pub fn put_down(&mut self, connection: ConnectionId, item: Sealed<Downward>) {
        if let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.link.is_some()) {
            wire.down.push_back(item);
        }
    }

    /// Its opener closes it: what was sent before still arrives, what comes is of no use.
    pub fn leave(&mut self, connection: ConnectionId) {
        self.put_up(connection, Sealed::new(Upward::Gone));
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.link = None;
            wire.down.clear();
        }
    }

    /// What comes out next at the upper end.
    pub fn take_up(&mut self, connection: ConnectionId) -> Option<Sealed<Upward>> {
        self.wires.get_mut(&connection)?.up.pop_front()
    }

    /// What comes out next at the lower end.
    pub fn take_down(&mut self, connection: ConnectionId) -> Option<Sealed<Downward>> {
        self.wires.get_mut(&connection)?.down.pop_front()
    }

    /// What would come out next.
    pub fn head(&self, connection: ConnectionId, way: Way) -> Option<String> {
        let wire = self.wires.get(&connection)?;
        match way {
            Way::Up => wire.up.front().map(|item| format!("{:?}", item.value)),
            Way::Down => wire.down.front().map(|item| format!("{:?}", item.value)),
        }
    }

    /// Pipes out of which something may come, in order.
    pub fn deliverable(&self) -> impl Iterator<Item = (ConnectionId, Way)> {
        let passes = |wire: &&Wire| !self.is_cut(wire.holder, wire.host);
        self.all().filter(move |(_, wire)| passes(wire)).flat_map(|(connection, wire)| {
            let up = (!wire.up.is_empty()).then_some((connection, Way::Up));
            let down = (!wire.down.is_empty()).then_some((connection, Way::Down));
            up.into_iter().chain(down)
        })
    }

    /// Whether nothing passes between a holder and a host.
    pub fn is_cut(&self, holder: NodeId, host: NodeId) -> bool {
        self.cuts.contains(&(holder, host))
    }

    /// Between whom nothing passes, as holder and host.
    pub fn cuts(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        self.cuts.iter().copied()
    }

    /// Nothing passes any more.
    pub fn cut(&mut self, holder: NodeId, host: NodeId) {
        self.cuts.insert((holder, host));
    }

    /// Everything passes again.
    pub fn heal(&mut self, holder: NodeId, host: NodeId) {
        self.cuts.remove(&(holder, host));
    }
}
