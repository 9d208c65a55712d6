//! Moves what machines send along connections, and tells them what becomes of those. What arrives together is handed
//! over together, as by the streams of production.

use hasp_cell::master;
use hasp_client::machine;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_router::relay;
use hasp_router::upstream::LinkId;

use super::clock::Moment;
use super::happening::{Happening, Item};
use super::network::Way;
use super::node::NodeId;
use super::plan::HEALED;
use super::world::World;

impl World {
    /// A machine wants a connection.
    pub fn connect(&mut self, holder: NodeId, link: LinkId, address: &str) {
        let host = self.lives.keys().copied().find(|node| node.address() == address);
        let host = host.expect("every address is a node's");
        self.story.tell(self.now, holder, format_args!("connects to {host}"));
        let connection = self.network.open(holder, link, host);
        self.put(connection, Way::Up, Item::Open);
    }

    /// A machine gives a connection up.
    pub fn disconnect(&mut self, holder: NodeId, link: &LinkId) {
        let Some(connection) = self.network.of_link(holder, link) else { return };
        let at = self.network.arrival(self.now, connection, Way::Up).unwrap_or(self.now);
        let Some(broken) = self.network.break_up(connection) else { return };
        if broken.is_accepted {
            let life = self.lives[&broken.host].number;
            self.schedule.add(at, Happening::ConnectionLost(broken.host, life, connection));
        }
    }

    /// Something goes up.
    pub fn send_up(&mut self, holder: NodeId, link: &LinkId, up: Up) {
        let Some(connection) = self.network.of_link(holder, link) else { return };
        if self.story.is_told() {
            let told = brief(&format!("{up:?}"));
            self.story.remark(self.now, holder, format_args!("-> {told}"));
        }
        if let Up::Hello(hello) = &up {
            self.claims.insert(hello.key.id(), hello.claim);
        }
        self.noted_up(connection, holder, &up);
        if self.is_late(holder, &up)
            && let Some(host) = self.network.get(connection).map(|it| it.host)
        {
            self.network.cut(holder, host, (self.now + self.plan.late_seals).min(HEALED));
        }
        self.put(connection, Way::Up, Item::Up(up));
    }

    /// Whether it is a request that goes by a seal and that is held up in this world.
    fn is_late(&self, holder: NodeId, up: &Up) -> bool {
        let Up::Request(request) = up else { return false };
        let evidence = request.on_behalf.as_ref().and_then(|client| client.evidence.as_ref());
        let is_by_seal = evidence.is_some_and(|evidence| evidence.seal.is_some());
        is_by_seal && holder == NodeId::Proxy(0) && !self.plan.late_seals.is_zero() && !self.is_healed()
    }

    /// Something goes down.
    pub fn send_down(&mut self, connection: ConnectionId, down: Down) {
        if self.story.is_told()
            && let Some((host, holder)) = self.network.get(connection).map(|it| (it.host, it.holder))
        {
            let told = brief(&format!("{down:?}"));
            self.story.remark(self.now, host, format_args!("-> {holder}: {told}"));
        }
        if self.is_held(connection, &down) || self.is_kept_from(connection, &down) {
            return;
        }
        self.put(connection, Way::Down, Item::Down(down));
    }

    /// A host has said all.
    pub fn close(&mut self, connection: ConnectionId) {
        self.put(connection, Way::Down, Item::Closed);
    }

    /// Something goes up, whoever sends it.
    pub fn put_up(&mut self, connection: ConnectionId, up: Up) {
        self.put(connection, Way::Up, Item::Up(up));
    }

    /// Something comes down at that moment, whatever was sent before it.
    pub fn put_at(&mut self, at: Moment, connection: ConnectionId, way: Way, down: Down) {
        if self.network.send_until(at, connection, way, Item::Down(down)).is_some() {
            self.schedule.add(at, Happening::Arrive(connection, way));
        }
    }

    fn put(&mut self, connection: ConnectionId, way: Way, item: Item) {
        if let Some(at) = self.network.send(self.now, connection, way, item) {
            self.schedule.add(at, Happening::Arrive(connection, way));
        }
    }

    /// Something comes out of a connection: all that is there by now.
    pub fn arrive(&mut self, connection: ConnectionId, way: Way) {
        let Some(ends) = self.network.get(connection) else { return };
        let (holder, host, link) = (ends.holder, ends.host, ends.link.clone());
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        let mut is_closed = false;
        for item in self.network.take(self.now, connection, way) {
            match item {
                Item::Open => {
                    self.network.accepted(connection);
                    self.host_hears(host, connection, None);
                    self.put(connection, Way::Down, Item::Opened);
                }
                Item::Opened => self.holder_hears(holder, link.clone(), None),
                Item::Up(up) => ups.extend(self.misheard(connection, up)),
                Item::Down(down) => downs.push(self.misread(connection, holder, down)),
                Item::Closed => is_closed = true,
            }
        }
        if !ups.is_empty() {
            self.host_hears(host, connection, Some(ups));
        }
        if !downs.is_empty() {
            self.holder_hears(holder, link, Some(downs));
        }
        if is_closed {
            self.reset(connection);
        }
    }

    fn host_hears(&mut self, host: NodeId, connection: ConnectionId, ups: Option<Vec<Up>>) {
        match host {
            NodeId::Replica(index) => {
                let input = match ups {
                    None => master::Input::Connected(connection),
                    Some(ups) => master::Input::Received(connection, ups),
                };
                let lease = self.quorum_acknowledged(index);
                self.master_inputs(index, lease.into_iter().chain([input]));
            }
            NodeId::Proxy(index) => match ups {
                None => self.proxy_inputs(index, [relay::Input::Connected(connection)]),
                Some(ups) => self.proxy_received(index, connection, ups),
            },
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }

    fn holder_hears(&mut self, holder: NodeId, link: LinkId, downs: Option<Vec<Down>>) {
        match (holder, downs) {
            (NodeId::Proxy(index), None) => self.proxy_inputs(index, [relay::Input::LinkConnected(link)]),
            (NodeId::Proxy(index), Some(downs)) => {
                let inputs = downs.into_iter().map(|down| relay::Input::LinkReceived(link.clone(), down));
                self.proxy_inputs(index, inputs);
            }
            (NodeId::Client(index), None) => self.client_inputs(index, [machine::Input::Connected(link)]),
            (NodeId::Client(index), Some(downs)) => {
                self.client_inputs(index, [machine::Input::Received(link, downs)]);
            }
            (NodeId::Replica(_), _) => panic!("replicas hold no sessions"),
        }
    }

    /// A holder finds its connection gone.
    pub fn link_lost(&mut self, holder: NodeId, link: LinkId) {
        match holder {
            NodeId::Proxy(index) => self.proxy_inputs(index, [relay::Input::LinkDisconnected(link)]),
            NodeId::Client(index) => self.client_inputs(index, [machine::Input::Disconnected(link)]),
            NodeId::Replica(_) => panic!("replicas hold no sessions"),
        }
    }

    /// A host finds a connection gone.
    pub fn connection_lost(&mut self, host: NodeId, connection: ConnectionId) {
        match host {
            NodeId::Replica(index) => self.master_inputs(index, [master::Input::Disconnected(connection)]),
            NodeId::Proxy(index) => self.proxy_lost(index, connection),
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }
}

/// The beginning of a very long line: the operation and its answer, not the contents.
fn brief(text: &str) -> String {
    text.chars().take(1_000).collect()
}
