//! Locks that stay held after their release, until somebody else wants them (`lock-5`).
//!
//! ```text
//! not held -- acquired at the cell --> in use -- released --> kept -- acquired --> in use
//!     ^                                  |  '- conflict: wanted   '- conflict --.
//!     '------ the cell's answer ----- giving <-- released, if wanted -----------'
//! ```
//!
//! Who acquires while the lock is being given up waits for the cell's answer, and then stands in line
//! like everybody else.

use std::collections::BTreeMap;

use hasp_proto::id::Generation;
use hasp_proto::node::LockMode;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Reply};

use super::interface::{Call, CallId, HandleNumber};

/// What is known of the locks of handles that keep them.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptLocks {
    handles: BTreeMap<HandleNumber, Kept>,
}

/// How often a handle's lock was given back: answers about the lock from before a release say nothing
/// of it after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Releases(u64);

#[derive(Clone, Debug, Default)]
struct Kept {
    state: State,
    releases: Releases,
    /// Somebody else wants the lock, or may.
    is_wanted: bool,
    /// Acquire it once it is given up.
    waiting: Vec<(CallId, Call)>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    NotHeld,
    InUse(Held),
    Kept(Held),
    Giving,
}

#[derive(Clone, Debug)]
struct Held {
    mode: LockMode,
    generation: Generation,
    position: Option<Position>,
}

/// What to do about an `Acquire`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acquiring {
    /// Ask the cell.
    Ask,
    /// It is held: this acquisition, made there, goes on.
    Granted(Generation, Option<Position>),
    /// It is being given up; the call waits here.
    Wait,
    /// It has to be given up first; the call waits here.
    GiveUp,
}

/// What to do about a `Release`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Releasing {
    /// Ask the cell.
    Ask,
    /// It is kept, and that is all.
    Keep,
    /// It was released before.
    NotHeld,
}

impl KeptLocks {
    /// The handle keeps its lock from here on.
    pub(super) fn add(&mut self, handle: HandleNumber) {
        self.handles.insert(handle, Kept::default());
    }

    /// The handle is closed or over. Returns the calls that waited.
    pub(super) fn remove(&mut self, handle: HandleNumber) -> Vec<(CallId, Call)> {
        self.handles.remove(&handle).map(|kept| kept.waiting).unwrap_or_default()
    }

    /// The lock is asked for. `is_safe`: what is held is held.
    pub(super) fn acquire(
        &mut self,
        handle: HandleNumber,
        mode: LockMode,
        is_safe: bool,
        call: (CallId, &Call),
    ) -> Acquiring {
        let Some(kept) = self.handles.get_mut(&handle) else { return Acquiring::Ask };
        match &kept.state {
            State::NotHeld | State::InUse(_) => return Acquiring::Ask,
            State::Kept(held) if held.mode == mode && is_safe && call.1.guard.is_none() => {
                let held = held.clone();
                kept.state = State::InUse(held.clone());
                return Acquiring::Granted(held.generation, held.position);
            }
            State::Kept(_) | State::Giving => {}
        }
        kept.waiting.push((call.0, call.1.clone()));
        if matches!(kept.state, State::Giving) { Acquiring::Wait } else { Acquiring::GiveUp }
    }

    /// How often the lock was given back.
    pub(super) fn releases(&self, handle: HandleNumber) -> Releases {
        self.handles.get(&handle).map(|kept| kept.releases).unwrap_or_default()
    }

    /// The cell has answered an `Acquire` that was sent after so many releases.
    pub(super) fn answered(
        &mut self,
        handle: HandleNumber,
        mode: LockMode,
        releases: Releases,
        answer: &Answer,
    ) {
        let Some(kept) = self.handles.get_mut(&handle) else { return };
        if let Ok(Reply::Acquired { lock_generation }) = &answer.result
            && kept.releases == releases
        {
            let held = Held { mode, generation: *lock_generation, position: answer.position.clone() };
            kept.state = State::InUse(held);
        }
    }

    /// The lock is released by the application.
    pub(super) fn release(&mut self, handle: HandleNumber, is_safe: bool) -> Releasing {
        let Some(kept) = self.handles.get_mut(&handle) else { return Releasing::Ask };
        match &kept.state {
            State::InUse(held) if is_safe && !kept.is_wanted => {
                kept.state = State::Kept(held.clone());
                Releasing::Keep
            }
            State::InUse(_) | State::NotHeld => Releasing::Ask,
            State::Kept(_) | State::Giving => Releasing::NotHeld,
        }
    }

    /// Somebody else wants the lock, or may. `true`: it is to be given up, since nobody uses it.
    pub(super) fn wanted(&mut self, handle: HandleNumber) -> bool {
        let Some(kept) = self.handles.get_mut(&handle) else { return false };
        kept.is_wanted = true;
        matches!(kept.state, State::Kept(_))
    }

    /// The lock is being given up at the cell.
    pub(super) fn giving(&mut self, handle: HandleNumber) {
        if let Some(kept) = self.handles.get_mut(&handle) {
            kept.state = State::Giving;
            kept.releases.0 += 1;
        }
    }

    /// The cell has answered that. Returns the calls that waited.
    pub(super) fn given(&mut self, handle: HandleNumber) -> Vec<(CallId, Call)> {
        let Some(kept) = self.handles.get_mut(&handle) else { return Vec::new() };
        kept.state = State::NotHeld;
        kept.is_wanted = false;
        std::mem::take(&mut kept.waiting)
    }

    /// Whether the lock is held for the application, or being given up, and nobody uses it.
    pub(super) fn is_idle(&self, handle: HandleNumber) -> bool {
        self.handles.get(&handle).is_some_and(|kept| matches!(kept.state, State::Kept(_) | State::Giving))
    }

    /// The call does not wait any more; whether it did.
    pub(super) fn abandoned(&mut self, call: CallId) -> bool {
        self.handles.values_mut().any(|kept| {
            let before = kept.waiting.len();
            kept.waiting.retain(|(waiting, _)| *waiting != call);
            kept.waiting.len() < before
        })
    }
}
