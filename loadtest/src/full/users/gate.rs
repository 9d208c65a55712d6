//! What an ACL guards: one client changes the ACL, and the others try to open it.

use hasp_client::{AclNames, CallError, Client, ErrorCode, Handle, OpenOptions};

use super::Session;
use crate::full::history::Knock;
use crate::full::journal::now;
use crate::full::layout::Spread;

/// The ACL's file.
pub const ACL: &str = "/ls/dev/acl/gate";

/// A client's part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Changes the ACL.
    Keeper,
    /// Comes in if it may.
    Guest,
}

/// Makes the ACL and what it guards, if they are not there. The ACL's file.
///
/// # Errors
/// If that is refused.
pub(super) async fn build(client: &Client, walled: &str) -> Result<Handle, CallError> {
    let acl = client.open(ACL, OpenOptions::create_file("")).await?.handle;
    let acls = AclNames { read: "gate".into(), write: "admin".into(), change: "admin".into() };
    match client.open(walled, OpenOptions::create_file("").acls(acls).must_create()).await {
        Err(error) if !matches!(error.code, ErrorCode::AlreadyExists | ErrorCode::StaleHandle) => Err(error),
        _ => Ok(acl),
    }
}

impl Session<'_> {
    /// Lets everybody in, or nobody; who does not keep the gate tries to come in.
    pub(super) async fn pass_gate(&mut self) {
        if self.acl.is_some() {
            let lets_in = if self.rng.below(2) == 0 { "*" } else { "" };
            // A comment, so that no two are the same, begins after a blank.
            let contents = format!("{lets_in} # {}", self.token());
            return self.write(ACL, contents, None, None).await;
        }
        // Only routers tell a cell of ACLs that it does not have.
        if self.user.shape.spread == Spread::One || self.user.plan.is_behind_proxies {
            self.knock().await;
        }
    }

    async fn knock(&mut self) {
        self.user.at("open what an ACL guards");
        let begun = now();
        let (is_allowed, position) = match self.client.open(self.places().walled, OpenOptions::read()).await {
            Ok(opened) => (true, opened.position),
            Err(error) if error.code == ErrorCode::PermissionDenied => (false, error.position),
            // Its keeper has not come yet.
            Err(error) if error.code == ErrorCode::NotFound => return self.succeeded(),
            Err(error) => return self.failed("open what an ACL guards", &error),
        };
        self.journal().knocked(Knock { client: self.number, begun, ended: now(), is_allowed, position });
        self.succeeded();
    }
}
