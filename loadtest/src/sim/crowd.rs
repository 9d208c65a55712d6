//! Very many sessions through two layers of proxies: the machines of one cell's master, of both layers, and of every
//! client, with messages that take no time and nothing that goes wrong. It shows what each layer has to do, and that what
//! the master has to do does not depend on how many there are.
//!
//! ```text
//! clients open a session each, open one file and read it, to keep it -- minutes pass -- one writes it
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::master::{self, MasterConfig, MasterCore};
use hasp_cell::state::State;
use hasp_proto::client::{self, Ask, Attempt, ClientConfig, ClientCore, Event};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, SessionKey};
use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core as _;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Create, Op, Open, Reply, Use};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, News, Role, Up};
use hasp_proto::time::Time;
use hasp_router::relay::{self, RelayCore, RelayCoreConfig};
use hasp_router::upstream::{Hosts, LinkId, UpstreamConfig};

/// Clients of one proxy.
const CLIENTS_PER_PROXY: usize = 10_000;
/// Proxies of the lower layer for each of the upper one.
const LOWER_PER_UPPER: usize = 10;
/// Within this time all sessions begin.
const RAMP: Duration = Duration::from_secs(20);
/// From then on KeepAlives are counted, for this long.
const HOLD: Duration = Duration::from_secs(40);
/// By then the write has been answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the master hears of its quorum.
const BEAT: Duration = Duration::from_millis(100);
/// What all read.
const FILE: &str = "/ls/dev/file";
/// What proxies cache.
const CACHE_BYTES: usize = 1 << 20;

/// Whose machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Master,
    /// Both layers, the upper one first.
    Relay(usize),
    Client(usize),
}

/// Something to be handed on.
enum Item {
    Connect(Node, Handle, Node),
    Up(usize, Up),
    Down(usize, Down),
    Close(usize),
}

/// By what its holder knows a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Handle {
    Link(LinkId),
    Attempt(Attempt),
}

struct Connection {
    holder: Node,
    handle: Handle,
    host: Node,
}

/// What one layer was asked while KeepAlives were counted, and how much of the write came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Hosts in it.
    pub hosts: usize,
    /// Sessions that they hold for others.
    pub sessions: usize,
    /// KeepAlives that they received, in [`Found::seconds`].
    pub keep_alives: u64,
    /// Requests that they received since the beginning.
    pub requests: u64,
    /// Invalidations that they told when the file was written.
    pub told: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// For how long KeepAlives were counted.
    pub seconds: u64,
    /// The master, the upper proxies, the lower ones.
    pub layers: [Layer; 3],
    /// Records of clients in the cell's state at the end.
    pub records: usize,
    /// What should not have been.
    pub broken: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "            hosts  sessions  KeepAlives/s  of one host  requests  told of the write")?;
        for (name, layer) in ["master", "upper layer", "lower layer"].iter().zip(&self.layers) {
            let rate = layer.keep_alives as f64 / self.seconds.max(1) as f64;
            let of_one = rate / layer.hosts.max(1) as f64;
            let Layer { hosts, sessions, requests, told, .. } = layer;
            writeln!(
                f,
                "{name:<11} {hosts:>5} {sessions:>9} {rate:>13.2} {of_one:>12.2} {requests:>9} {told:>18}"
            )?;
        }
        write!(f, "records of clients in the cell's state: {}", self.records)
    }
}

struct Crowd {
    now: Time,
    master: MasterCore,
    state: State,
    relays: Vec<RelayCore>,
    /// So many of them are the upper layer.
    upper: usize,
    clients: Vec<Option<ClientCore>>,
    handles: Vec<Option<HandleToken>>,
    connections: Vec<Option<Connection>>,
    by_holder: BTreeMap<(Node, Handle), usize>,
    items: VecDeque<Item>,
    timers: BinaryHeap<Reverse<(Time, Node)>>,
    armed: BTreeMap<Node, Time>,
    counts: [Layer; 3],
    is_written: bool,
    broken: Vec<String>,
}

/// Runs so many clients, and says what was found.
pub fn run(clients: usize) -> Found {
    let lower = clients.div_ceil(CLIENTS_PER_PROXY).max(1);
    let upper = lower.div_ceil(LOWER_PER_UPPER).max(1);
    let mut crowd = Crowd::new(clients, upper, lower);
    crowd.work();
    crowd.found()
}

fn map() -> PartitionMap {
    let cells = BTreeMap::from([(CellName::new("a"), vec!["master".to_owned()])]);
    PartitionMap::new(1, "dev", [("/ls/dev", "a")], cells).expect("a good map")
}

