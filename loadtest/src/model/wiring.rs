//! Moves what machines send along connections, and tells them what becomes of those. What an [`Omission`] leaves out of
//! messages is left out here.

use hasp_cell::master;
use hasp_client::machine;
use hasp_proto::id::RequestNumber;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Grant, News, Up};
use hasp_router::relay;
use hasp_router::upstream::LinkId;

use super::hash_of;
use super::hashed::fingerprint;
use super::memo::{Effect, Given};
use super::node::NodeId;
use super::omission::Omission;
use super::wires::{Downward, Sealed, Upward, Way};
use super::world::World;

/// A number that is asked again gets this much more for each connection, if it is to be another.
const ANEW: u64 = 1 << 40;

impl World {
    /// A machine wants a connection, and has it at once or not at all.
    pub(super) fn connect(&mut self, holder: NodeId, link: LinkId, address: &str) {
        let host = NodeId::at(address).expect("every address is a node's");
        if !self.is_alive(host) || self.wires.is_cut(holder, host) {
            return self.link_lost(holder, link);
        }
        self.tell(|_| format!("    {holder} connects to {host}"));
        let connection = self.wires.open(holder, link.clone(), host);
        match host {
            NodeId::Replica(index) => {
                self.replica_hears(index, Some(Given::new(master::Input::Connected(connection))))
            }
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::new(relay::Input::Connected(connection))))
            }
            NodeId::Client(_) => panic!("applications host nobody"),
        }
        match holder {
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::new(relay::Input::LinkConnected(link))))
            }
            NodeId::Client(index) => {
                self.client_hears(index, Some(Given::new(machine::Input::Connected(link))))
            }
            NodeId::Replica(_) => panic!("replicas hold no sessions"),
        }
    }

    /// A machine gives a connection up: its host hears of it after all that was sent.
    pub(super) fn disconnect(&mut self, holder: NodeId, link: &LinkId) {
        if let Some(connection) = self.wires.of_link(holder, link) {
            self.wires.leave(connection);
        }
    }

    fn link_lost(&mut self, holder: NodeId, link: LinkId) {
        match holder {
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::new(relay::Input::LinkDisconnected(link))))
            }
            NodeId::Client(index) => {
                self.client_hears(index, Some(Given::new(machine::Input::Disconnected(link))))
            }
            NodeId::Replica(_) => panic!("replicas hold no sessions"),
        }
    }

    fn connection_lost(&mut self, host: NodeId, connection: ConnectionId) {
        match host {
            NodeId::Replica(index) => {
                self.replica_hears(index, Some(Given::new(master::Input::Disconnected(connection))))
            }
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::new(relay::Input::Disconnected(connection))))
            }
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }

    /// A connection breaks, with everything in it, and both ends find out.
    pub(super) fn break_up(&mut self, connection: ConnectionId) {
        let Some(wire) = self.wires.remove(connection) else { return };
        if self.is_alive(wire.host) {
            self.connection_lost(wire.host, connection);
        }
        if let Some(link) = wire.link.filter(|_| self.is_alive(wire.holder)) {
            self.link_lost(wire.holder, link);
        }
    }

    /// All connections of a node break.
    pub(super) fn break_all(&mut self, node: NodeId) {
        let is_its = |wire: &super::wires::Wire| wire.host == node || wire.holder == node;
        let all: Vec<_> =
            self.wires.all().filter(|(_, wire)| is_its(wire)).map(|(connection, _)| connection).collect();
        for connection in all {
            self.break_up(connection);
        }
    }

    /// Does what a machine wants.
    pub(super) fn carry_out(&mut self, node: NodeId, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Down(connection, down) => self.send_down(*connection, down),
                Effect::Up(link, up) => self.send_up(node, link, up),
                Effect::Connect(link, address) => self.connect(node, link.clone(), address),
                Effect::Disconnect(link) => self.disconnect(node, link),
                Effect::Propose(batch, entry) => match node {
                    NodeId::Replica(index) => self.propose(index, *batch, entry.clone()),
                    NodeId::Proxy(_) | NodeId::Client(_) => panic!("only replicas have a log"),
                },
                Effect::Tell(output) => match node {
                    NodeId::Client(index) => self.application_hears(index, output),
                    NodeId::Replica(_) | NodeId::Proxy(_) => panic!("only applications are told"),
                },
            }
        }
    }

    /// Something goes up.
    fn send_up(&mut self, holder: NodeId, link: &LinkId, sealed: &Sealed<Upward>) {
        let Some(connection) = self.wires.of_link(holder, link) else { return };
        self.wires.put_up(connection, sealed.clone());
        let Upward::Item(up) = &*sealed.value else { return };
        self.tell(|_| format!("    {holder} sends {}", brief(up)));
        if let Up::KeepAlive(keep_alive) = up {
            let now = self.local(holder);
            self.wires.asks(connection, keep_alive.number, now);
        }
        let claimed = match up {
            Up::Request(request) if request.op == Op::Claim => Some(request.number),
            _ => None,
        };
        if let (Some(number), NodeId::Proxy(index), true) =
            (claimed, holder, self.omits(Omission::ClaimNotAwaited))
        {
            let answer = Answer::plain(number, Ok(Reply::Noted));
            self.proxy_hears(
                index,
                Some(Given::new(relay::Input::LinkReceived(link.clone(), Down::Answer(answer)))),
            );
        }
    }

    /// Something goes down.
    fn send_down(&mut self, connection: ConnectionId, sealed: &Sealed<Downward>) {
        let Some((host, holder)) = self.wires.get(connection).map(|wire| (wire.host, wire.holder)) else {
            return;
        };
        self.wires.put_down(connection, sealed.clone());
        let Downward::Item(down) = &*sealed.value else { return };
        self.tell(|_| format!("    {host} sends {} to {holder}", brief(down)));
        let Down::News { sequence, item } = down else { return };
        let is_unawaited = match item {
            News::Invalidate { .. } => self.omits(Omission::InvalidationNotAwaited),
            News::FailOver { .. } => self.omits(Omission::FailOverNotAwaited),
            News::CellLost { .. } | News::Event(_) | News::EventsLost { .. } => false,
        };
        if is_unawaited {
            let up = Up::Acknowledge(*sequence);
            let print = fingerprint(&up);
            self.host_hears(host, connection, up, print);
        }
    }

    /// What is first in a pipe arrives.
    pub(super) fn deliver(&mut self, connection: ConnectionId, way: Way) {
        match way {
            Way::Up => self.deliver_up(connection),
            Way::Down => self.deliver_down(connection),
        }
    }

    fn deliver_up(&mut self, connection: ConnectionId) {
        let Some(item) = self.wires.take_up(connection) else { return };
        let Some(host) = self.wires.get(connection).map(|wire| wire.host) else { return };
        match &*item.value {
            Upward::Item(up) => {
                let up = self.asked_again(connection, up.clone());
                self.host_hears(host, connection, up, item.print());
            }
            Upward::Gone => {
                self.wires.remove(connection);
                self.connection_lost(host, connection);
            }
        }
    }

    fn host_hears(&mut self, host: NodeId, connection: ConnectionId, up: Up, print: u64) {
        let print = hash_of(&(connection, print));
        match host {
            NodeId::Replica(index) => {
                let input = master::Input::Received(connection, vec![up]);
                self.replica_hears(index, Some(Given::known(input, print)));
            }
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::known(relay::Input::Received(connection, up), print)));
            }
            NodeId::Client(_) => panic!("applications host nobody"),
        }
    }

    fn deliver_down(&mut self, connection: ConnectionId) {
        let Some(item) = self.wires.take_down(connection) else { return };
        let Some(wire) = self.wires.get(connection) else { return };
        let Some(link) = wire.link.clone() else { return };
        let holder = wire.holder;
        let Downward::Item(down) = &*item.value else {
            self.wires.remove(connection);
            return self.link_lost(holder, link);
        };
        let print = hash_of(&(&link, item.print()));
        let misread = self.counted_from_receipt(connection, down).or_else(|| numbered_as_before(down));
        let (down, print) = match misread {
            Some(other) => (other.clone(), hash_of(&(print, fingerprint(&other)))),
            None => (down.clone(), print),
        };
        match holder {
            NodeId::Proxy(index) => {
                self.proxy_hears(index, Some(Given::known(relay::Input::LinkReceived(link, down), print)));
            }
            NodeId::Client(index) => {
                let input = machine::Input::Received(link, vec![down]);
                self.client_hears(index, Some(Given::known(input, print)));
            }
            NodeId::Replica(_) => panic!("replicas hold no sessions"),
        }
    }

    // What is left out.

    /// On each connection a write has another number than on others: nobody knows it again.
    fn asked_again(&self, connection: ConnectionId, up: Up) -> Up {
        match up {
            Up::Request(mut request)
                if self.omits(Omission::RetriedAnew)
                    && request.on_behalf.is_none()
                    && matches!(request.op, Op::SetContents { .. }) =>
            {
                request.number = RequestNumber(request.number.0 + ANEW * connection.0);
                Up::Request(request)
            }
            up => up,
        }
    }

    /// A lease that seems to have been answered as late as it came.
    fn counted_from_receipt(&self, connection: ConnectionId, down: &Down) -> Option<Down> {
        let Down::Lease { keep_alive, grant } = down else { return None };
        if !self.omits(Omission::LeaseFromReceipt) {
            return None;
        }
        let wire = self.wires.get(connection)?;
        let (_, sent) = wire.asked.filter(|(number, _)| number == keep_alive)?;
        let held = self.local(wire.holder).saturating_since(sent).max(grant.held);
        Some(Down::Lease { keep_alive: *keep_alive, grant: Grant { held, ..*grant } })
    }
}

/// An answer to what was asked under another number.
fn numbered_as_before(down: &Down) -> Option<Down> {
    match down {
        Down::Answer(answer) if answer.number.0 >= ANEW => {
            let number = RequestNumber(answer.number.0 % ANEW);
            Some(Down::Answer(Answer { number, ..answer.clone() }))
        }
        _ => None,
    }
}

/// The beginning of a long line.
fn brief(message: &impl std::fmt::Debug) -> String {
    format!("{message:?}").chars().take(160).collect()
}
