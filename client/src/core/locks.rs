//! Which handles' locks are wanted by somebody. A handle may be cloned, and its clones may ask for
//! the lock at the same time; to the service they are one holder.
//!
//! What a caller asked for before it went away may be granted all the same. It is given back then, but until that is known
//! the service would refuse the other mode to the same handle: who asks for that waits here, as does whoever asks before a
//! release is answered.

use std::collections::BTreeMap;
use std::mem;

use hasp_proto::node::LockMode;

use super::interface::{Call, CallId, HandleNumber};

/// What is known of the locks of some handles.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    handles: BTreeMap<HandleNumber, Wanted>,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    /// Callers that wait for it.
    waiting: usize,
    /// Requests without an answer, to take it or to give it back, whoever waits.
    under_way: usize,
    /// An answer said that it is held.
    is_granted: bool,
    /// Callers that were told that it is held.
    owners: usize,
    /// Releases without an answer.
    releases: usize,
    /// In which modes callers asked that went away before the answer.
    abandoned: Vec<LockMode>,
    /// Calls for the lock that go out once what is under way cannot confuse them any more.
    held_back: Vec<(CallId, Call)>,
}

impl Wanted {
    /// Whether the lock may be held in the other mode, for nobody, or a release that overtakes may free what is asked for now.
    fn is_unsettled(&self, mode: LockMode) -> bool {
        self.releases > 0 || self.abandoned.iter().any(|abandoned| *abandoned != mode)
    }
}

impl Locks {
    /// A caller asks for the lock.
    pub(super) fn asked(&mut self, handle: HandleNumber) {
        let wanted = self.handles.entry(handle).or_default();
        wanted.waiting += 1;
        wanted.under_way += 1;
    }

    /// A caller that asked for that mode goes away without an answer.
    pub(super) fn abandoned(&mut self, handle: HandleNumber, mode: LockMode) {
        self.change(handle, |wanted| {
            wanted.waiting -= 1;
            wanted.abandoned.push(mode);
        });
    }

    /// Keeps a call for the lock in that mode from the service, as long as what others asked for before they went away
    /// may be granted in the other one, and as long as a release is not answered: requests that are routed anew, because
    /// the name has moved, may overtake each other. Whether it does.
    pub(super) fn hold_back(&mut self, handle: HandleNumber, mode: LockMode, call: (CallId, &Call)) -> bool {
        let wanted = self.handles.get_mut(&handle);
        let Some(wanted) = wanted.filter(|wanted| wanted.is_unsettled(mode)) else { return false };
        wanted.held_back.push((call.0, call.1.clone()));
        true
    }

    /// The calls that were held back, to be looked at again.
    pub(super) fn take_held_back(&mut self, handle: HandleNumber) -> Vec<(CallId, Call)> {
        let mut held_back = Vec::new();
        self.change(handle, |wanted| held_back = mem::take(&mut wanted.held_back));
        held_back
    }

    /// A call that was held back goes away; whether it was.
    pub(super) fn abandoned_here(&mut self, call: CallId) -> bool {
        self.handles.values_mut().any(|wanted| {
            let before = wanted.held_back.len();
            wanted.held_back.retain(|(waiting, _)| *waiting != call);
            wanted.held_back.len() < before
        })
    }

    /// A caller has its answer.
    pub(super) fn answered(&mut self, handle: HandleNumber, is_granted: bool) {
        self.change(handle, |wanted| {
            wanted.waiting -= 1;
            wanted.under_way -= 1;
            wanted.is_granted |= is_granted;
            wanted.owners += usize::from(is_granted);
        });
    }

    /// A caller went away before it heard that the lock is held.
    pub(super) fn unheard(&mut self, handle: HandleNumber) {
        self.change(handle, |wanted| wanted.owners = wanted.owners.saturating_sub(1));
    }

    /// The answer for a caller that has gone, which had asked for that mode.
    pub(super) fn answered_to_nobody(&mut self, handle: HandleNumber, mode: LockMode, is_granted: bool) {
        self.change(handle, |wanted| {
            let index = wanted.abandoned.iter().position(|abandoned| *abandoned == mode);
            wanted.abandoned.swap_remove(index.expect("it was counted when it went"));
            wanted.under_way -= 1;
            wanted.is_granted |= is_granted;
        });
    }

    /// The lock is released, from here on.
    pub(super) fn given_up(&mut self, handle: HandleNumber) {
        self.change(handle, |wanted| {
            wanted.is_granted = false;
            wanted.owners = 0;
        });
    }

    /// A release is sent.
    pub(super) fn releasing(&mut self, handle: HandleNumber) {
        self.given_up(handle);
        let wanted = self.handles.entry(handle).or_default();
        wanted.under_way += 1;
        wanted.releases += 1;
    }

    /// A release is answered.
    pub(super) fn released(&mut self, handle: HandleNumber) {
        self.change(handle, |wanted| {
            wanted.under_way -= 1;
            wanted.releases -= 1;
        });
    }

    /// The handle is no more. Returns the calls that were held back.
    pub(super) fn forget(&mut self, handle: HandleNumber) -> Vec<(CallId, Call)> {
        self.handles.remove(&handle).map(|wanted| wanted.held_back).unwrap_or_default()
    }

    /// Whether the lock is held and nobody knows or will know of it.
    pub(super) fn is_unwanted(&self, handle: HandleNumber) -> bool {
        let wanted = self.handles.get(&handle);
        wanted.is_some_and(|wanted| wanted.is_granted && wanted.owners == 0 && wanted.waiting == 0)
    }

    /// Whether the lock is held, or may become so.
    pub(super) fn is_concerned(&self, handle: HandleNumber) -> bool {
        self.handles.contains_key(&handle)
    }

    fn change(&mut self, handle: HandleNumber, change: impl FnOnce(&mut Wanted)) {
        let Some(wanted) = self.handles.get_mut(&handle) else { return };
        change(wanted);
        if wanted.under_way == 0 && !wanted.is_granted && wanted.held_back.is_empty() {
            self.handles.remove(&handle);
        }
    }
}
