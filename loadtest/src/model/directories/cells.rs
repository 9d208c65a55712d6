//! The two cells: production's state, and as little of a master around it as these requests need.
//!
//! What a request becomes is decided as in `hasp_cell::master::requests` and `applying`: what can be refused or read is so
//! at once, the rest is a command, which is committed at once. No leases, queues or ACLs: nobody caches or waits here, and
//! everybody may do everything.

use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use hasp_cell::state::{
    AppliedOutcome, ClientWrite, Command, Create, CreateSession, Genesis, Holder, LogEntry, Outcome, State,
    Write,
};
use hasp_proto::crossing::{Anchor, CrossOp, Evidence, Root, SealTicket};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Claim, Epoch, Instance, RequestNumber, SessionId, SessionKey};
use hasp_proto::item::ItemKinds;
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, OnBehalf, Op, Open, Reply, Request, Use};
use hasp_proto::stream::Role;
use hasp_proto::time::Time;

use crate::model::Omission;
use crate::model::hashed::{Hashed, fingerprint};
use crate::model::world::Committed;

/// The cell that holds the node.
pub(super) const NODE: usize = 0;
/// The cell that holds the children.
pub(super) const CHILDREN: usize = 1;
/// What they are called.
pub(super) const CELLS: [&str; 2] = ["a", "b"];
/// As whom everybody acts.
pub(super) const PRINCIPAL: &str = "somebody";
/// Steps that are remembered; then all are forgotten.
const STEPS_MAX: usize = 50_000;

