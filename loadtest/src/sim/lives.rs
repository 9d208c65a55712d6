//! Nodes start, crash, pause and go on; connections break, and their ends find out some time.

use std::collections::VecDeque;

use hasp_proto::server::ConnectionId;
use hasp_proto::time::Time;

use super::clock::{Clock, Moment};
use super::happening::Happening;
use super::mutants::Mutant;
use super::node::{Life, NodeId};
use super::plan::HEALED;
use super::world::World;

/// Two clocks of a world differ by less than the clock-rate bound of 10,000.
const SKEW_PPM: u64 = 4_500;

impl World {
    /// Another one, that has not started.
    pub fn add_life(&mut self, node: NodeId) {
        let ppm = i64::try_from(self.random.between(0, 2 * SKEW_PPM + 1)).expect("small");
        let mut ppm = ppm - i64::try_from(SKEW_PPM).expect("small");
        if self.mutant == Some(Mutant::FastMasterClock) && matches!(node, NodeId::Replica(_)) {
            ppm = 400_000;
        }
        let clock = Clock::new(self.random.millis(1, 100_000), ppm);
        let life = Life {
            clock,
            is_up: false,
            paused_until: None,
            number: 0,
            backlog: VecDeque::new(),
            wake_at: None,
        };
        self.lives.insert(node, life);
    }

    /// What a node's clock shows.
    pub fn local(&self, node: NodeId) -> Time {
        self.lives[&node].clock.at(self.now)
    }

    /// How a node is.
    pub fn life(&mut self, node: NodeId) -> &mut Life {
        self.lives.get_mut(&node).expect("a node of this world")
    }

    /// Whether it runs and is not paused.
    pub fn is_awake(&self, node: NodeId) -> bool {
        self.lives[&node].is_up && self.lives[&node].paused_until.is_none()
    }

    /// A pause is over: everything that came meanwhile is handled in its order.
    pub fn resume(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if life.paused_until.is_none_or(|until| until > now) {
            return;
        }
        life.paused_until = None;
        let backlog = std::mem::take(&mut life.backlog);
        if life.is_up {
            self.story.tell(now, node, format_args!("goes on"));
        }
        for happening in backlog {
            self.schedule.add(now, happening);
        }
    }

    /// It starts, if it is down.
    pub fn start(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if life.is_up {
            return;
        }
        life.is_up = true;
        life.number += 1;
        life.wake_at = None;
        life.paused_until = None;
        life.backlog.clear();
        self.story.tell(now, node, format_args!("starts"));
        match node {
            NodeId::Replica(index) => self.start_replica(index),
            NodeId::Proxy(index) => self.start_proxy(index),
            NodeId::Client(index) => self.start_client(index),
        }
    }

    /// A node is gone from one moment to the next, with all its connections.
    pub fn crash(&mut self, node: NodeId) {
        let now = self.now;
        let life = self.life(node);
        if !life.is_up {
            return;
        }
        life.is_up = false;
        life.number += 1;
        life.paused_until = None;
        life.backlog.clear();
        self.story.tell(now, node, format_args!("crashes"));
        for connection in self.network.of_node(node) {
            self.reset(connection);
        }
        match node {
            NodeId::Replica(index) => self.replica_crashed(index),
            NodeId::Proxy(_) => {}
            NodeId::Client(index) => self.client_crashed(index),
        }
    }

    /// A connection breaks; both ends find out, some time.
    pub fn reset(&mut self, connection: ConnectionId) {
        let Some(broken) = self.network.break_up(connection) else { return };
        let (one, other) = (self.found_out(), self.found_out());
        let life = self.lives[&broken.holder].number;
        self.schedule.add(one, Happening::LinkLost(broken.holder, life, broken.link));
        if broken.is_accepted {
            let life = self.lives[&broken.host].number;
            self.schedule.add(other, Happening::ConnectionLost(broken.host, life, connection));
        }
    }

    fn found_out(&mut self) -> Moment {
        let takes_long = self.now < HEALED && self.random.chance(150);
        self.now + if takes_long { self.random.millis(100, 8_000) } else { self.random.millis(1, 20) }
    }
}
