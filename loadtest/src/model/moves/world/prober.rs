//! Who tries what the directory is good for.

use hasp_proto::client::Ask;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Op, Reply};

use super::super::Moves;
use super::super::cells::Master;
use crate::model::crossing::cells::on_behalf;
use crate::model::crossing::routers::Router;
use crate::model::hashed::Hashed;
use crate::model::world::Committed;

/// A client behind a router of its own, while nothing else goes on.
pub(super) struct Prober {
    client: usize,
    router: Router,
}

impl Prober {
    pub(super) fn new(client: usize, map: &PartitionMap) -> Self {
        Self { client, router: Router::begun(client, 0, map) }
    }

    /// Asks and waits; `Some` if it was done.
    pub(super) fn tries(
        &mut self,
        model: &Moves,
        cells: &mut [Hashed<Committed>; 2],
        number: u64,
        op: Op,
    ) -> Option<Reply> {
        let known = &*model.shared.0;
        let ask = Ask { on_behalf: Some(on_behalf(self.client, number, 0)), ..op.into() };
        let (ticket, mut answers) = self.router.ask(&known.steps, &ask);
        while !self.router.is_quiet() {
            for (cell, state) in cells.iter_mut().enumerate() {
                let wire = &mut self.router.wires[cell];
                if let Some(request) = wire.requests.pop_front() {
                    let session = wire.session;
                    let mut master = Master { commits: &known.commits, cell: state, omission: None };
                    let (answer, _) = master.answer(session, &request);
                    wire.answers.push_back(Hashed::new(answer));
                }
                answers.extend(self.router.hear(&known.steps, cell));
            }
        }
        answers.into_iter().find(|(answered, _)| *answered == ticket)?.1.result.ok()
    }
}
