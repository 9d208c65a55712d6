//! P-ACL: nothing is allowed that the ACLs do not allow at its position, and nothing that begins after a revocation was
//! acknowledged is allowed by what was before it: reads, cached or not, writes, locks, events. And nothing is refused
//! that is allowed.
//!
//! Who may do what is worked out from the ACL names of nodes and the contents of ACL files as they were. Cells that do
//! not hold these files are told of them: of what was allowed there the principal must have been in the ACL at some
//! moment of the call, and of what was refused not in all of them (`route-5`). A client without a router is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use hasp_client::HandleEvent;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventKind;
use hasp_proto::id::Generation;
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::request::{Reply, Use};

use super::super::clock::Moment;
use super::super::history::{Asked, History, Told, Truth, Version, What};
use super::super::script::{self, ADMIN, EVERYONE};
use super::Findings;
use super::reads::{Acknowledged, describe};

/// Checks all calls on nodes that were not open to everybody all the time.
pub fn check(history: &History, findings: &mut Findings) {
    let acknowledged = Acknowledged::of(history);
    for asked in history.asked.iter().filter(|asked| script::is_guarded(&asked.name)) {
        let Some(Told { position: Some(position), result, .. }) = &asked.told else { continue };
        let (Some(truth), Some(access)) = (history.truth(position), access(asked)) else { continue };
        let call = Guarded { asked, access, truth, principal: script::principal(asked.client) };
        if let Some(acls) = call.acls_elsewhere(position.index) {
            call.check_elsewhere(history, &acls, result, findings);
            continue;
        }
        match result {
            Ok(reply) => {
                call.check_position(reply, position.index, findings);
                call.check_time(&acknowledged, findings);
            }
            Err(ErrorCode::PermissionDenied) => call.check_refusal(position.index, findings),
            Err(_) => {}
        }
    }
    check_events(history, findings);
    for asked in history.asked.iter().filter(|asked| script::is_of_ring(&asked.name)) {
        check_below(history, asked, findings);
    }
}

/// Whoever made a child in a directory was allowed to write that, whichever cell holds it, at some moment of the call. The
/// cell of the children goes by names that it has heard of, which later ones follow before their change is acknowledged.
fn check_below(history: &History, asked: &Asked, findings: &mut Findings) {
    let (Some(home), Some(parent)) = (home(history), asked.name.parent()) else { return };
    let is_new = matches!(asked.reply(), Some(Reply::Opened { created: true, .. }));
    let Some(told) = asked.told.as_ref().filter(|_| is_new && script::is_spread(&parent)) else { return };
    let principal = script::principal(asked.client);
    let acknowledged: BTreeMap<Generation, Moment> =
        history.asked.iter().filter(|it| it.name == parent).filter_map(acknowledged_names).collect();
    let versions = &home.versions[&parent];
    let is_over = |later: &Version| match &later.node {
        Some((stat, _)) => acknowledged.get(&stat.acl_generation).is_some_and(|at| *at < asked.begun),
        None => later.at < asked.begun,
    };
    let first = versions.iter().rposition(is_over).unwrap_or(0);
    let is_allowed = versions[first..].iter().filter(|version| version.at <= told.at).any(|version| {
        let Some((stat, _)) = &version.node else { return false };
        is_in(home, &stat.acls.write, &principal, (asked.begun, told.at)).0
    });
    findings.expect(is_allowed, || {
        format!(
            "P-ACL: {} as {principal} was allowed by no names that {parent} had meanwhile",
            describe(asked)
        )
    });
}

/// Names that were given to a node, and when that was acknowledged.
fn acknowledged_names(asked: &Asked) -> Option<(Generation, Moment)> {
    match asked.reply()? {
        Reply::AclSet { acl_generation } => Some((*acl_generation, asked.told.as_ref()?.at)),
        _ => None,
    }
}

/// The cell that holds the ACL files.
fn home(history: &History) -> Option<&Truth> {
    history.truths.values().find(|truth| is_home(truth))
}

fn is_home(truth: &Truth) -> bool {
    truth.state.genesis().is_some_and(|genesis| genesis.cell == *genesis.map.home())
}