impl Crowd {
    fn new(clients: usize, upper: usize, lower: usize) -> Self {
        let config = MasterConfig {
            cell: CellName::new("a"),
            replica: 1,
            addresses: BTreeMap::from([(1, "master".to_owned())]),
            map: map(),
            handle_key: Bytes::from_static(&[7; 32]),
            terms: LeaseTerms::default(),
        };
        let relay = |at: usize| {
            let hosts = if at < upper {
                Hosts::Cells(map())
            } else {
                Hosts::one(vec![format!("{}", (at - upper) % upper)])
            };
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
            let upstream = UpstreamConfig::tier(hosts, Role::Proxy, &at.to_string(), seed);
            let (map, terms) = (map(), LeaseTerms::default());
            RelayCore::new(
                Time::ZERO,
                RelayCoreConfig { upstream, map, terms, cache_bytes: Some(CACHE_BYTES) },
            )
        };
        Self {
            now: Time::ZERO,
            master: MasterCore::new(config, Duration::from_secs(1)),
            state: State::default(),
            relays: (0..upper + lower).map(relay).collect(),
            upper,
            clients: (0..clients).map(|_| None).collect(),
            handles: vec![None; clients],
            connections: Vec::new(),
            by_holder: BTreeMap::new(),
            items: VecDeque::new(),
            timers: BinaryHeap::new(),
            armed: BTreeMap::new(),
            counts: [Layer::default(); 3],
            is_written: false,
            broken: Vec::new(),
        }
    }

    fn work(&mut self) {
        self.master_hears(master::Input::Elected(self.state.clone()));
        self.settle();
        for at in 0..self.relays.len() {
            self.drain_relay(at);
        }
        self.run_until(Time::from_millis(1_000));
        let began = self.now;
        let count = self.clients.len();
        for client in 0..count {
            let share = RAMP * u32::try_from(client * 1_000 / count).expect("below 1,000") / 1_000;
            self.run_until(began + share);
            self.begin(client);
        }
        self.run_until(began + RAMP + Duration::from_secs(10));
        let before = self.counts.map(|layer| layer.keep_alives);
        self.run_until(self.now + HOLD);
        for (layer, before) in self.counts.iter_mut().zip(before) {
            layer.keep_alives -= before;
        }
        self.write();
        let until = self.now + PATIENCE;
        while !self.is_written && self.now < until {
            self.run_until(self.now + BEAT);
        }
        if !self.is_written {
            self.broken.push("the write was not answered".to_owned());
        }
    }

    fn found(mut self) -> Found {
        let lower = self.relays.len() - self.upper;
        let (upper_relays, lower_relays) = self.relays.split_at(self.upper);
        let sessions = |relays: &[RelayCore]| relays.iter().map(|relay| relay.status().sessions).sum();
        let requests = |relays: &[RelayCore]| relays.iter().map(|relay| relay.status().requests).sum();
        let [master, above, below] = &mut self.counts;
        (master.hosts, master.sessions, master.requests) =
            (1, self.master.session_count(), self.master.stats().requests);
        (above.hosts, above.sessions, above.requests) =
            (self.upper, sessions(upper_relays), requests(upper_relays));
        (below.hosts, below.sessions, below.requests) =
            (lower, sessions(lower_relays), requests(lower_relays));
        if below.sessions != self.clients.len() {
            self.broken.push(format!("{} of {} sessions stand", below.sessions, self.clients.len()));
        }
        let copies = self.clients.len() as u64;
        if below.told != copies {
            self.broken.push(format!("{} clients of {copies} were told of the write", below.told));
        }
        Found {
            seconds: HOLD.as_secs(),
            layers: self.counts,
            records: self.state.clients().count(),
            broken: self.broken,
        }
    }

