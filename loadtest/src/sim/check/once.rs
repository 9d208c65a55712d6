//! P-ONCE: no write takes effect twice. Contents are never written by two calls, so those that come back after others
//! were written a second time.

use std::collections::BTreeSet;

use super::super::history::History;
use super::Findings;

/// Checks what became of every name.
pub fn check(history: &History, findings: &mut Findings) {
    for truth in history.truths.values() {
        for (name, versions) in &truth.versions {
            let mut written = BTreeSet::new();
            for version in versions {
                let Some((stat, contents)) = &version.node else { continue };
                let is_again =
                    written.iter().any(|(before, at)| *before == contents && *at != stat.content_generation);
                findings.expect(contents.is_empty() || !is_again, || {
                    format!(
                        "P-ONCE: {contents:?} was written to {name} a second time at index {}",
                        version.index
                    )
                });
                written.insert((contents, stat.content_generation));
            }
        }
    }
}
