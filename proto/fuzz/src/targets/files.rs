//! Files in the tree that the cell itself reads.

use bytes::Bytes;
use hasp_cell::state::{
    Access, AppliedOutcome, ClientWrite, Command, Create, LogEntry, Outcome, State, Who, Write,
};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{Claim, RequestNumber};
use hasp_proto::limits::CONTENTS_BYTES_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind};
use hasp_proto::request::Use;

use super::state::{ADMIN, cell, check_snapshot};
use crate::target::Verdict;

/// Contents of an ACL file, which then guards a node.
pub fn acl(contents: &[u8]) -> Verdict {
    read(contents, "/ls/dev/acl/fuzzed", |state| {
        let acls = AclNames { read: "fuzzed".into(), write: "fuzzed".into(), change: "fuzzed".into() };
        let guarded = Create { acls: Some(acls), ..create("/ls/dev/guarded", b"") };
        let AppliedOutcome { outcome, .. } = apply(state, 2, guarded);
        assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{outcome:?}");
        let name = name("/ls/dev/guarded");
        for principal in ["admin", "someone", "*", "", "#", "a b"] {
            let _ = state.check_access(&name, Who::alone(principal), Access::Read);
        }
    })
}

/// Contents of the file of quotas, under which nodes are then made.
pub fn quotas(contents: &[u8]) -> Verdict {
    read(contents, "/ls/dev/.hasp/quotas", |state| {
        for (number, (text, bytes)) in
            (2..).zip([("/ls/dev/x", &b""[..]), ("/ls/dev/y", b"ten bytes."), ("/ls/dev/z", b"more")])
        {
            let AppliedOutcome { outcome, .. } = apply(state, number, create(text, bytes));
            let is_full =
                matches!(&outcome, Outcome::Failed(error) if error.code == ErrorCode::QuotaExceeded);
            assert!(is_full || matches!(outcome, Outcome::Created { .. }), "{outcome:?}");
        }
    })
}

/// Writes a file that the cell reads; if the contents are good, does something that they bear on.
fn read(contents: &[u8], file: &str, use_it: impl FnOnce(&mut State)) -> Verdict {
    let mut state = cell();
    let applied = apply(&mut state, 1, create(file, contents));
    let verdict = match applied.outcome {
        Outcome::Created { .. } => {
            use_it(&mut state);
            Verdict::taken("good")
        }
        Outcome::Failed(error) => {
            let is_large = contents.len() > CONTENTS_BYTES_MAX;
            assert!(is_large || error.code == ErrorCode::InvalidArgument, "{error}");
            assert!(is_large || error.detail.contains("line "), "an error names the line: {error}");
            Verdict::refused(error.detail)
        }
        other => panic!("{other:?}"),
    };
    state.check_invariants();
    check_snapshot(&state);
    verdict
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn create(text: &str, contents: &[u8]) -> Create {
    Create {
        name: name(text),
        must: true,
        kind: NodeKind::File,
        contents: Bytes::copy_from_slice(contents),
        ephemeral: false,
        acls: None,
        r#use: Use::WriteAndLock,
        relative_to: None,
    }
}

fn apply(state: &mut State, number: u64, create: Create) -> AppliedOutcome {
    let write = ClientWrite {
        session: ADMIN,
        via: None,
        claim: Claim(1),
        number: RequestNumber(number),
        settled_below: RequestNumber(0),
        principal: "admin".into(),
        guard: None,
        evidence: None,
        write: Write::Create(create),
    };
    let entry = LogEntry { epoch: state.epoch(), commands: vec![Command::ClientWrite(write)] };
    state.apply(&entry).remove(0)
}
