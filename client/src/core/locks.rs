//! Which handles' locks are wanted by somebody. A handle may be cloned, and its clones may ask for
//! the lock at the same time; to the service they are one holder.

use std::collections::BTreeMap;

use hasp_proto::handle::HandleToken;

/// What is known of the locks of some handles. By the handle's bytes.
#[derive(Debug, Default)]
pub(super) struct Locks {
    handles: BTreeMap<bytes::Bytes, Wanted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// Callers that wait for it.
    waiting: usize,
    /// An answer said that it is held.
    is_granted: bool,
    /// Callers that were told that it is held.
    owners: usize,
}

impl Locks {
    /// A caller asks for the lock.
    pub(super) fn asked(&mut self, handle: &HandleToken) {
        self.handles.entry(handle.as_bytes().clone()).or_default().waiting += 1;
    }

    /// A caller goes away without an answer.
    pub(super) fn abandoned(&mut self, handle: &HandleToken) {
        self.change(handle, |wanted| wanted.waiting -= 1);
    }

    /// A caller has its answer.
    pub(super) fn answered(&mut self, handle: &HandleToken, is_granted: bool) {
        self.change(handle, |wanted| {
            wanted.waiting -= 1;
            wanted.is_granted |= is_granted;
            wanted.owners += usize::from(is_granted);
        });
    }

    /// A caller went away before it heard that the lock is held.
    pub(super) fn unheard(&mut self, handle: &HandleToken) {
        self.change(handle, |wanted| wanted.owners = wanted.owners.saturating_sub(1));
    }

    /// The lock was granted to a caller that has gone.
    pub(super) fn granted_to_nobody(&mut self, handle: &HandleToken) {
        self.handles.entry(handle.as_bytes().clone()).or_default().is_granted = true;
    }

    /// The lock is released, or its handle closed.
    pub(super) fn given_up(&mut self, handle: &HandleToken) {
        self.change(handle, |wanted| {
            wanted.is_granted = false;
            wanted.owners = 0;
        });
    }

    /// Whether the lock is held and nobody knows or will know of it.
    pub(super) fn is_unwanted(&self, handle: &HandleToken) -> bool {
        let wanted = self.handles.get(handle.as_bytes());
        wanted.is_some_and(|wanted| wanted.is_granted && wanted.owners == 0 && wanted.waiting == 0)
    }

    fn change(&mut self, handle: &HandleToken, change: impl FnOnce(&mut Wanted)) {
        let Some(wanted) = self.handles.get_mut(handle.as_bytes()) else { return };
        change(wanted);
        if wanted.waiting == 0 && !wanted.is_granted {
            self.handles.remove(handle.as_bytes());
        }
    }
}
