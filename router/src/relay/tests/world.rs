//! A world for tests: real holders below, relays, cells that only keep sessions and answer, and a
//! network between them, all in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::client::cache::{Cache, FillTicket};
use hasp_proto::client::{Ask, Event};
use hasp_proto::id::{CellName, SessionId};
use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core as _;
use hasp_proto::name::Name;
use hasp_proto::node::Stat;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op, Request};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, News, Role, Up};
use hasp_proto::time::Time;

use super::cell::Cell;
use crate::relay::{Input, Output, RelayCore, RelayCoreConfig};
use crate::upstream::{self, Begin, Hosts, LinkId, Ticket, UpstreamConfig, UpstreamCore};

const LATENCY: Duration = Duration::from_millis(5);

/// Short for literal times.
pub(super) const fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}

pub(super) fn map() -> PartitionMap {
    let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![cell.to_owned()])).into();
    PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], cells).expect("a good map")
}

/// One application, with a cache of its own.
pub(super) struct Client {
    pub(super) core: UpstreamCore,
    pub(super) answers: Vec<(Ticket, Answer)>,
    pub(super) events: Vec<Event>,
    pub(super) cache: Cache,
    /// It asks for leave to cache.
    pub(super) caches: bool,
    /// It leaves news unread and unacknowledged, and goes on using what it has.
    pub(super) is_deaf: bool,
    /// News that it has not read.
    unread: Vec<(Option<CellName>, Event)>,
    pub(super) principal: String,
    fills: BTreeMap<Ticket, FillTicket>,
}

impl Client {
    pub(super) fn session(&self) -> SessionId {
        self.core.sessions().next().expect("has begun").session
    }

    pub(super) fn answer(&self, ticket: Ticket) -> Option<&Answer> {
        self.answers.iter().find(|(answered, _)| *answered == ticket).map(|(_, answer)| answer)
    }

    /// What it has of a file under its cache lease, as the library would answer it.
    pub(super) fn cached(&mut self, now: Time, name: &str) -> Option<(Bytes, Stat)> {
        let is_valid = self.core.lease_ends().all(|(_, ends)| ends.cache > now);
        let name = Name::parse(name).expect("good");
        let hit = self.cache.contents(&name, None, &self.principal).filter(|_| is_valid)?;
        Some(hit.value)
    }

    /// What the library does with what it is told.
    fn hear(&mut self, now: Time, cell: Option<&CellName>, event: &Event) {
        match event {
            Event::Welcomed { resumed: false, .. }
            | Event::CacheLapsed
            | Event::Jeopardy
            | Event::Expired(_) => {
                self.cache.flush_all();
            }
            Event::News(_, News::Invalidate { items, floor }) => self.cache.invalidate(items, floor),
            Event::News(_, News::FailOver { cell, epoch }) => self.cache.flush_cell(cell, Some(*epoch)),
            Event::News(_, News::CellLost { cell }) | Event::CellLost(cell) => {
                self.cache.flush_cell(cell, None)
            }
            _ => {}
        }
        if let Event::News(id, _) = event {
            self.core.acknowledge(now, cell, *id);
        }
    }

    pub(super) fn saw(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Holder {
    Client(usize),
    Relay(String),
}

#[derive(Clone, Debug)]
enum Wire {
    Opened(ConnectionId),
    Up(ConnectionId, Up),
    Down(ConnectionId, Down),
    Closed(ConnectionId),
}

/// The world.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) clients: Vec<Client>,
    pub(super) relays: BTreeMap<String, RelayCore>,
    pub(super) cells: BTreeMap<String, Cell>,
    /// Checked at every step.
    pub(super) check: fn(&World),
    /// Nothing reaches or leaves them.
    silent: BTreeSet<String>,
    /// Relays and cells between which nothing passes.
    cuts: BTreeSet<(String, String)>,
    /// Applications and hosts between which nothing passes.
    client_cuts: BTreeSet<(usize, String)>,
    /// Applications that do nothing any more, nor does anything reach them.
    frozen: BTreeSet<usize>,
    down: BTreeSet<String>,
    links: BTreeMap<ConnectionId, (Holder, LinkId, String)>,
    wire: VecDeque<(Time, Wire)>,
    connections: u64,
    /// Messages take different times, drawn from here, if it is given.
    pub(super) chance: Option<u64>,
    /// What would have been delivered but for a cut: it is, in its order, when that is over.
    stuck: Vec<Wire>,
    /// When the last message of each connection comes, up and down.
    last_at: BTreeMap<(ConnectionId, bool), Time>,
    /// How long what cells took back took to be dropped, as the relays say.
    pub(super) fanned_out: Vec<Duration>,
}

impl World {
    /// Cells `a` and `b`, these relays, and no client.
    pub(super) fn new(relays: &[&str]) -> Self {
        Self::with_cache(relays, Some(1 << 20))
    }

