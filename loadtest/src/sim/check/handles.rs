//! A handle that its application has not closed is good while its session lives and its node is there, under whichever
//! master: `StaleHandle` is said only of a node that is gone, and only by the cell that would have it.

use hasp_proto::error::ErrorCode;

use super::super::history::{History, Told};
use super::super::script;
use super::Findings;
use super::reads::describe;

/// Checks what was refused.
pub fn check(history: &History, findings: &mut Findings) {
    for asked in &history.asked {
        let Some(Told { position: Some(position), result: Err(ErrorCode::StaleHandle), .. }) = &asked.told
        else {
            continue;
        };
        let (Some(truth), Some(instance)) = (history.truth(position), asked.instance) else { continue };
        let there = truth.node_at(&asked.name, position.index).map(|(stat, _)| stat.instance);
        findings.expect(there != Some(instance), || {
            format!(
                "P-HANDLE: {} was refused at {position} as that of a stale handle, and the node {instance:?} is there",
                describe(asked)
            )
        });
        // Directories may be listed by a cell that does not have their node.
        let may_say = script::may_be_split(&asked.name) || !truth.is_elsewhere(&asked.name, position.index);
        findings.expect(may_say, || {
            format!(
                "P-HANDLE: {} was refused at {position} as that of a stale handle, by a cell that does not have the name",
                describe(asked)
            )
        });
    }
}
