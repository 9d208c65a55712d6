//! P-SEQ: instance numbers and generations of a name never fall, through delete and re-create.

use super::super::history::History;
use super::Findings;

/// Checks what became of every name.
pub fn check(history: &History, findings: &mut Findings) {
    for truth in history.truths.values() {
        for (name, versions) in &truth.versions {
            let mut last = [0; 4];
            for version in versions {
                let Some((stat, _)) = &version.node else { continue };
                let here = [
                    stat.instance.0,
                    stat.content_generation.0,
                    stat.lock_generation.0,
                    stat.acl_generation.0,
                ];
                let grows = here.iter().zip(last).all(|(here, last)| *here >= last);
                findings.expect(grows, || {
                    format!("P-SEQ: {name} fell from {last:?} to {here:?} at index {}", version.index)
                });
                last = here;
            }
        }
    }
}
