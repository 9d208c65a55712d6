//! Moves what machines send along connections, and tells them what becomes of those. The mistakes that a world makes
//! on purpose with messages are made here.

use std::time::Duration;

use hasp_cell::master;
use hasp_client::machine;
use hasp_proto::id::RequestNumber;
use hasp_proto::request::Op;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Grant, News, Up};
use hasp_router::relay;
use hasp_router::upstream::LinkId;

use super::mutants::Mutant;
use super::network::Way;
use super::world::{Happening, Item, NodeId, World};

/// A number that is asked again gets this much more, by mistake.
const ANEW: u64 = 1 << 40;
/// How late a client hears of what was acknowledged for it.
const UNHEARD: Duration = Duration::from_secs(2);

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
        if let Up::KeepAlive(keep_alive) = &up {
            self.keep_alives.insert(connection, (keep_alive.number, self.local(holder)));
        }
        self.put(connection, Way::Up, Item::Up(up));
    }

    /// Something goes down.
    pub fn send_down(&mut self, connection: ConnectionId, down: Down) {
        if self.story.is_told()
            && let Some((host, holder)) = self.network.get(connection).map(|it| (it.host, it.holder))
        {
            let told = brief(&format!("{down:?}"));
            self.story.remark(self.now, host, format_args!("-> {holder}: {told}"));
        }
        if self.is_kept_from(connection, &down) {
            return;
        }
        self.put(connection, Way::Down, Item::Down(down));
    }

    /// A host has said all.
    pub fn close(&mut self, connection: ConnectionId) {
        self.put(connection, Way::Down, Item::Closed);
    }

    fn put(&mut self, connection: ConnectionId, way: Way, item: Item) {
        if let Some(at) = self.network.arrival(self.now, connection, way) {
            self.schedule.add(at, Happening::Arrive(connection, way, item));
        }
    }

    /// Something comes out of a connection.
    pub fn arrive(&mut self, connection: ConnectionId, way: Way, item: Item) {
        let Some(ends) = self.network.get(connection).cloned() else { return };
        match (way, item) {
            (Way::Up, Item::Open) => {
                self.network.accepted(connection);
                self.host_hears(ends.host, connection, None);
                self.put(connection, Way::Down, Item::Opened);
            }
            (Way::Up, Item::Up(up)) => {
                let up = self.asked_again(connection, up);
                self.host_hears(ends.host, connection, Some(up));
            }
            (Way::Down, Item::Opened) => self.holder_hears(ends.holder, ends.link, None),
            (Way::Down, Item::Down(down)) => {
                let down = self.misread(connection, ends.holder, down);
                self.holder_hears(ends.holder, ends.link, Some(down));
            }
            (Way::Down, Item::Closed) => self.reset(connection),
            (way, item) => panic!("{item:?} never goes {way:?}"),
        }
    }

    fn host_hears(&mut self, host: NodeId, connection: ConnectionId, up: Option<Up>) {
        match host {
            NodeId::Replica(index) => {
                let input = match up {
                    None => master::Input::Connected(connection),
                    Some(up) => master::Input::Received(connection, vec![up]),
                };
                let lease = self.quorum_acknowledged(index);
                self.master_inputs(index, lease.into_iter().chain([input]));
            }
            NodeId::Proxy(index) => {
                let input = match up {
                    None => relay::Input::Connected(connection),
                    Some(up) => relay::Input::Received(connection, up),
                };
                self.proxy_inputs(index, [input]);
            }
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }

    fn holder_hears(&mut self, holder: NodeId, link: LinkId, down: Option<Down>) {
        match (holder, down) {
            (NodeId::Proxy(index), None) => self.proxy_inputs(index, [relay::Input::LinkConnected(link)]),
            (NodeId::Proxy(index), Some(down)) => {
                self.proxy_inputs(index, [relay::Input::LinkReceived(link, down)]);
            }
            (NodeId::Client(index), None) => self.client_inputs(index, [machine::Input::Connected(link)]),
            (NodeId::Client(index), Some(down)) => {
                self.client_inputs(index, [machine::Input::Received(link, vec![down])]);
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
            NodeId::Proxy(index) => self.proxy_inputs(index, [relay::Input::Disconnected(connection)]),
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }

    // Mistakes on purpose.

    /// Whether news is acknowledged for its hearer, who hears of it late or never.
    fn is_kept_from(&mut self, connection: ConnectionId, down: &Down) -> bool {
        let Down::News { sequence, item } = down else { return false };
        let Some(mutant) = self.mutant else { return false };
        let is_client = self.network.get(connection).is_some_and(|it| matches!(it.holder, NodeId::Client(_)));
        let is_meant = match item {
            News::Invalidate { .. } => {
                matches!(mutant, Mutant::AcknowledgedUnheard | Mutant::InvalidationLost)
            }
            News::FailOver { .. } => mutant == Mutant::FailOverUnheard,
            News::CellLost { .. } | News::Event(_) | News::EventsLost { .. } => false,
        };
        if !is_client || !is_meant {
            return false;
        }
        self.put(connection, Way::Up, Item::Up(Up::Acknowledge(*sequence)));
        if mutant == Mutant::AcknowledgedUnheard {
            let late = Happening::Arrive(connection, Way::Down, Item::Down(down.clone()));
            self.schedule.add(self.now + UNHEARD, late);
        }
        true
    }

    /// A write that was asked before on another connection gets a new number.
    fn asked_again(&mut self, connection: ConnectionId, up: Up) -> Up {
        match up {
            Up::Hello(hello) => {
                self.speakers.insert(connection, hello.key.id());
                Up::Hello(hello)
            }
            Up::Request(mut request)
                if self.mutant == Some(Mutant::RetriedAnew)
                    && matches!(request.op, Op::SetContents { .. }) =>
            {
                let number = request.number;
                if let Some(session) = self.speakers.get(&connection).copied() {
                    let first = *self.retried.entry((session, number)).or_insert(connection);
                    if first != connection {
                        request.number = RequestNumber(number.0 + ANEW);
                    }
                }
                Up::Request(request)
            }
            up => up,
        }
    }

    fn misread(&self, connection: ConnectionId, holder: NodeId, down: Down) -> Down {
        match (self.mutant, down) {
            (Some(Mutant::RetriedAnew), Down::Answer(mut answer)) if answer.number.0 >= ANEW => {
                answer.number = RequestNumber(answer.number.0 - ANEW);
                Down::Answer(answer)
            }
            (Some(Mutant::LeaseFromReceipt), Down::Lease { keep_alive, grant })
                if matches!(holder, NodeId::Client(_)) =>
            {
                let sent = self.keep_alives.get(&connection).filter(|(number, _)| *number == keep_alive);
                let held = sent.map_or(grant.held, |(_, sent)| self.local(holder).saturating_since(*sent));
                let grant = Grant { held: held.max(grant.held), ..grant };
                Down::Lease { keep_alive, grant }
            }
            (_, down) => down,
        }
    }
}

/// The beginning of a long line.
fn brief(text: &str) -> String {
    text.chars().take(220).collect()
}
