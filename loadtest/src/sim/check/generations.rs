//! P-SEQ: instance numbers and generations of a name never fall, through delete and re-create.

use std::collections::BTreeSet;

use hasp_proto::name::Name;

use super::super::history::History;
use super::Findings;

/// Checks what became of every name.
pub fn check(history: &History, findings: &mut Findings) {
    let names: BTreeSet<&Name> = history.truths.values().flat_map(|truth| truth.versions.keys()).collect();
    for name in names {
        // What goes to another cell comes there later.
        let all = history.truths.values().filter_map(|truth| truth.versions.get(name));
        let mut versions: Vec<_> = all.flatten().collect();
        versions.sort_by_key(|version| version.at);
        {
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
