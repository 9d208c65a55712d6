//! Log entries with one of every command, histories of a cell, and snapshots of it.

use std::time::Duration;

use bytes::Bytes;
use hasp_cell::state::{ClientWrite, Command, Create, CreateSession, Guard, Holder, LogEntry, State, Write};
use hasp_proto::id::{Claim, Epoch, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};
use hasp_proto::request::{EndCause, Use};
use hasp_proto::stream::Role;

use super::crossing;
use crate::protobuf::{Field, Message};
use crate::targets::state::{ADMIN, CLIENT, PROXY, cell};

type Named = (&'static str, Vec<u8>);

/// A client behind the proxy.
const BEHIND: SessionId = SessionId([4; 16]);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// Another host of that client.
const ANOTHER: SessionId = SessionId([9; 16]);

/// Tells a cell's history, and writes down the entries.
struct Story {
    state: State,
    number: u64,
    entries: Vec<LogEntry>,
}

impl Story {
    fn new() -> Self {
        Self { state: cell(), number: 0, entries: Vec::new() }
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let entry = LogEntry { epoch: self.state.epoch(), commands };
        self.state.apply(&entry);
        self.entries.push(entry);
    }

    fn command(&mut self, command: Command) {
        self.apply(vec![command]);
    }

    /// A proxy or router comes.
    fn host(&mut self, session: SessionId) {
        let (role, principal, advertise) = (Role::Router, "router".to_owned(), "router:1".to_owned());
        let create = CreateSession { session, role, principal, advertise, claim: Claim(1) };
        self.command(Command::CreateSession(create));
    }

    /// A write of the client, the proxy's client or the administrator; gives its number.
    fn write(&mut self, session: SessionId, guard: Option<Guard>, write: Write) -> RequestNumber {
        self.number += 1;
        let number = RequestNumber(self.number);
        let principal = if session == ADMIN { "admin" } else { "someone" };
        self.command(Command::ClientWrite(ClientWrite {
            session,
            via: (session == BEHIND).then_some(PROXY),
            claim: Claim(1),
            number,
            settled_below: RequestNumber(0),
            principal: principal.into(),
            guard,
            evidence: (session == BEHIND).then(|| Box::new(crossing::evidence())),
            write,
        }));
        number
    }

    fn create(&mut self, session: SessionId, text: &str, kind: NodeKind, ephemeral: bool) -> Holder {
        let acls = ephemeral.then(AclNames::default);
        let contents = Bytes::from_static(if kind == NodeKind::File { b"contents" } else { b"" });
        let (name, r#use) = (name(text), Use::WriteAndLock);
        let root = self::name("/ls/dev");
        let relative_to = self.node(&root).map(|instance| (root, instance));
        let create =
            Create { name: name.clone(), must: true, kind, contents, ephemeral, acls, r#use, relative_to };
        let opened_by = self.write(session, None, Write::Create(create));
        let instance = self.node(&name).unwrap_or_default();
        Holder { name, instance, opened_by, lock_delay: Duration::from_secs(10) }
    }

    fn node(&self, name: &Name) -> Option<Instance> {
        self.state.node(name).map(|node| node.instance)
    }

    fn encoded(&self) -> Vec<u8> {
        Message(self.entries.iter().map(|entry| Field::bytes(1, entry.encode())).collect()).encode()
    }
}

fn everyday() -> Story {
    let mut story = Story::new();
    let directory = story.create(CLIENT, "/ls/dev/d", NodeKind::Directory, false);
    let file = story.create(CLIENT, "/ls/dev/d/f", NodeKind::File, false);
    let contents = Bytes::from_static(b"new contents");
    story.write(CLIENT, None, Write::SetContents { holder: file.clone(), contents, if_generation: None });
    story.write(CLIENT, None, Write::Acquire { holder: file.clone(), mode: LockMode::Exclusive });
    let lock_generation = story.state.node(&file.name).expect("created").lock_generation;
    let guard = Guard {
        name: file.name.clone(),
        instance: file.instance,
        mode: LockMode::Exclusive,
        lock_generation,
    };
    let contents = Bytes::from_static(b"guarded");
    let if_generation = story.state.node(&file.name).map(|node| node.content_generation);
    story.write(CLIENT, Some(guard), Write::SetContents { holder: file.clone(), contents, if_generation });
    story.write(CLIENT, None, Write::Release { holder: file.clone() });
    let acls = AclNames { read: "admin".into(), ..AclNames::default() };
    story.write(ADMIN, None, Write::SetAcl { holder: file.clone(), acls, if_generation: None });
    story.write(CLIENT, None, Write::CloseHandle { holder: file.clone() });
    story.write(CLIENT, None, Write::Delete { holder: file });
    story.write(CLIENT, None, Write::Delete { holder: directory });
    story.command(Command::Settle(vec![(CLIENT, RequestNumber(4))]));
    story
}

fn between_cells() -> Story {
    let mut story = Story::new();
    for op in crossing::ops() {
        story.command(Command::Cross(op));
    }
    story
}

fn troubled() -> Story {
    let mut story = Story::new();
    let file = story.create(BEHIND, "/ls/dev/f", NodeKind::File, false);
    let kept = story.create(BEHIND, "/ls/dev/e", NodeKind::File, true);
    story.write(BEHIND, None, Write::Acquire { holder: file.clone(), mode: LockMode::Shared });
    let opened = Holder { opened_by: RequestNumber(50), ..kept.clone() };
    story.write(CLIENT, None, Write::OpenEphemeral { holder: opened, r#use: Use::Read });
    story.write(CLIENT, None, Write::Acquire { holder: file.clone(), mode: LockMode::Shared });
    story.command(Command::EndClient {
        session: BEHIND,
        via: PROXY,
        claim: Claim(1),
        cause: EndCause::Failed,
    });
    story.create(BEHIND, "/ls/dev/g", NodeKind::File, true);
    story.command(Command::TakeChecksum);
    let (index, checksum) = (story.state.index(), story.state.checksum());
    story.command(Command::EndSession { session: PROXY, cause: EndCause::Failed });
    story.host(ANOTHER);
    story.command(Command::ClaimClient { session: BEHIND, via: ANOTHER, claim: Claim(2) });
    story.command(Command::EndSession { session: ANOTHER, cause: EndCause::Closed });
    let orphaned_at = story.state.index();
    story.command(Command::OrphanEnd { session: BEHIND, orphaned_at });
    let (session, cause) = (CLIENT, EndCause::Failed);
    story.command(Command::EndSession { session, cause });
    let began = story.state.index();
    story.command(Command::EndLockDelay { name: file.name, instance: file.instance, began });
    story.command(Command::Reap { name: kept.name, instance: kept.instance });
    story.command(Command::RaiseLeaseMax(Duration::from_secs(30)));
    story.command(Command::CompareChecksum { index, checksum: checksum ^ 1 });
    story.command(Command::MasterEpoch { replica: 2, genesis: None });
    story.host(PROXY);
    story
}

/// One entry with everything.
pub fn entries() -> Vec<Named> {
    let all = |story: Story| {
        let commands = story.entries.into_iter().flat_map(|entry| entry.commands).collect();
        LogEntry { epoch: Epoch(1), commands }.encode().to_vec()
    };
    vec![
        ("everyday", all(everyday())),
        ("troubled", all(troubled())),
        ("between-cells", all(between_cells())),
        ("nothing", Vec::new()),
    ]
}

/// What happens in a cell.
pub fn histories() -> Vec<Named> {
    vec![
        ("everyday", everyday().encoded()),
        ("troubled", troubled().encoded()),
        ("between-cells", between_cells().encoded()),
    ]
}

/// States in the middle of histories.
pub fn snapshots() -> Vec<Named> {
    let snapshot = |story: &Story, entries: usize| {
        let mut state = cell();
        for entry in &story.entries[..entries] {
            state.apply(entry);
        }
        Message(state.write_snapshot().into_iter().map(|record| Field::bytes(1, record)).collect()).encode()
    };
    let (everyday, troubled) = (everyday(), troubled());
    vec![
        ("new", snapshot(&everyday, 0)),
        ("everyday", snapshot(&everyday, 5)),
        ("in-use", snapshot(&troubled, 6)),
        ("orphaned", snapshot(&troubled, 7)),
        ("ended", snapshot(&troubled, troubled.entries.len())),
        ("between-cells", snapshot(&between_cells(), 9)),
    ]
}
