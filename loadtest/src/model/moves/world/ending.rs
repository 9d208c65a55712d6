//! The end of a session, which each cell hears of some time: before or after what the client holds has moved.

use hasp_cell::state::Command;
use hasp_proto::id::Claim;
use hasp_proto::request::EndCause;

use super::super::Moves;
use super::super::cells::file;
use super::super::onlooker::Broken;
use super::{Client, Known, MoveWorld};
use crate::model::Omission;
use crate::model::crossing::cells::client_id;

impl MoveWorld {
    /// What the router that the client was last heard through tells of its end.
    pub(super) fn tell_end(&mut self, known: &Known, client: usize, cell: usize) {
        self.seen.ended_packed |= self.cells[cell].state.has_packed();
        let session = client_id(client);
        let via = self.routers[client].wires[cell].session;
        let (claim, cause) = (Claim(self.clients[client].claim), EndCause::Failed);
        known.commits.commit(&mut self.cells[cell], Command::EndClient { session, via, claim, cause });
        if let Some(untold) = &mut self.clients[client].ending {
            untold[cell] = false;
        }
    }

    /// Whether nothing is held by a client whose session has ended, once all have heard and claim windows have passed.
    pub(super) fn look_for_ended(&self, model: &Moves) -> Result<(), Broken> {
        let has_ended = |client: &Client| client.ending == Some([false; 2]);
        for (client, _) in self.clients.iter().enumerate().filter(|(_, client)| has_ended(client)) {
            let session = client_id(client);
            for cell in &self.cells {
                let mut cell = cell.clone();
                let orphan = cell.state.orphans().find(|(orphan, _)| *orphan == session);
                if let Some((_, orphaned_at)) = orphan
                    && model.omission != Some(Omission::OrphanKept)
                {
                    let end = Command::OrphanEnd { session, orphaned_at };
                    model.shared.0.commits.commit(&mut cell, end);
                }
                let file = cell.state.node(&file());
                if file.is_some_and(|file| file.lock.holders().any(|(holder, _)| holder.session == session)) {
                    return Err(Broken::Held);
                }
            }
        }
        Ok(())
    }
}