    /// The same, with caches of that size in the relays, or none.
    pub(super) fn with_cache(relays: &[&str], cache_bytes: Option<usize>) -> Self {
        let relays: Vec<_> = relays.iter().map(|relay| (*relay, Hosts::Cells(map()))).collect();
        Self::of(&relays, cache_bytes)
    }

    /// Relays behind relays: the first of these hold sessions with the cells, the others with those.
    pub(super) fn layered(upper: &[&str], lower: &[&str]) -> Self {
        let above = Hosts::one(upper.iter().map(|relay| (*relay).to_owned()).collect::<Vec<_>>());
        let upper = upper.iter().map(|relay| (*relay, Hosts::Cells(map())));
        let relays: Vec<_> = upper.chain(lower.iter().map(|relay| (*relay, above.clone()))).collect();
        Self::of(&relays, Some(1 << 20))
    }

    /// Three layers, with one relay at the bottom and one in the middle.
    pub(super) fn three_layers() -> Self {
        let behind =
            |relays: &[&str]| Hosts::one(relays.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        let upper = ["u", "v"].map(|relay| (relay, Hosts::Cells(map())));
        let relays = [&upper[..], &[("m", behind(&["u", "v"])), ("p", behind(&["m"]))]].concat();
        Self::of(&relays, Some(1 << 20))
    }

    fn of(relays: &[(&str, Hosts)], cache_bytes: Option<usize>) -> Self {
        let relay = |(index, (name, hosts)): (usize, &(&str, Hosts))| {
            let upstream = UpstreamConfig::tier(hosts.clone(), Role::Proxy, name, [100 + index as u8; 32]);
            let config = RelayCoreConfig { upstream, map: map(), terms: LeaseTerms::default(), cache_bytes };
            ((*name).to_owned(), RelayCore::new(Time::ZERO, config))
        };
        let mut world = Self {
            now: Time::ZERO,
            clients: Vec::new(),
            relays: relays.iter().enumerate().map(relay).collect(),
            cells: ["a", "b"].map(|cell| (cell.to_owned(), Cell::new(cell))).into(),
            check: |_| {},
            silent: BTreeSet::new(),
            frozen: BTreeSet::new(),
            cuts: BTreeSet::new(),
            client_cuts: BTreeSet::new(),
            down: BTreeSet::new(),
            links: BTreeMap::new(),
            wire: VecDeque::new(),
            connections: 0,
            chance: None,
            stuck: Vec::new(),
            last_at: BTreeMap::new(),
            fanned_out: Vec::new(),
        };
        world.run_until(t(100));
        world
    }

    /// An application that begins its session at once, at one of these relays.
    pub(super) fn add_client(&mut self, relays: &[&str]) -> usize {
        self.add_holder(Role::Client, "alice", relays)
    }

    /// A proxy that holds its session at one of these relays, in the place of an application.
    pub(super) fn add_proxy(&mut self, relays: &[&str]) -> usize {
        self.add_holder(Role::Proxy, "tier", relays)
    }

    /// An application of somebody.
    pub(super) fn add_client_of(&mut self, principal: &str, relays: &[&str]) -> usize {
        self.add_holder(Role::Client, principal, relays)
    }

    fn add_holder(&mut self, role: Role, principal: &str, relays: &[&str]) -> usize {
        let index = self.clients.len();
        let addresses: Vec<_> = relays.iter().map(|relay| (*relay).to_owned()).collect();
        let config = UpstreamConfig {
            begin: Begin::AtOnce,
            role,
            ..UpstreamConfig::application(Hosts::one(addresses), principal, [index as u8; 32])
        };
        let core = UpstreamCore::new(self.now, config);
        self.clients.push(Client {
            core,
            answers: Vec::new(),
            events: Vec::new(),
            cache: Cache::new(1 << 20),
            caches: true,
            is_deaf: false,
            unread: Vec::new(),
            principal: principal.to_owned(),
            fills: BTreeMap::new(),
        });
        self.run_for(100);
        index
    }

    pub(super) fn submit(&mut self, client: usize, op: Op) -> Ticket {
        let now = self.now;
        let client = &mut self.clients[client];
        let read = match &op {
            Op::Open(open) => Some((open.name.clone(), None)),
            Op::GetContentsAndStat(handle) | Op::GetStat(handle) | Op::ReadDir(handle) => {
                handle.claimed_body().map(|body| (body.name, Some(body.instance)))
            }
            _ => None,
        };
        let fill = read.filter(|_| client.caches).map(|(name, instance)| client.cache.ticket(name, instance));
        let ticket = client.core.submit(now, Ask { caches: fill.is_some(), ..op.into() });
        client.fills.extend(fill.map(|fill| (ticket, fill)));
        ticket
    }

    /// Asks and waits a little; the answer, if it has come.
    pub(super) fn ask(&mut self, client: usize, op: Op) -> Option<Answer> {
        let ticket = self.submit(client, op);
        self.run_for(100);
        self.clients[client].answer(ticket).cloned()
    }

    pub(super) fn cell(&mut self, name: &str) -> &mut Cell {
        self.cells.get_mut(name).expect("a cell of this world")
    }

    /// Requests that a cell was asked on behalf of that client, as (sender, request).
    pub(super) fn asked(&self, cell: &str, client: usize) -> Vec<(SessionId, Request)> {
        let session = self.clients[client].session();
        let for_client = |(_, request): &&(SessionId, Request)| {
            request.on_behalf.as_ref().is_some_and(|on_behalf| on_behalf.session == session)
        };
        self.cells[cell].seen.iter().filter(for_client).cloned().collect()
    }

    /// Nobody hears or reaches the relay or cell any more, nor is told; it still reaches others.
    pub(super) fn silence(&mut self, host: &str) {
        self.silent.insert(host.to_owned());
    }

    pub(super) fn unsilence(&mut self, host: &str) {
        self.silent.remove(host);
        self.unstick();
    }

    fn unstick(&mut self) {
        for item in std::mem::take(&mut self.stuck) {
            self.deliver(item);
            self.settle();
        }
    }

    /// Nothing passes between this relay and this cell.
    pub(super) fn cut(&mut self, relay: &str, cell: &str) {
        self.cuts.insert((relay.to_owned(), cell.to_owned()));
    }

    /// This client's connections to that host break, and it reaches it no more.
    pub(super) fn cut_client(&mut self, client: usize, host: &str) {
        self.client_cuts.insert((client, host.to_owned()));
        self.break_links(client);
    }

    pub(super) fn mend(&mut self) {
        self.client_cuts.clear();
        self.cuts.clear();
        self.unstick();
    }

    /// A deaf application reads what it was told meanwhile.
    pub(super) fn undeafen(&mut self, client: usize) {
        let now = self.now;
        let client = &mut self.clients[client];
        client.is_deaf = false;
        for (cell, event) in std::mem::take(&mut client.unread) {
            client.hear(now, cell.as_ref(), &event);
        }
    }

    /// An application stands still: its connection stays, and nothing comes through it.
    pub(super) fn freeze(&mut self, client: usize) {
        self.frozen.insert(client);
    }

    /// It goes on, and hears what was sent to it meanwhile.
    pub(super) fn thaw(&mut self, client: usize) {
        self.frozen.remove(&client);
        self.unstick();
    }

    /// Kills a relay: its connections break and nobody can connect.
    pub(super) fn kill(&mut self, relay: &str) {
        self.down.insert(relay.to_owned());
        let broken: Vec<_> = self.links.keys().copied().collect();
        for connection in broken {
            let (holder, _, host) = self.links[&connection].clone();
            if host == relay || holder == Holder::Relay(relay.to_owned()) {
                self.break_link(connection);
            }
        }
        self.settle();
    }

    /// Breaks a client's connections; both ends learn of it.
    pub(super) fn break_links(&mut self, client: usize) {
        let broken: Vec<_> = self
            .links
            .iter()
            .filter(|(_, (holder, ..))| *holder == Holder::Client(client))
            .map(|(connection, _)| *connection)
            .collect();
        broken.into_iter().for_each(|connection| self.break_link(connection));
        self.settle();
    }

    pub(super) fn run_for(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        self.run_until(until);
    }

    /// Lets everything happen until `until`.
    pub(super) fn run_until(&mut self, until: Time) {
        for _ in 0..1_000_000 {
            self.settle();
            let Some(next) = self.next_event().filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
        panic!("the world does not come to rest");
    }

    fn next_event(&self) -> Option<Time> {
        let wire = self.wire.front().map(|(at, _)| *at);
        let awake = self.clients.iter().enumerate().filter(|(index, _)| !self.frozen.contains(index));
        let clients = awake.filter_map(|(_, client)| client.core.poll_timeout());
        let relays = self.relays.iter().filter(|(name, _)| !self.down.contains(*name));
        let relays = relays.filter_map(|(_, relay)| relay.poll_timeout());
        let cells = self.cells.values().filter_map(Cell::poll_timeout);
        clients.chain(relays).map(|(at, _)| at).chain(cells).chain(wire).min()
    }

    fn step(&mut self) {
        while self.wire.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, item) = self.wire.pop_front().expect("just seen");
            self.deliver(item);
            self.settle();
        }
        let now = self.now;
        let frozen = &self.frozen;
        self.clients
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| !frozen.contains(index))
            .for_each(|(_, client)| client.core.handle_timeout(now));
        let down = &self.down;
        self.relays
            .iter_mut()
            .filter(|(name, _)| !down.contains(*name))
            .for_each(|(_, relay)| relay.handle_timeout(now));
        self.cells.values_mut().for_each(|cell| cell.handle_timeout(now));
        self.settle();
    }

