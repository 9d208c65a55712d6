//! Which handles' locks are wanted by somebody. A handle may be cloned, and its clones may ask for
//! the lock at the same time; to the service they are one holder.

use std::collections::BTreeMap;

use super::interface::HandleNumber;

/// What is known of the locks of some handles.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    handles: BTreeMap<HandleNumber, Wanted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// Callers that wait for it.
    waiting: usize,
    /// Requests without an answer, to take it or to give it back, whoever waits.
    under_way: usize,
    /// An answer said that it is held.
    is_granted: bool,
    /// Callers that were told that it is held.
    owners: usize,
}

impl Locks {
    /// A caller asks for the lock.
    pub(super) fn asked(&mut self, handle: HandleNumber) {
        let wanted = self.handles.entry(handle).or_default();
        wanted.waiting += 1;
        wanted.under_way += 1;
    }

    /// A caller goes away without an answer.
    pub(super) fn abandoned(&mut self, handle: HandleNumber) {
        self.change(handle, |wanted| wanted.waiting -= 1);
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

    /// The answer for a caller that has gone.
    pub(super) fn answered_to_nobody(&mut self, handle: HandleNumber, is_granted: bool) {
        self.change(handle, |wanted| {
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
        self.handles.entry(handle).or_default().under_way += 1;
    }

    /// A release is answered.
    pub(super) fn released(&mut self, handle: HandleNumber) {
        self.change(handle, |wanted| wanted.under_way -= 1);
    }

    /// The handle is no more.
    pub(super) fn forget(&mut self, handle: HandleNumber) {
        self.handles.remove(&handle);
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
        if wanted.under_way == 0 && !wanted.is_granted {
            self.handles.remove(&handle);
        }
    }
}
