//! P-LEASE: a session is not ended by others while its holder believes, by its own clock, that its lease runs.

use hasp_cell::state::{Command, State};
use hasp_proto::id::SessionId;
use hasp_proto::request::EndCause;

use super::super::world::World;

/// What a command that was committed broke.
pub fn ended(world: &World, before: &State, after: &State, command: &Command) -> Option<String> {
    let session = failed(before, after, command)?;
    let believer = world.believer(session)?;
    let claimed = world.claims.get(&session);
    let moved = match command {
        Command::EndClient { claim, .. } if claimed.is_some_and(|newest| newest > claim) => {
            ", for a host that it had left; where it was, it was believed alive"
        }
        _ => "",
    };
    Some(format!(
        "P-LEASE: the session of c{} was ended by {command:?} while its lease ran{moved}",
        believer + 1
    ))
}

/// Whose session, or whose locks and nodes, that command took away.
fn failed(before: &State, after: &State, command: &Command) -> Option<SessionId> {
    match command {
        Command::EndSession { session, cause: EndCause::Failed } => {
            (before.session(*session).is_some() && after.session(*session).is_none()).then_some(*session)
        }
        Command::EndClient { session, cause: EndCause::Failed, .. } | Command::OrphanEnd { session, .. } => {
            (before.client(*session).is_some() && after.client(*session).is_none()).then_some(*session)
        }
        _ => None,
    }
}