    fn is_cut(&self, connection: ConnectionId) -> bool {
        let Some((holder, _, host)) = self.links.get(&connection) else { return true };
        let is_frozen = matches!(holder, Holder::Client(index) if self.frozen.contains(index));
        let is_between =
            |(relay, cell): &(String, String)| *holder == Holder::Relay(relay.clone()) && host == cell;
        let is_cut_off =
            matches!(holder, Holder::Client(index) if self.client_cuts.contains(&(*index, host.clone())));
        self.silent.contains(host) || is_cut_off || is_frozen || self.cuts.iter().any(is_between)
    }

    fn deliver(&mut self, item: Wire) {
        let now = self.now;
        match item {
            Wire::Opened(connection) | Wire::Up(connection, _) | Wire::Down(connection, _)
                if !self.links.contains_key(&connection) => {}
            Wire::Opened(connection) | Wire::Up(connection, _) | Wire::Down(connection, _)
                if self.is_cut(connection) =>
            {
                self.stuck.push(item);
            }
            Wire::Opened(connection) => {
                let (holder, link, host) = self.links[&connection].clone();
                if self.down.contains(&host) {
                    return self.break_link(connection);
                }
                match self.relays.get_mut(&host) {
                    Some(relay) => relay.handle(now, Input::Connected(connection)),
                    None => self.cell(&host).core.connected(connection),
                }
                match holder {
                    Holder::Client(index) => self.clients[index].core.connected(now, &link),
                    Holder::Relay(name) => self.relay(&name).handle(now, Input::LinkConnected(link)),
                }
            }
            Wire::Up(connection, up) => {
                let (_, _, host) = self.links[&connection].clone();
                match self.relays.get_mut(&host) {
                    Some(relay) => relay.handle(now, Input::Received(connection, up)),
                    None => self.cell(&host).core.received(now, connection, up),
                }
            }
            Wire::Down(connection, down) => {
                let (holder, link, _) = self.links[&connection].clone();
                match holder {
                    Holder::Client(index) => self.clients[index].core.received(now, &link, down),
                    Holder::Relay(name) => self.relay(&name).handle(now, Input::LinkReceived(link, down)),
                }
            }
            Wire::Closed(connection) => self.break_link(connection),
        }
    }