/// Whether the principal was in that ACL at some moment between these, and whether at all of them.
fn is_in(home: &Truth, acl: &str, principal: &str, (from, to): (Moment, Moment)) -> (bool, bool) {
    if acl == EVERYONE || acl == ADMIN {
        let is_in = acl == EVERYONE || principal == ADMIN;
        return (is_in, is_in);
    }
    let versions = script::file_of_acl(acl).and_then(|file| home.versions.get(&file));
    let versions = versions.map_or(&[][..], Vec::as_slice);
    let first = versions.partition_point(|version| version.at < from).saturating_sub(1);
    let then = versions[first..].iter().take_while(|version| version.at <= to);
    let lists = |version: &Version| version.node.as_ref().is_some_and(|(_, it)| lists(it, principal));
    let is_from_the_start = versions.get(first).is_some_and(|version| version.at < from);
    let (mut sometimes, mut always) = (false, is_from_the_start);
    for version in then {
        sometimes |= lists(version);
        always &= lists(version);
    }
    (sometimes, always)
}

/// What a call needs to be allowed; `None` if it needs nothing, or did not find the node there.
fn access(asked: &Asked) -> Option<Use> {
    match asked.what {
        What::Open | What::Create(_) => {
            let is_new = matches!(asked.reply(), Some(Reply::Opened { created: true, .. }));
            (!is_new).then_some(asked.r#use)
        }
        What::Read | What::Stat | What::List => Some(Use::Read),
        What::Write(_) | What::Guarded { .. } | What::Delete | What::Acquire(_) => Some(Use::WriteAndLock),
        What::SetAcl(_) => Some(Use::ChangeAcl),
        What::Release | What::Sequencer => None,
    }
}

/// A call on a node that need not be open to everybody.
struct Guarded<'a> {
    asked: &'a Asked,
    access: Use,
    truth: &'a Truth,
    principal: String,
}

impl Guarded<'_> {
    /// The ACL names that decided it, if another cell holds their files: before the command of that index and after it.
    fn acls_elsewhere(&self, index: u64) -> Option<Vec<String>> {
        if is_home(self.truth) {
            return None;
        }
        let name_at = |index| {
            let (stat, _) = self.truth.node_at(&self.asked.name, index)?;
            let AclNames { read, write, change } = stat.acls.clone();
            Some(match self.access {
                Use::Read => read,
                Use::WriteAndLock => write,
                Use::ChangeAcl => change,
            })
        };
        let names: Vec<_> = [index.saturating_sub(1), index].into_iter().filter_map(name_at).collect();
        names.iter().any(|acl| acl != EVERYONE).then_some(names)
    }

    fn check_elsewhere(
        &self,
        history: &History,
        acls: &[String],
        result: &Result<Reply, ErrorCode>,
        findings: &mut Findings,
    ) {
        let (Some(home), Some(told)) = (home(history), &self.asked.told) else { return };
        let window = (self.asked.begun, told.at);
        let (what, who) = (describe(self.asked), &self.principal);
        let seen: Vec<_> = acls.iter().map(|acl| is_in(home, acl, who, window)).collect();
        match result {
            Ok(_) => findings.expect(seen.iter().any(|(sometimes, _)| *sometimes), || {
                format!("P-ACL: {what} as {who} was allowed by {acls:?}, none of which let it in meanwhile")
            }),
            Err(ErrorCode::PermissionDenied) if !history.alone.contains(&self.asked.client) => {
                findings.expect(!seen.iter().all(|(_, always)| *always), || {
                    format!("P-ACL: {what} as {who} was refused by {acls:?}, which let it in all the time")
                });
            }
            Err(_) => {}
        }
    }

    fn may_at(&self, index: u64) -> Option<bool> {
        may(self.truth, &self.asked.name, &self.principal, self.access, index)
    }

    /// What was done was allowed just before it was done, what was shown where it was so.
    fn check_position(&self, reply: &Reply, index: u64, findings: &mut Findings) {
        let is_change = self.asked.has_changed();
        let allowed = self.may_at(if is_change { index - 1 } else { index });
        // To open a node for writing may have been a write, whose answer has the position of the first time.
        let is_logged = matches!(reply, Reply::Opened { .. }) && self.may_at(index - 1) == Some(true);
        findings.expect(allowed != Some(false) || is_logged, || {
            format!(
                "P-ACL: {} as {} at index {index} was not allowed there",
                describe(self.asked),
                self.principal
            )
        });
    }

    /// At some point between what was acknowledged before it began and its end it was allowed.
    fn check_time(&self, acknowledged: &Acknowledged, findings: &mut Findings) {
        let Asked { name, begun, told, .. } = self.asked;
        let Some(told) = told else { return };
        let Some(here) = told.position.as_ref().map(|position| &position.cell) else { return };
        let known = |name: &Name| {
            let all = acknowledged.before(name, *begun, false);
            all.filter(|(cell, _)| *cell == here).map(|(_, index)| index).max()
        };
        // In another cell there are none, and positions of this one say nothing of them.
        let is_here = |(file, versions): &(&Name, &Vec<_>)| script::is_acl_file(file) && !versions.is_empty();
        let files = self.truth.versions.iter().filter(is_here).map(|(file, _)| file);
        let names: Vec<&Name> = std::iter::once(name).chain(files).collect();
        let Some(from) = names.iter().filter_map(|name| known(name)).max() else { return };
        let later = names.iter().flat_map(|name| &self.truth.versions[*name]);
        let later = later.filter(|it| it.index > from && it.at <= told.at).map(|it| it.index);
        let is_allowed = std::iter::once(from).chain(later).any(|index| self.may_at(index) != Some(false));
        findings.expect(is_allowed, || {
            format!(
                "P-ACL: {} as {} was not allowed at any time since index {from}, which was acknowledged before it began",
                describe(self.asked),
                self.principal
            )
        });
    }

    fn check_refusal(&self, index: u64, findings: &mut Findings) {
        let is_right = [index.saturating_sub(1), index].iter().any(|at| self.may_at(*at) != Some(true));
        findings.expect(is_right, || {
            let (what, who) = (describe(self.asked), &self.principal);
            format!("P-ACL: {what} as {who} was refused at index {index}, where it was allowed")
        });
    }
}