    fn begin(&mut self, client: usize) {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(client as u64 + 1).to_be_bytes());
        let relay = self.upper + client % (self.relays.len() - self.upper);
        let config = ClientConfig::application(SessionKey::new(key), "anyone", vec![relay.to_string()]);
        let mut core = ClientCore::new(self.now, config);
        let name = Name::parse(FILE).expect("a name");
        let mut open = Open::existing(name, if client == 0 { Use::WriteAndLock } else { Use::Read });
        if client == 0 {
            let (contents, acls) = (Bytes::from_static(b"old"), None);
            open.create =
                Some(Create { must: false, kind: NodeKind::File, contents, ephemeral: false, acls });
        }
        core.submit(Ask { caches: true, ..Op::Open(open).into() });
        self.clients[client] = Some(core);
        self.drain_client(client);
        self.settle();
    }

    fn write(&mut self) {
        let handle = self.handles[0].clone().expect("the first has opened it");
        let op = Op::SetContents { handle, contents: Bytes::from_static(b"new"), if_generation: None };
        self.clients[0].as_mut().expect("it has begun").submit(op.into());
        self.drain_client(0);
        self.settle();
    }

    fn run_until(&mut self, until: Time) {
        while let Some(Reverse((at, node))) = self.timers.peek().copied() {
            if at > until {
                break;
            }
            self.timers.pop();
            if self.armed.get(&node) != Some(&at) {
                continue;
            }
            self.armed.remove(&node);
            self.now = self.now.max(at);
            match node {
                Node::Master => {
                    self.master_hears(master::Input::QuorumAcknowledged(self.now));
                    self.master.handle_timeout(self.now);
                    self.drain_master();
                }
                Node::Relay(index) => {
                    self.relays[index].handle_timeout(self.now);
                    self.drain_relay(index);
                }
                Node::Client(index) => {
                    self.clients[index].as_mut().expect("it has begun").handle_timeout(self.now);
                    self.drain_client(index);
                }
            }
            self.settle();
        }
        self.now = self.now.max(until);
    }

    fn arm(&mut self, node: Node, at: Option<Time>) {
        let Some(at) = at else { return };
        let at = at.max(self.now);
        if self.armed.get(&node).is_none_or(|armed| at < *armed) {
            self.armed.insert(node, at);
            self.timers.push(Reverse((at, node)));
        }
    }

    fn settle(&mut self) {
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Connect(holder, handle, host) => self.connect(holder, handle, host),
                Item::Up(connection, up) => self.up(connection, up),
                Item::Down(connection, down) => self.down(connection, down),
                Item::Close(connection) => self.close(connection),
            }
        }
    }

    fn connect(&mut self, holder: Node, handle: Handle, host: Node) {
        let connection = self.connections.len();
        self.connections.push(Some(Connection { holder, handle: handle.clone(), host }));
        self.by_holder.insert((holder, handle.clone()), connection);
        let id = ConnectionId(connection as u64);
        match host {
            Node::Master => self.master_hears(master::Input::Connected(id)),
            Node::Relay(index) => self.relay_hears(index, relay::Input::Connected(id)),
            Node::Client(_) => unreachable!("nobody connects to a client"),
        }
        match (holder, handle) {
            (Node::Relay(index), Handle::Link(link)) => {
                self.relay_hears(index, relay::Input::LinkConnected(link))
            }
            (Node::Client(index), Handle::Attempt(attempt)) => {
                self.clients[index].as_mut().expect("it has begun").connected(self.now, attempt);
                self.drain_client(index);
            }
            _ => unreachable!("relays have links, clients attempts"),
        }
    }

    fn up(&mut self, connection: usize, up: Up) {
        let Some(Connection { host, .. }) = &self.connections[connection] else { return };
        let (host, id) = (*host, ConnectionId(connection as u64));
        let is_keep_alive = matches!(up, Up::KeepAlive(_));
        self.counts[self.layer(host)].keep_alives += u64::from(is_keep_alive);
        match host {
            Node::Master => self.master_hears(master::Input::Received(id, vec![up])),
            Node::Relay(index) => self.relay_hears(index, relay::Input::Received(id, up)),
            Node::Client(_) => unreachable!("nobody connects to a client"),
        }
    }

    fn down(&mut self, connection: usize, down: Down) {
        let Some(Connection { holder, handle, host }) = &self.connections[connection] else { return };
        let (holder, handle, host) = (*holder, handle.clone(), *host);
        let is_told = matches!(&down, Down::News { item: News::Invalidate { .. }, .. });
        self.counts[self.layer(host)].told += u64::from(is_told);
        match (holder, handle) {
            (Node::Relay(index), Handle::Link(link)) => {
                self.relay_hears(index, relay::Input::LinkReceived(link, down));
            }
            (Node::Client(index), Handle::Attempt(attempt)) => {
                self.clients[index].as_mut().expect("it has begun").received(self.now, attempt, down);
                self.drain_client(index);
            }
            _ => unreachable!("relays have links, clients attempts"),
        }
    }

    /// The host has had enough of it.
    fn close(&mut self, connection: usize) {
        let Some(Connection { holder, handle, .. }) = self.connections[connection].take() else { return };
        self.by_holder.remove(&(holder, handle.clone()));
        match (holder, handle) {
            (Node::Relay(index), Handle::Link(link)) => {
                self.relay_hears(index, relay::Input::LinkDisconnected(link));
            }
            (Node::Client(index), Handle::Attempt(attempt)) => {
                self.clients[index].as_mut().expect("it has begun").disconnected(self.now, attempt);
                self.drain_client(index);
            }
            _ => unreachable!("relays have links, clients attempts"),
        }
    }

    /// The holder has had enough of it.
    fn leave(&mut self, holder: Node, handle: Handle) {
        let Some(connection) = self.by_holder.remove(&(holder, handle)) else { return };
        let Some(Connection { host, .. }) = self.connections[connection].take() else { return };
        let id = ConnectionId(connection as u64);
        match host {
            Node::Master => self.master_hears(master::Input::Disconnected(id)),
            Node::Relay(index) => self.relay_hears(index, relay::Input::Disconnected(id)),
            Node::Client(_) => unreachable!("nobody connects to a client"),
        }
    }

    /// Of the three, from the top.
    const fn layer(&self, host: Node) -> usize {
        match host {
            Node::Relay(index) if index < self.upper => 1,
            Node::Relay(_) => 2,
            Node::Master | Node::Client(_) => 0,
        }
    }

    fn master_hears(&mut self, input: master::Input) {
        self.master.handle(self.now, input);
        self.drain_master();
    }

    fn drain_master(&mut self) {
        while let Some(output) = self.master.poll_output() {
            match output {
                master::Output::Send(id, down) => self.items.push_back(Item::Down(id.0 as usize, down)),
                master::Output::Close(id) => self.items.push_back(Item::Close(id.0 as usize)),
                master::Output::Traced(..) => {}
                master::Output::Propose(batch, entry) => {
                    let outcomes = self.state.apply(&entry);
                    self.master.handle(self.now, master::Input::Applied(batch, outcomes, self.state.clone()));
                }
            }
        }
        let due = self.master.poll_timeout().map_or(self.now + BEAT, |(at, _)| at.min(self.now + BEAT));
        self.arm(Node::Master, Some(due));
    }

    fn relay_hears(&mut self, index: usize, input: relay::Input) {
        self.relays[index].handle(self.now, input);
        self.drain_relay(index);
    }

    fn drain_relay(&mut self, index: usize) {
        let node = Node::Relay(index);
        while let Some(output) = self.relays[index].poll_output() {
            match output {
                relay::Output::Send(id, down) => self.items.push_back(Item::Down(id.0 as usize, down)),
                relay::Output::Close(id) => self.items.push_back(Item::Close(id.0 as usize)),
                relay::Output::Connect(link, address) => {
                    self.items.push_back(Item::Connect(node, Handle::Link(link), host_of(&address)));
                }
                relay::Output::Disconnect(link) => self.leave(node, Handle::Link(link)),
                relay::Output::SendUp(link, up) => {
                    if let Some(connection) = self.by_holder.get(&(node, Handle::Link(link))) {
                        self.items.push_back(Item::Up(*connection, up));
                    }
                }
                relay::Output::Noticed(_, Event::Jeopardy | Event::Expired(_)) => {
                    self.broken.push(format!("{:?} relay {index} lost its lease", self.now));
                }
                relay::Output::Noticed(..)
                | relay::Output::FannedOut(_)
                | relay::Output::Show(_)
                | relay::Output::Ready
                | relay::Output::Stopped => {}
            }
        }
        let due = self.relays[index].poll_timeout().map(|(at, _)| at);
        self.arm(node, due);
    }

    fn drain_client(&mut self, index: usize) {
        let node = Node::Client(index);
        loop {
            let client = self.clients[index].as_mut().expect("it has begun");
            let Some(output) = client.poll_output() else { break };
            match output {
                client::Output::Connect(attempt, address) => {
                    self.items.push_back(Item::Connect(node, Handle::Attempt(attempt), host_of(&address)));
                }
                client::Output::Disconnect(attempt) => self.leave(node, Handle::Attempt(attempt)),
                client::Output::Send(attempt, up) => {
                    if let Some(connection) = self.by_holder.get(&(node, Handle::Attempt(attempt))) {
                        self.items.push_back(Item::Up(*connection, up));
                    }
                }
                client::Output::Answered(answer) => match answer.result {
                    Ok(Reply::Opened { handle, .. }) => {
                        self.handles[index] = Some(handle.clone());
                        client.submit(Ask { caches: true, ..Op::GetContentsAndStat(handle).into() });
                    }
                    Ok(Reply::Written { .. }) => self.is_written = true,
                    Ok(_) => {}
                    Err(error) => self.broken.push(format!("{:?} client {index}: {error}", self.now)),
                },
                client::Output::Event(Event::News(id, _)) => client.acknowledge(id),
                client::Output::Event(event @ (Event::Jeopardy | Event::Expired(_))) => {
                    self.broken.push(format!("{:?} client {index}: {event:?}", self.now));
                }
                client::Output::Event(_) => {}
            }
        }
        let due = self.clients[index].as_ref().and_then(|client| client.poll_timeout()).map(|(at, _)| at);
        self.arm(node, due);
    }
}

fn host_of(address: &str) -> Node {
    address.parse().map_or(Node::Master, Node::Relay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_master_does_is_the_same_for_ten_times_as_many() {
        let (few, many) = (run(300), run(3_000));

        assert_eq!((few.broken, many.broken), (Vec::new(), Vec::new()));
        assert_eq!(few.layers[0], many.layers[0]);
        assert_eq!(few.records, many.records);
        assert_eq!((many.layers[2].told, many.layers[1].told, many.layers[0].told), (3_000, 1, 1));
    }
}