    fn relay(&mut self, name: &str) -> &mut RelayCore {
        self.relays.get_mut(name).expect("a relay of this world")
    }

    fn break_link(&mut self, connection: ConnectionId) {
        let Some((holder, link, host)) = self.links.remove(&connection) else { return };
        let now = self.now;
        self.leave(&host, connection);
        match holder {
            Holder::Client(index) => self.clients[index].core.disconnected(now, &link),
            Holder::Relay(name) => self.relay(&name).handle(now, Input::LinkDisconnected(link)),
        }
    }

    fn leave(&mut self, host: &str, connection: ConnectionId) {
        let now = self.now;
        match self.relays.get_mut(host) {
            Some(relay) => relay.handle(now, Input::Disconnected(connection)),
            None => self.cell(host).core.disconnected(connection),
        }
    }

    /// Carries out what the machines want, until they want nothing more.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for index in 0..self.clients.len() {
                while let Some(output) = self.clients[index].core.poll_output() {
                    quiet = false;
                    self.carry_out_client(index, output);
                }
            }
            for name in self.relays.keys().cloned().collect::<Vec<_>>() {
                while let Some(output) = self.relay(&name).poll_output() {
                    quiet = false;
                    self.carry_out_relay(&name, output);
                }
            }
            for name in self.cells.keys().cloned().collect::<Vec<_>>() {
                let now = self.now;
                while let Some(sent) = self.cell(&name).next_sent(now) {
                    quiet = false;
                    match sent {
                        Ok((connection, down)) => self.send(Wire::Down(connection, down)),
                        Err(closed) => self.send(Wire::Closed(closed)),
                    }
                }
            }
            if quiet {
                break;
            }
        }
        self.clients.iter().for_each(|client| client.core.check_invariants());
        self.relays.values().for_each(RelayCore::check_invariants);
        (self.check)(self);
    }

    fn carry_out_client(&mut self, index: usize, output: upstream::Output) {
        match output {
            upstream::Output::Connect(link, address) => self.connect(Holder::Client(index), link, address),
            upstream::Output::Disconnect(link) => self.disconnect(&Holder::Client(index), &link),
            upstream::Output::Send(link, up) => self.send_up(&Holder::Client(index), &link, up),
            upstream::Output::Answered(ticket, answer) => {
                let client = &mut self.clients[index];
                if let Some(fill) = client.fills.remove(&ticket).filter(|_| !client.is_deaf) {
                    client.cache.fill(fill, &client.principal, &answer);
                }
                client.answers.push((ticket, answer));
            }
            upstream::Output::Routes(_) => {}
            upstream::Output::Event(cell, event) => {
                let client = &mut self.clients[index];
                client.events.push(event.clone());
                if client.is_deaf && matches!(event, Event::News(..)) {
                    client.unread.push((cell, event));
                } else {
                    client.hear(self.now, cell.as_ref(), &event);
                }
            }
        }
    }

    fn carry_out_relay(&mut self, name: &str, output: Output) {
        let holder = Holder::Relay(name.to_owned());
        if self.down.contains(name) {
            return;
        }
        match output {
            Output::Send(connection, down) => self.send(Wire::Down(connection, down)),
            Output::Close(connection) => self.send(Wire::Closed(connection)),
            Output::Connect(link, address) => self.connect(holder, link, address),
            Output::Disconnect(link) => self.disconnect(&holder, &link),
            Output::SendUp(link, up) => self.send_up(&holder, &link, up),
            Output::FannedOut(took) => self.fanned_out.push(took),
            Output::Noticed(..) | Output::Show(_) | Output::Ready | Output::Stopped => {}
        }
    }

    fn connect(&mut self, holder: Holder, link: LinkId, address: String) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.links.insert(connection, (holder, link, address));
        self.send(Wire::Opened(connection));
    }

    fn find(&self, holder: &Holder, link: &LinkId) -> Option<ConnectionId> {
        let is_it =
            |(_, (of, id, _)): &(&ConnectionId, &(Holder, LinkId, String))| of == holder && id == link;
        self.links.iter().find(is_it).map(|(connection, _)| *connection)
    }

    fn disconnect(&mut self, holder: &Holder, link: &LinkId) {
        if let Some(connection) = self.find(holder, link) {
            let (_, _, host) = self.links.remove(&connection).expect("just found");
            self.leave(&host, connection);
        }
    }

    fn send_up(&mut self, holder: &Holder, link: &LinkId, up: Up) {
        if let Some(connection) = self.find(holder, link) {
            self.send(Wire::Up(connection, up));
        }
    }

    fn send(&mut self, item: Wire) {
        let direction = match &item {
            Wire::Up(connection, _) | Wire::Opened(connection) => (*connection, true),
            Wire::Down(connection, _) | Wire::Closed(connection) => (*connection, false),
        };
        let mut at = self.now + LATENCY;
        if let Some(chance) = &mut self.chance {
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            at = self.now + Duration::from_micros(500 + (*chance >> 33) % 30_000);
        }
        let last_at = self.last_at.entry(direction).or_default();
        at = at.max(*last_at);
        *last_at = at;
        let place = self.wire.partition_point(|(other, _)| *other <= at);
        self.wire.insert(place, (at, item));
    }
}
