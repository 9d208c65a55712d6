//! P-ACL: nothing is allowed that the ACLs do not allow at its position, and nothing that begins after a revocation was
//! acknowledged is allowed by what was before it: reads, cached or not, writes, locks, events. And nothing is refused
//! that is allowed.
//!
//! Who may do what is worked out from the ACL names of nodes and the contents of ACL files as they were. Cells that
//! do not hold these files know the two that are built in, and so does this.

use bytes::Bytes;
use hasp_client::HandleEvent;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventKind;
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::request::{Reply, Use};

use super::super::clock::Moment;
use super::super::history::{Asked, History, Told, Truth, What};
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
        let known = |name: &Name| acknowledged.before(name, *begun, false);
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
    if !script::is_guarded(name) {
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