/// What is below the directories in `/ls/dev/r` is spread over both cells.
pub(super) fn map() -> PartitionMap {
    let cells = CELLS.map(|cell| (CellName::new(cell), vec![format!("{cell}:1")])).into();
    PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/r/*", "a b")], cells).expect("a good map")
}

/// The directory that everything is about.
pub(super) fn directory() -> Name {
    let map = map();
    let names = (0..).map(|at| Name::parse(&format!("/ls/dev/r/x{at}")).expect("a good name"));
    let is_split = |name: &Name| map.children_owner(name).map(CellName::as_str) == Some(CELLS[CHILDREN]);
    names.into_iter().find(is_split).expect("one of many")
}

/// A child of it.
pub(super) fn child(of: &Name, number: u64) -> Name {
    of.child(&format!("f{number}")).expect("short")
}

fn handle_key() -> HandleKey {
    HandleKey::new(Bytes::from_static(&[9; 32]))
}

/// A client's id.
pub(super) fn client_id(client: usize) -> SessionId {
    SessionKey::new([u8::try_from(client).expect("few") + 100; 16]).id()
}

/// A client's handle of that node.
pub(super) fn handle(
    cell: usize,
    name: Name,
    instance: Instance,
    kind: NodeKind,
    client: usize,
) -> HandleToken {
    handle_key().seal(&HandleBody {
        cell: CellName::new(CELLS[cell]),
        name,
        instance,
        kind,
        r#use: Use::WriteAndLock,
        session: client_id(client),
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: LOCK_DELAY,
        events: EventMask::NONE,
        ephemeral: false,
    })
}

type Commit = (Hashed<Committed>, Arc<AppliedOutcome>);

/// What commands did to states before: a search meets the same again and again.
#[derive(Debug, Default)]
pub(super) struct Commits(DashMap<(u64, u64), Commit>);

impl Commits {
    fn commit(&self, cell: &mut Hashed<Committed>, command: Command) -> Arc<AppliedOutcome> {
        let key = (cell.print(), fingerprint(&command));
        if let Some(known) = self.0.get(&key) {
            let (after, outcome) = known.clone();
            *cell = after;
            return outcome;
        }
        let mut state = cell.state.clone();
        let entry = LogEntry { epoch: state.epoch(), commands: vec![command] };
        let outcome = Arc::new(state.apply(&entry).remove(0));
        state.check_invariants();
        let checksum = state.checksum();
        *cell = Hashed::new(Committed { state, checksum });
        if self.0.len() >= STEPS_MAX {
            self.0.clear();
        }
        self.0.insert(key, (cell.clone(), outcome.clone()));
        outcome
    }
}

/// A cell in its first epoch, to which these sessions of routers are known.
pub(super) fn begun(commits: &Commits, cell: usize, routers: &[SessionId]) -> Hashed<Committed> {
    let genesis = Genesis { cell: CellName::new(CELLS[cell]), map: map(), handle_key: handle_key() };
    let mut state = State::default();
    let command = Command::MasterEpoch { replica: 1, genesis: Some(genesis) };
    state.apply(&LogEntry { epoch: Epoch(0), commands: vec![command] });
    let checksum = state.checksum();
    let mut begun = Hashed::new(Committed { state, checksum });
    for session in routers {
        let create = CreateSession {
            session: *session,
            role: Role::Router,
            principal: PRINCIPAL.into(),
            advertise: "r:1".into(),
            claim: Claim(0),
        };
        commits.commit(&mut begun, Command::CreateSession(create));
    }
    begun
}

/// What a client behind a router asks.
pub(super) fn on_behalf(client: usize, number: u64, claim: u64) -> OnBehalf {
    OnBehalf {
        session: client_id(client),
        number: RequestNumber(number),
        settled_below: RequestNumber(number),
        claim: Claim(claim),
        principal: PRINCIPAL.into(),
        is_mover: false,
        evidence: None,
    }
}

/// What the master answers to a request on that session.
pub(super) fn answer(
    commits: &Commits,
    cell: &mut Hashed<Committed>,
    speaker: SessionId,
    request: &Request,
    omission: Option<Omission>,
) -> Answer {
    let (position, result) = match &request.op {
        Op::Cross(CrossOp::DescribeRoot(name)) => (cell.state.position(), described(&cell.state, name)),
        Op::Cross(op) => crossed(commits, cell, op, omission),
        op => written(commits, cell, speaker, request, op, omission),
    };
    Answer { number: request.number, position: Some(position), caches: ItemKinds::NONE, result }
}

fn described(state: &State, name: &Name) -> Result<Reply, Error> {
    let node = state.node(name).ok_or_else(|| ErrorCode::NotFound.because(name.to_string()))?;
    let (instance, acls, acl_generation) = (node.instance, (*node.acls).clone(), node.acl_generation);
    Ok(Reply::Root(Root { name: name.clone(), instance, acls, acl_generation, as_of: state.position() }))
}

fn crossed(
    commits: &Commits,
    cell: &mut Hashed<Committed>,
    op: &CrossOp,
    omission: Option<Omission>,
) -> (Position, Result<Reply, Error>) {
    let mut op = op.clone();
    match (omission, &mut op) {
        (Some(Omission::SealNotVoided), CrossOp::VoidSeals { name, instance, .. })
            if cell.state.node(name).is_some_and(|node| node.instance == *instance) =>
        {
            return (cell.state.position(), Ok(Reply::Noted));
        }
        (Some(Omission::EvidenceNotVoided), CrossOp::DropRoot { as_of, .. }) => as_of.index = 0,
        _ => {}
    }
    let is_seal = matches!(op, CrossOp::Seal { .. });
    let applied = commits.commit(cell, Command::Cross(op));
    let result = match applied.outcome.clone() {
        Outcome::Sealed(ticket) => Ok(Reply::Sealed(ticket)),
        Outcome::Failed(error)
            if is_seal
                && omission == Some(Omission::ChildrenNotLookedFor)
                && error.code == ErrorCode::NotEmpty =>
        {
            Ok(Reply::Sealed(SealTicket(applied.position.index)))
        }
        Outcome::Failed(error) => Err(error),
        _ => Ok(Reply::Noted),
    };
    (applied.position.clone(), result)
}

fn written(
    commits: &Commits,
    cell: &mut Hashed<Committed>,
    speaker: SessionId,
    request: &Request,
    op: &Op,
    omission: Option<Omission>,
) -> (Position, Result<Reply, Error>) {
    let client = request.on_behalf.as_ref().expect("a client's");
    let mut evidence = client.evidence.clone();
    let is_new = cell.state.answered(client.session, client.number).is_none();
    let write = match op {
        Op::Open(open) => create_of(open),
        Op::Delete(token) => {
            let HandleBody { name, instance, opened_by, lock_delay, .. } =
                token.claimed_body().expect("a handle");
            if is_new && cell.state.node(&name).is_none_or(|node| node.instance != instance) {
                let gone = ErrorCode::StaleHandle.because(format!("{name} was deleted"));
                return (cell.state.position(), Err(gone));
            }
            if omission == Some(Omission::DeletedUnsealed) {
                let seal = Some(SealTicket(u64::MAX));
                evidence = Some(Box::new(Evidence { seal, ..Evidence::default() }));
            }
            Write::Delete { holder: Holder { name, instance, opened_by, lock_delay } }
        }
        other => unreachable!("nobody asks that here: {other:?}"),
    };
    let write = ClientWrite {
        session: client.session,
        via: Some(speaker),
        claim: client.claim,
        number: client.number,
        settled_below: client.settled_below,
        principal: client.principal.clone(),
        guard: None,
        evidence,
        write,
    };
    let applied = commits.commit(cell, Command::ClientWrite(write));
    let anchor = Anchor { epoch: Epoch(1), at: Time::from_millis(0) };
    let result = match applied.outcome.clone() {
        Outcome::Needs(need) => Ok(Reply::Needs(need, anchor)),
        Outcome::Created { created, stat } => Ok(opened(op, client.session, created, *stat)),
        Outcome::Deleted => Ok(Reply::Deleted),
        Outcome::Failed(error) => Err(error),
        other => unreachable!("not of such a write: {other:?}"),
    };
    (applied.position.clone(), result)
}

fn create_of(open: &Open) -> Write {
    let create = open.create.as_ref().expect("nobody opens what is there");
    Write::Create(Create {
        name: open.name.clone(),
        must: create.must,
        kind: create.kind,
        contents: create.contents.clone(),
        ephemeral: create.ephemeral,
        acls: create.acls.clone(),
        r#use: open.r#use,
        relative_to: None,
    })
}

fn opened(op: &Op, session: SessionId, created: bool, stat: hasp_proto::node::Stat) -> Reply {
    let Op::Open(open) = op else { unreachable!("only they create") };
    let cell = map().owner(&open.name).cloned().expect("in the map");
    let handle = handle_key().seal(&HandleBody {
        cell,
        name: open.name.clone(),
        instance: stat.instance,
        kind: stat.kind,
        r#use: open.r#use,
        session,
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: open.lock_delay,
        events: EventMask::NONE,
        ephemeral: false,
    });
    Reply::Opened { handle, created, stat }
}
