//! Liveness: when nothing goes wrong any more every call comes to an end, also of those who went through the faults.

use super::super::world::{END, HEALED, World};
use super::Findings;

/// At the end of a world.
pub fn check(world: &World, findings: &mut Findings) {
    let waiting = world.waiting();
    for (client, since) in &waiting {
        findings.expect(false, || {
            let since = since.map_or_else(|| "without a call".to_owned(), |at| format!("since {at}"));
            format!(
                "no progress: c{} still waits at {END}, {since}; all was well from {HEALED} on",
                client + 1
            )
        });
    }
    findings.expect(world.counts.answers > 20, || {
        format!("no progress: only {} calls were answered", world.counts.answers)
    });
}
