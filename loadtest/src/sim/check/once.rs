//! P-ONCE: no write takes effect twice. Contents are never written by two calls, so those that come back after others
//! were written a second time.

use std::collections::BTreeSet;

use hasp_proto::name::Name;

use super::super::history::History;
use super::Findings;

/// Checks what became of every name.
pub fn check(history: &History, findings: &mut Findings) {
    let names: BTreeSet<&Name> = history.truths.values().flat_map(|truth| truth.versions.keys()).collect();
    for name in names {
        let all = history.truths.values().filter_map(|truth| truth.versions.get(name));
        {
            let mut written = BTreeSet::new();
            for version in all.flatten() {
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
