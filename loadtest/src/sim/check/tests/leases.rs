//! Of `leases`.

use hasp_cell::state::{ClientWrite, Command, Create, CreateSession, LogEntry, State, Write};
use hasp_client::machine::{Shown, Used};
use hasp_proto::id::{Claim, RequestNumber, SessionId};
use hasp_proto::request::EndCause;
use hasp_proto::stream::Role;

use super::states::state;
use super::*;
use crate::sim::check::leases::{ended_early, is_void};
use crate::sim::world::NodeId;

const SESSION: SessionId = SessionId([1; 16]);

fn admission() -> Command {
    Command::CreateSession(CreateSession {
        session: SESSION,
        role: Role::Client,
        principal: "user1".into(),
        advertise: String::new(),
        claim: Claim(1),
    })
}

/// What is found when that ends a session, of which this node believes that it stands.
fn ends(command: &Command, believer: Option<NodeId>) -> Option<String> {
    let before = state(&[admission()]);
    let mut after = before.clone();
    after.apply(&LogEntry { epoch: Epoch(1), commands: vec![command.clone()] });
    ended_early(&before, &after, command, |session| believer.filter(|_| session == SESSION), &BTreeMap::new())
}

#[test]
fn a_session_that_is_ended_while_its_holder_believes_in_it_is_seen() {
    let failed = Command::EndSession { session: SESSION, cause: EndCause::Failed };

    assert_eq!(ends(&failed, None), None);

    for holder in [NodeId::Client(2), NodeId::Proxy(0)] {
        let broken = ends(&failed, Some(holder)).expect("seen");
        assert!(broken.contains(&format!("P-LEASE: the session of {holder} was ended at a/1/3")), "{broken}");
    }
}

#[test]
fn a_session_that_ends_by_its_holders_wish_or_was_gone_before_breaks_nothing() {
    let closed = Command::EndSession { session: SESSION, cause: EndCause::Closed };
    let other = Command::EndSession { session: SessionId([2; 16]), cause: EndCause::Failed };

    assert_eq!(ends(&closed, Some(NodeId::Client(2))), None);
    assert_eq!(ends(&other, Some(NodeId::Client(2))), None);
}

fn writes(number: u64, file: &str, contents: &'static str) -> Command {
    let create = Create {
        name: name(file),
        must: true,
        kind: NodeKind::File,
        contents: Bytes::from_static(contents.as_bytes()),
        ephemeral: false,
        acls: None,
        r#use: Use::WriteAndLock,
        relative_to: None,
    };
    Command::ClientWrite(ClientWrite {
        session: SESSION,
        via: None,
        claim: Claim(1),
        number: RequestNumber(number),
        settled_below: RequestNumber(1),
        principal: "admin".into(),
        guard: None,
        evidence: None,
        write: Write::Create(create),
    })
}

#[test]
fn what_is_changed_or_may_not_be_seen_any_more_must_not_be_shown() {
    let acls = AclNames { read: "a0".into(), ..AclNames::default() };
    let shown = Shown {
        name: name(FILE),
        instance: Instance(1),
        contents: Bytes::new(),
        stat: Stat { acls, ..stat(1) },
        position: at(1),
        cell: None,
        used: Used::default(),
    };
    let after: State = state(&[admission(), writes(1, "/ls/dev/acl/a0", "user1\n# x")]);

    assert!(is_void(&after, &shown, "user1", &name(FILE)));
    assert!(!is_void(&after, &shown, "user1", &name("/ls/dev/acl/a0")));
    assert!(is_void(&after, &shown, "user2", &name("/ls/dev/acl/a0")));
    assert!(!is_void(&after, &shown, "user2", &name("/ls/dev/f1")));
    assert!(!is_void(&after, &shown, "user2", &name("/ls/dev/acl/a1")));
}
