//! P-DUR: what was acknowledged is in the history of its cell at the position that was told, and all replicas have the
//! same history.

use hasp_cell::state::State;
use hasp_proto::request::Reply;

use super::super::history::{History, What};
use super::super::world::{REPLICAS, World, cell_name};
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
            Some(Reply::AclSet { acl_generation }) => node.is_some_and(|(stat, _)| {
                stat.acl_generation == *acl_generation && asked.what == What::SetAcl(stat.acls.clone())
            }),
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

/// At the end all replicas of a cell have the same state, and it is what was committed.
pub fn check_replicas(world: &World, findings: &mut Findings) {
    for (number, cell) in world.replicas.chunks(REPLICAS).enumerate() {
        let truth = &world.history.truths[&cell_name(number)].state;
        let states: Vec<&State> = cell.iter().map(|replica| &replica.state).chain([truth]).collect();
        check_states(&states, findings);
    }
}

/// All of these are the same, entry by entry or command by command.
pub fn check_states(states: &[&State], findings: &mut Findings) {
    for pair in states.windows(2) {
        let [one, other] = pair else { unreachable!("windows of two") };
        findings.expect(one == other, || {
            let (at, there) = (one.position(), other.position());
            format!("P-DUR: replicas differ at the end: one is at {at}, another at {there}")
        });
    }
}
