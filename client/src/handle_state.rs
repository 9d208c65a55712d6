//! What an open handle and the engine share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::calls::Calls;
use crate::core::{HandleNumber, OpenHandle};
use crate::node_events::Teller;
use crate::view::{Seen, View, Views};
use hasp_proto::name::Name;

/// One open handle. The engine keeps it until the handle is closed.
#[derive(Debug)]
pub(crate) struct HandleState {
    /// By what the core knows it.
    pub(crate) number: HandleNumber,
    /// The true name of its node.
    pub(crate) name: Name,
    pub(crate) calls: Calls,
    pub(crate) teller: Teller,
    pub(crate) view: Arc<View>,
    pub(crate) seen: Arc<Seen>,
    is_over: AtomicBool,
}

impl HandleState {
    pub(crate) fn new(opened: OpenHandle, views: &Views) -> Self {
        let OpenHandle { number, name, cell } = opened;
        let (view, seen) = views.of(&name, &cell);
        Self {
            number,
            name,
            calls: Calls::default(),
            teller: Teller::new(),
            view,
            seen,
            is_over: AtomicBool::new(false),
        }
    }

    /// Every call fails from here on; the core knows why.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether calls can succeed.
    pub(crate) fn is_good(&self) -> bool {
        !self.is_over.load(Ordering::Acquire) && self.calls.check().is_ok()
    }
}
