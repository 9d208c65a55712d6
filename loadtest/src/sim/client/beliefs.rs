//! What applications and proxies believe of their leases, by their own clocks.

use hasp_proto::client::Status;
use hasp_proto::id::{CellName, SessionId};
use hasp_router::upstream::UpstreamCore;

use super::super::check::locks::Believed;
use super::super::world::{NodeId, World};

impl World {
    /// Whether the application may believe what it holds there to be held.
    pub fn believes(&self, index: usize, cell: &CellName) -> bool {
        let node = NodeId::Client(index);
        let now = self.local(node);
        self.lives[&node].is_up
            && self.clients[index].core.upstream().sessions().any(|held| {
                held.cell.is_none_or(|at| at == cell)
                    && held.status == Status::Safe
                    && now < held.ends.session
            })
    }

    /// Whose session that is, if its holder believes that it stands at that cell.
    pub fn believer(&self, session: SessionId, cell: &CellName) -> Option<NodeId> {
        self.nodes().into_iter().find(|node| {
            let now = self.local(*node);
            let believes = |upstream: &UpstreamCore| {
                upstream.sessions().any(|held| {
                    held.session == session && held.status == Status::Safe && now < held.ends.session
                })
            };
            self.lives[node].is_up
                && match node {
                    NodeId::Client(index) => {
                        let client = &self.clients[*index];
                        !client.lost.contains(cell) && believes(client.core.upstream())
                    }
                    NodeId::Proxy(index) => believes(self.proxies[*index].core.upstream()),
                    NodeId::Replica(_) => false,
                }
        })
    }

    /// Which locks are held as their holders believe.
    pub fn believed_locks(&self) -> Vec<Believed> {
        let mut held = Vec::new();
        for (client, application) in self.clients.iter().enumerate() {
            for ((name, _), hand) in &application.hands {
                if let Some((mode, lock_generation)) = hand.lock
                    && self.believes(client, &hand.cell)
                {
                    held.push(Believed { name: name.clone(), client, mode, lock_generation });
                }
            }
        }
        held
    }
}
