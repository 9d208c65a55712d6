//! Sequencers: made for who holds a lock, and judged for whoever shows one.

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::name::Name;
use hasp_proto::request::Reply;
use hasp_proto::sequencer::{SequencerBody, SequencerToken};

use super::check_is_here;
use crate::state::{Guard, HolderId, Refusal, State};

pub(super) fn sequencer(state: &State, name: &Name, holder: HolderId) -> Result<Reply, Error> {
    let not_held = || ErrorCode::LockNotHeld.because("this handle does not hold the lock");
    let node = state.node(name).filter(|node| node.lock.is_held_by(holder)).ok_or_else(not_held)?;
    let genesis = state.genesis().expect("a cell that serves has begun");
    Ok(Reply::Sequencer(genesis.handle_key.seal_sequencer(&SequencerBody {
        cell: genesis.cell.clone(),
        name: name.clone(),
        instance: node.instance,
        mode: node.lock.mode().ok_or_else(not_held)?,
        lock_generation: node.lock_generation,
    })))
}

/// What a sequencer of this cell says.
pub(super) fn guard_of(state: &State, token: &SequencerToken) -> Result<Guard, Refusal> {
    let Some(body) = state.open_sequencer(token) else {
        // Of a lock that is on its way here, or was never here, nothing can be said.
        if let Ok(claimed) = token.claimed_body() {
            check_is_here(state, &claimed.name)?;
        }
        return Err(ErrorCode::SequencerInvalid.because("not a sequencer of this cell").into());
    };
    let SequencerBody { cell: _, name, instance, mode, lock_generation } = body;
    state.check_cell(&name)?;
    Ok(Guard { name, instance, mode, lock_generation })
}

/// A sequencer of this cell whose acquisition stands.
pub(super) fn standing(state: &State, token: &SequencerToken) -> Result<Guard, Refusal> {
    let guard = guard_of(state, token)?;
    if state.sequencer_stands(&guard) { Ok(guard) } else { Err(does_not_stand(&guard).into()) }
}

pub(super) fn does_not_stand(guard: &Guard) -> Error {
    let Guard { name, lock_generation, .. } = guard;
    let detail = format!("acquisition {lock_generation} of {name} does not stand any more");
    ErrorCode::SequencerInvalid.because(detail)
}
