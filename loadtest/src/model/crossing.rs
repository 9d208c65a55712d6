//! What the models of several cells have in common (`route-3`, `route-4`, `move-1` to `move-4`): two cells' states in
//! [`cells`], and in [`routers`] the routers between them, with what is on its way.
//!
//! ```text
//! client 1 ── router 1 ──┬── cell a          every queue keeps its order;
//! client 2 ── router 2 ──┴── cell b          what arrives next is open
//! ```
//!
//! A router that crashes leaves requests behind, which still arrive or do not; its clients ask again, under the same
//! number, through either router. No time passes: chores are told at any time, and who pauses goes on at any time.

pub mod cells;
pub mod routers;

use hasp_proto::request::{Op, Request};
use hasp_router::upstream::Ticket;

/// Where a client's request is.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub enum Waits {
    /// With a router.
    At(usize, Ticket),
    /// Nowhere: it has to be asked again.
    Nowhere,
}

/// What is asked, for a story.
pub fn told(request: &Request) -> String {
    let op = match &request.op {
        Op::Cross(op) => return format!(": {op:?}"),
        op => op,
    };
    let evidence = request.on_behalf.as_ref().and_then(|client| client.evidence.as_deref());
    let name = op.handle().and_then(|it| it.claimed_body()).map(|body| body.name);
    let name = if let Op::Open(open) = op { Some(open.name.clone()) } else { name };
    let name = name.map_or_else(String::new, |name| name.to_string());
    format!(": {} {name}, with {evidence:?}", op.name())
}