/// Nobody is told what happened to a node that he may not read. That it is gone, with his handle, he may know.
fn check_events(history: &History, findings: &mut Findings) {
    for heard in &history.heard {
        let HandleEvent::Happened(event) = &heard.event else { continue };
        let watch = &history.watches[heard.watch];
        let Some(truth) = history.truth(&event.position) else { continue };
        if event.kind == EventKind::LockConflict || !script::is_guarded(&event.name) {
            continue;
        }
        let principal = script::principal(watch.client);
        let done = truth.versions[&event.name].iter().find(|version| version.index == event.position.index);
        let Some(done) = done else { continue };
        let is_allowed = moments(truth, (done.index, done.at))
            .any(|index| may(truth, &event.name, &principal, Use::Read, index) != Some(false));
        findings.expect(is_allowed, || {
            let (client, at) = (watch.client + 1, heard.at);
            format!("P-ACL: c{client} as {principal} was told at {at} of {event:?} and may not read the node")
        });
    }
}

/// Whether the principal may do that with the node as of that index; `None` if there is no such node.
pub fn may(truth: &Truth, name: &Name, principal: &str, access: Use, index: u64) -> Option<bool> {
    let (stat, _) = truth.node_at(name, index)?;
    let AclNames { read, write, change } = &stat.acls;
    let acl = match access {
        Use::Read => read,
        Use::WriteAndLock => write,
        Use::ChangeAcl => change,
    };
    Some(match acl.as_str() {
        EVERYONE => true,
        // Nothing is told of what another cell's ACL guards.
        _ if !is_home(truth) => false,
        ADMIN => principal == ADMIN,
        other => {
            let file = script::file_of_acl(other).and_then(|file| truth.node_at(&file, index));
            file.is_some_and(|(_, contents)| lists(contents, principal))
        }
    })
}

/// Whether the principal may read the node at that index and at all others that were committed at the same moment: who
/// is told is decided when they all have been applied.
pub fn may_read_throughout(truth: &Truth, name: &Name, principal: &str, (index, at): (u64, Moment)) -> bool {
    if !script::is_guarded(name) && !script::is_of_ring(name) {
        return true;
    }
    moments(truth, (index, at)).all(|index| may(truth, name, principal, Use::Read, index) == Some(true))
}

/// That index, and those after it that were committed at the same moment.
fn moments(truth: &Truth, (index, at): (u64, Moment)) -> impl Iterator<Item = u64> {
    let later = truth.versions.values().flatten();
    let later = later.filter(move |version| version.at == at && version.index > index);
    std::iter::once(index).chain(later.map(|version| version.index))
}

/// Whether an ACL file with these contents lets the principal in.
pub fn lists(contents: &Bytes, principal: &str) -> bool {
    contents.split(|byte| *byte == b'\n').any(|line| line == principal.as_bytes() || line == b"*")
}
