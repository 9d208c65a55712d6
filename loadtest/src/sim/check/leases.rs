//! P-LEASE: a session is not ended by others while its holder, an application or a proxy, believes by its own clock that
//! its lease runs; and nothing is changed while somebody may show what it was before from a cache whose lease runs.
//! Both are looked at in true time, when the change is committed.

use std::collections::BTreeMap;

use hasp_cell::state::{ClientWrite, Command, State, Write};
use hasp_client::machine::Shown;
use hasp_proto::id::{Claim, SessionId};
use hasp_proto::name::Name;
use hasp_proto::request::EndCause;

use super::super::script;
use super::super::world::{NodeId, World};
use super::acl;

/// What a command that was committed broke.
pub fn ended(world: &World, before: &State, after: &State, command: &Command) -> Vec<String> {
    let cell = after.position().cell;
    let believer = |session| world.believer(session, &cell);
    let early = ended_early(before, after, command, believer, &world.claims);
    let mut broken: Vec<String> = early.into_iter().collect();
    if let Some(name) = changed(command) {
        broken.extend(shown_still(world, before, after, name));
    }
    broken
}

/// What it means for a session that somebody believes to stand.
pub fn ended_early(
    before: &State,
    after: &State,
    command: &Command,
    believer: impl Fn(SessionId) -> Option<NodeId>,
    claims: &BTreeMap<SessionId, Claim>,
) -> Option<String> {
    let session = failed(before, after, command)?;
    let believer = believer(session)?;
    let claimed = claims.get(&session);
    let moved = match command {
        Command::EndClient { claim, .. } if claimed.is_some_and(|newest| newest > claim) => {
            ", for a host that it had left; where it was, it was believed alive"
        }
        _ => "",
    };
    let at = after.position();
    Some(format!(
        "P-LEASE: the session of {believer} was ended at {at} by {command:?} while its lease ran{moved}"
    ))
}

/// Whose session, or whose locks and nodes, that command took away.
fn failed(before: &State, after: &State, command: &Command) -> Option<SessionId> {
    match command {
        Command::EndSession { session, cause: EndCause::Failed } => {
            (before.session(*session).is_some() && after.session(*session).is_none()).then_some(*session)
        }
        Command::EndClient { session, cause: EndCause::Failed, .. } | Command::OrphanEnd { session, .. } => {
            let stands = |state: &State| state.client(*session).is_some_and(|record| !record.has_ended);
            (stands(before) && !stands(after)).then_some(*session)
        }
        _ => None,
    }
}

/// The node that a command may change.
fn changed(command: &Command) -> Option<&Name> {
    match command {
        Command::Reap { name, .. } => Some(name),
        Command::ClientWrite(ClientWrite { write, .. }) => match write {
            Write::SetContents { holder, .. }
            | Write::Delete { holder }
            | Write::Acquire { holder, .. }
            | Write::SetAcl { holder, .. } => Some(&holder.name),
            Write::Create(_)
            | Write::Release { .. }
            | Write::CloseHandle { .. }
            | Write::OpenEphemeral { .. } => None,
        },
        _ => None,
    }
}

/// Applications that would be shown what a node was before, or what they may not see any more, as of now.
fn shown_still(world: &World, before: &State, after: &State, name: &Name) -> Vec<String> {
    let (was, is) = (before.node(name), after.node(name));
    let is_changed = was.map(|node| node.stat()) != is.map(|node| node.stat());
    if !is_changed {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for (index, client) in world.clients.iter().enumerate() {
        let node = NodeId::Client(index);
        if !world.lives[&node].is_up {
            continue;
        }
        let principal = script::principal(index);
        for shown in client.shows(world.local(node)).filter(|shown| is_void(after, shown, &principal, name)) {
            let (at, shown, as_of) = (after.position(), &shown.name, &shown.position);
            broken.push(format!(
                "P-LEASE: {name} was changed at {at} while {node} as {principal} could be shown {shown} as of {as_of} under its \
                 cache lease"
            ));
        }
    }
    broken
}

/// Whether that principal must not be shown that any more, after that node was changed.
pub fn is_void(after: &State, shown: &Shown, principal: &str, name: &Name) -> bool {
    let hangs_on = script::file_of_acl(&shown.stat.acls.read);
    let may = || after.node(name).is_some_and(|node| acl::lists(&node.contents, principal));
    shown.name == *name || hangs_on.as_ref() == Some(name) && !may()
}
