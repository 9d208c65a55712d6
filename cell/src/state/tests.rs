//! The world that the tests of the state share: one cell, a log, and short names for commands.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{EndCause, Use};
use hasp_proto::stream::Role;

use super::*;

mod access;
mod clients;
mod crossing;
mod divergence;
mod ephemeral;
mod epochs;
mod genesis;
mod guards;
mod leases;
mod locks;
mod moving;
mod once;
mod quotas;
mod random;
mod snapshots;
mod system;
mod tree;

const DELAY: Duration = Duration::from_secs(10);
const FILE: &str = "/ls/dev/f";

fn name(text: &str) -> Name {
    Name::parse(text).expect("a good name")
}

/// Small numbers stand for sessions.
fn id(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn genesis(cell: &str, rules: &[(&str, &str)]) -> Genesis {
    let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into();
    Genesis {
        cell: CellName::new(cell),
        map: PartitionMap::new(1, "dev", rules.iter().copied(), cells).expect("a good map"),
        handle_key: HandleKey::new(Bytes::from_static(&[9; 32])),
    }
}

/// Who writes: a client, through whom, under which claim, as whom.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    session: u8,
    via: Option<u8>,
    claim: u64,
    principal: &'static str,
}

/// The session speaks for itself.
fn own(session: u8) -> Speaker {
    Speaker { session, via: None, claim: 1, principal: "somebody" }
}

/// The session speaks for itself, and is authenticated as this principal.
fn who(session: u8, principal: &'static str) -> Speaker {
    Speaker { principal, ..own(session) }
}

/// A proxy speaks for the client.
fn through(session: u8, proxy: u8, claim: u64) -> Speaker {
    Speaker { session, via: Some(proxy), claim, principal: "somebody" }
}

/// A cell, everything it was told, and the next request number of each client.
struct World {
    state: State,
    log: Vec<LogEntry>,
    numbers: BTreeMap<u8, u64>,
    /// The notes taken, with their indexes.
    checksums: Vec<(u64, u64)>,
}

impl World {
    /// Cell `a`, which owns all of `/ls/dev`, in its first epoch.
    fn new() -> Self {
        Self::of("a", &[("/ls/dev", "a")])
    }

    fn of(cell: &str, rules: &[(&str, &str)]) -> Self {
        Self::founded(genesis(cell, rules))
    }

    fn founded(genesis: Genesis) -> Self {
        let mut world =
            Self { state: State::default(), log: vec![], numbers: BTreeMap::new(), checksums: vec![] };
        let outcome = world.run(Command::MasterEpoch { replica: 1, genesis: Some(genesis) });
        assert_eq!(outcome, Outcome::EpochBegun(Epoch(1)));
        world
    }

    /// Runs one command under the current epoch, and looks whether all is well.
    fn run(&mut self, command: Command) -> Outcome {
        let entry = LogEntry { epoch: self.state.epoch(), commands: vec![command] };
        self.apply(entry).remove(0)
    }

    fn apply(&mut self, entry: LogEntry) -> Vec<Outcome> {
        let outcomes = self.state.apply(&entry);
        assert_eq!(outcomes.len(), entry.commands.len());
        self.log.push(entry);
        self.state.check_invariants();
        only_outcomes(outcomes)
    }

    /// What the state keeps of a client's request: the outcome, and the index at which it came about.
    fn kept(&self, session: u8, number: u64) -> Option<(u64, Outcome)> {
        let kept = self.state.answered(id(session), RequestNumber(number))?;
        Some((kept.position.index, kept.outcome.clone()))
    }

    fn session(&mut self, session: u8, role: Role) -> Outcome {
        self.run(create_session(session, role, 1))
    }

    fn end(&mut self, session: u8, cause: EndCause) -> Outcome {
        self.run(Command::EndSession { session: id(session), cause })
    }

    /// Everything that lingers is forgotten.
    fn forget(&mut self) {
        self.run(Command::Forget { since: self.state.index() });
    }

    /// Whether nothing hangs on what is known of a client.
    fn lingers(&self, session: u8) -> bool {
        self.state.client(id(session)).is_some_and(|record| record.lingers_since.is_some())
    }

    /// A write under the client's next number, with nothing settled.
    fn write(&mut self, speaker: Speaker, write: Write) -> Outcome {
        let number = self.numbers.entry(speaker.session).or_insert(0);
        *number += 1;
        let number = *number;
        self.write_as(speaker, number, 0, write)
    }

    fn write_as(&mut self, speaker: Speaker, number: u64, settled_below: u64, write: Write) -> Outcome {
        self.run(client_write(speaker, number, settled_below, write))
    }

