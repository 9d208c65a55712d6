//! P-DUR: what was acknowledged is in the history of its cell at the position that was told, and all replicas have the
//! same history.

use hasp_proto::request::Reply;

use super::super::history::History;
use super::super::world::{REPLICAS, World};
use super::Findings;
use super::reads::describe;

/// Checks all acknowledged changes.
pub fn check(history: &History, findings: &mut Findings) {
    for asked in &history.asked {
        let Some(position) = asked.told.as_ref().and_then(|told| told.position.as_ref()) else { continue };
        let Some(truth) = history.truth(position) else { continue };
        let node = truth.node_at(&asked.name, position.index);
        let stands = match asked.reply() {
            Some(Reply::Written { content_generation, .. }) => node.is_some_and(|(stat, contents)| {
                stat.content_generation == *content_generation && Some(contents) == asked.contents()
            }),
            Some(Reply::Opened { created: true, .. }) => {
                node.is_some_and(|(_, contents)| Some(contents) == asked.contents())
            }
            Some(Reply::Deleted) => node.is_none(),
            Some(Reply::Acquired { lock_generation }) => {
                node.is_some_and(|(stat, _)| stat.lock_generation == *lock_generation)
            }
            _ => continue,
        };
        findings.expect(stands, || {
            format!("P-DUR: {} was acknowledged at {position}, where there is {node:?}", describe(asked))
        });
    }
}

/// At the end all replicas of a cell have the same state.
pub fn check_replicas(world: &World, findings: &mut Findings) {
    for cell in world.replicas.chunks(REPLICAS) {
        for other in &cell[1..] {
            let is_same = cell[0].state == other.state;
            findings.expect(is_same, || {
                let (one, other) = (cell[0].state.position(), other.state.position());
                format!("P-DUR: replicas differ at the end: one is at {one}, another at {other}")
            });
        }
    }
}
