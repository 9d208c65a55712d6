//! A handle that its application has not closed is good while its session lives and its node is there, under whichever
//! master: `StaleHandle` is said only of a node that is gone.

use hasp_proto::error::ErrorCode;

use super::super::history::{History, Told};
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
    }
}
