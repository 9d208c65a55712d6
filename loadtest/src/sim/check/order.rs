//! P-LIN without positions: whether the reads and writes of a file can be put into one order that agrees with true time.
//!
//! No two writes of a world have the same contents, so each read says which write it saw. Then the question is not hard:
//! all that concerns one value is a *zone*, from the first end to the last beginning among its write and reads. There is
//! such an order exactly if no read ended before its write began, no two zones that run forward overlap, and no zone
//! that runs backward lies within one that runs forward (Gibbons and Korach, 1997). Nothing is searched, so nothing is
//! ever given up.

use std::collections::BTreeMap;

use bytes::Bytes;
use hasp_proto::name::Name;
use hasp_proto::request::Reply;

use super::super::clock::Moment;
use super::super::history::{Asked, History, What};
use super::super::script;
use super::Findings;

/// All that is known of one value.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: Moment,
    last_begin: Moment,
    written: Moment,
    earliest_read_end: Option<Moment>,
}

/// Checks every file that was only ever written, not deleted.
pub fn check(history: &History, findings: &mut Findings) {
    let mut by_name: BTreeMap<&Name, Vec<&Asked>> = BTreeMap::new();
    for asked in &history.asked {
        let comes_and_goes = script::is_of_ring(&asked.name);
        let is_of_file =
            !comes_and_goes && asked.name.parent().is_none_or(|parent| parent.component() != "d");
        if is_of_file && asked.name.component() != "d" && !script::is_acl_file(&asked.name) {
            by_name.entry(&asked.name).or_default().push(asked);
        }
    }
    for (name, calls) in by_name {
        check_file(name, &calls, findings);
    }
}

fn check_file(name: &Name, calls: &[&Asked], findings: &mut Findings) {
    let mut zones: BTreeMap<&Bytes, Zone> = BTreeMap::new();
    for asked in calls {
        let Some(contents) = asked.contents() else { continue };
        let has_written =
            matches!(asked.reply(), Some(Reply::Written { .. } | Reply::Opened { created: true, .. }));
        let end = asked.told.as_ref().filter(|_| has_written).map_or(Moment(u64::MAX), |told| told.at);
        let zone =
            Zone { first_end: end, last_begin: asked.begun, written: asked.begun, earliest_read_end: None };
        zones.insert(contents, zone);
    }
    let mut is_read = BTreeMap::new();
    for asked in calls {
        let (Some(Reply::Contents { contents, .. }), What::Read, Some(told)) =
            (asked.reply(), &asked.what, &asked.told)
        else {
            continue;
        };
        let Some(zone) = zones.get_mut(contents) else {
            findings.expect(false, || format!("P-LIN: {name} showed {contents:?}, which nobody wrote"));
            continue;
        };
        is_read.insert(contents.clone(), ());
        zone.first_end = zone.first_end.min(told.at);
        zone.last_begin = zone.last_begin.max(asked.begun);
        zone.earliest_read_end = Some(zone.earliest_read_end.map_or(told.at, |at| at.min(told.at)));
    }
    // A write that nobody saw and that was not acknowledged need not have been.
    zones.retain(|contents, zone| zone.first_end < Moment(u64::MAX) || is_read.contains_key(*contents));
    for (contents, zone) in &zones {
        findings.expect(zone.earliest_read_end.is_none_or(|end| end >= zone.written), || {
            format!("P-LIN: {name} showed {contents:?} before it was written")
        });
    }
    check_zones(name, &zones, findings);
}

fn check_zones(name: &Name, zones: &BTreeMap<&Bytes, Zone>, findings: &mut Findings) {
    let mut forward: Vec<_> = zones.iter().filter(|(_, zone)| zone.first_end < zone.last_begin).collect();
    forward.sort_by_key(|(_, zone)| zone.first_end);
    for pair in forward.windows(2) {
        let [(one, before), (other, after)] = pair else { unreachable!("windows of two") };
        findings.expect(before.last_begin <= after.first_end, || {
            format!(
                "P-LIN: {name} has no order: {one:?} and {other:?} were both current around {}",
                after.first_end
            )
        });
    }
    for (contents, zone) in zones.iter().filter(|(_, zone)| zone.first_end >= zone.last_begin) {
        let around = forward.partition_point(|(_, other)| other.first_end < zone.last_begin);
        let within = forward[..around].last().filter(|(_, other)| zone.first_end < other.last_begin);
        findings.expect(within.is_none(), || {
            let (other, _) = within.expect("there is one");
            format!("P-LIN: {name} has no order: all of {contents:?} happened while {other:?} was current")
        });
    }
}
