//! What to tell a client of an outcome.

use hasp_proto::crossing::Anchor;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleBody;
use hasp_proto::node::Stat;
use hasp_proto::request::{Op, Reply};

use super::Actor;
use super::reading::Opening;
use crate::state::{Outcome, State};

/// What to tell the client of an outcome of its request.
pub fn reply_of(
    state: &State,
    actor: &Actor,
    op: &Op,
    outcome: Outcome,
    anchor: Anchor,
) -> Result<Reply, Error> {
    match outcome {
        Outcome::Needs(need) => actor.told_to_bring(need, anchor),
        Outcome::Created { created, stat } => {
            let Op::Open(open) = op else { return Err(other_request(actor)) };
            Ok(opened(state, actor, Opening::of(open), *stat, created))
        }
        Outcome::Written { content_generation, previous_generation } => {
            Ok(Reply::Written { content_generation, previous_generation })
        }
        Outcome::AclSet { acl_generation } => Ok(Reply::AclSet { acl_generation }),
        Outcome::Deleted => Ok(Reply::Deleted),
        Outcome::Acquired { .. } | Outcome::LockHeld | Outcome::LockDelayed { .. } => {
            lock_reply_of(actor, outcome, anchor)
        }
        Outcome::Released => Ok(Reply::Released),
        Outcome::Closed => Ok(Reply::Closed),
        Outcome::Failed(error) => Err(error),
        Outcome::Rejected(_) => Err(ErrorCode::Unavailable.because("the master changed")),
        Outcome::EpochBegun(_)
        | Outcome::SessionCreated { .. }
        | Outcome::SessionEnded { .. }
        | Outcome::ClientEnded { .. }
        | Outcome::Reaped { .. }
        | Outcome::ChecksumTaken { .. }
        | Outcome::Diverged { .. }
        | Outcome::Sealed(_)
        | Outcome::Noted => Err(other_request(actor)),
    }
}

/// What to tell a client of its try for a lock.
pub fn lock_reply_of(actor: &Actor, outcome: Outcome, anchor: Anchor) -> Result<Reply, Error> {
    match outcome {
        Outcome::Needs(need) => actor.told_to_bring(need, anchor),
        Outcome::Acquired { lock_generation, .. } => Ok(Reply::Acquired { lock_generation }),
        Outcome::LockHeld => Err(ErrorCode::LockHeld.because("somebody else holds the lock")),
        Outcome::LockDelayed { longest } => {
            Err(ErrorCode::LockDelayed { retry_after: longest }.because("the lock's last holder failed"))
        }
        Outcome::Failed(error) => Err(error),
        other => Err(ErrorCode::InvalidArgument
            .because(format!("the request's number was used for another: {other:?}"))),
    }
}

/// A number must not be used for two requests; a client that does gets no answer to the second.
fn other_request(actor: &Actor) -> Error {
    ErrorCode::InvalidArgument
        .because(format!("request number {} was used for another request", actor.number))
}

pub(super) fn opened(state: &State, actor: &Actor, opening: Opening, stat: Stat, created: bool) -> Reply {
    let genesis = state.genesis().expect("a cell that serves has begun");
    let handle = genesis.handle_key.seal(&HandleBody {
        cell: genesis.cell.clone(),
        name: opening.name,
        instance: stat.instance,
        kind: stat.kind,
        r#use: opening.r#use,
        session: actor.client,
        opened_by: actor.number,
        epoch: state.epoch(),
        lock_delay: opening.lock_delay,
        events: opening.events,
        ephemeral: stat.ephemeral,
    });
    Reply::Opened { handle, created, stat }
}