    fn file(&mut self, by: u8, text: &str) -> Instance {
        created(&self.write(own(by), create(text, NodeKind::File)))
    }

    fn directory(&mut self, by: u8, text: &str) -> Instance {
        created(&self.write(own(by), create(text, NodeKind::Directory)))
    }

    /// The contents of a file, as `admin` of session `by`; made if it is not there.
    fn put(&mut self, by: u8, text: &str, contents: &str) -> Outcome {
        let contents = Bytes::copy_from_slice(contents.as_bytes());
        if self.state.node(&name(text)).is_none() {
            return self.write(
                who(by, "admin"),
                create_with(text, NodeKind::File, |create| create.contents = contents),
            );
        }
        let holder = self.handle(text, 1);
        self.write(who(by, "admin"), Write::SetContents { holder, contents, if_generation: None })
    }

    fn delete(&mut self, speaker: Speaker, text: &str, opened_by: u64) -> Outcome {
        let holder = self.handle(text, opened_by);
        self.write(speaker, Write::Delete { holder })
    }

    /// The handle `opened_by` on whatever bears the name now.
    fn handle(&self, text: &str, opened_by: u64) -> Holder {
        let instance = self.state.node(&name(text)).map_or(Instance(0), |node| node.instance);
        Holder { name: name(text), instance, opened_by: RequestNumber(opened_by), lock_delay: DELAY }
    }

    fn acquire(&mut self, speaker: Speaker, text: &str, opened_by: u64, mode: LockMode) -> Outcome {
        let holder = self.handle(text, opened_by);
        self.write(speaker, Write::Acquire { holder, mode })
    }

    fn node(&self, text: &str) -> &Node {
        self.state.node(&name(text)).expect("the node is there")
    }

    fn lock_generation(&self, text: &str) -> Generation {
        self.node(text).lock_generation
    }

    fn delays(&self) -> Vec<(String, u64)> {
        self.state.delayed_locks().map(|(name, _, began, _)| (name.to_string(), began)).collect()
    }
}

fn only_outcomes(applied: Vec<AppliedOutcome>) -> Vec<Outcome> {
    applied.into_iter().map(|applied| applied.outcome).collect()
}

fn create_session(session: u8, role: Role, claim: u64) -> Command {
    let advertise = if role.is_tier() { "host:1".into() } else { String::new() };
    let (session, principal, claim) = (id(session), "somebody".into(), Claim(claim));
    Command::CreateSession(CreateSession { session, role, principal, advertise, claim })
}

fn client_write(speaker: Speaker, number: u64, settled_below: u64, write: Write) -> Command {
    Command::ClientWrite(ClientWrite {
        session: id(speaker.session),
        via: speaker.via.map(id),
        claim: Claim(speaker.claim),
        number: RequestNumber(number),
        settled_below: RequestNumber(settled_below),
        principal: speaker.principal.into(),
        guard: None,
        evidence: None,
        write,
    })
}

fn create(text: &str, kind: NodeKind) -> Write {
    create_with(text, kind, |_| ())
}

fn create_with(text: &str, kind: NodeKind, change: impl FnOnce(&mut Create)) -> Write {
    let mut create = Create {
        name: name(text),
        must: true,
        kind,
        contents: Bytes::new(),
        ephemeral: false,
        acls: None,
        r#use: Use::WriteAndLock,
        relative_to: None,
    };
    change(&mut create);
    Write::Create(create)
}

fn acls(read: &str, write: &str, change: &str) -> AclNames {
    AclNames { read: read.into(), write: write.into(), change: change.into() }
}

fn created(outcome: &Outcome) -> Instance {
    match outcome {
        Outcome::Created { stat, .. } => stat.instance,
        other => panic!("not created: {other:?}"),
    }
}

fn set(holder: Holder, contents: &str) -> Write {
    let contents = Bytes::copy_from_slice(contents.as_bytes());
    Write::SetContents { holder, contents, if_generation: None }
}

#[track_caller]
fn assert_failed(outcome: &Outcome, code: &ErrorCode, detail: &str) {
    match outcome {
        Outcome::Failed(error) => {
            assert_eq!(&error.code, code, "{error}");
            assert!(error.detail.contains(detail), "{error}");
        }
        other => panic!("not refused with {code}: {other:?}"),
    }
}

#[track_caller]
fn assert_acquired(outcome: &Outcome) -> Generation {
    match outcome {
        Outcome::Acquired { lock_generation, .. } => *lock_generation,
        other => panic!("not acquired: {other:?}"),
    }
}
