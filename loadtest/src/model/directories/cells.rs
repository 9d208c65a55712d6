//! As little of a master around the two cells' states as these requests need.
//!
//! What a request becomes is decided as in `hasp_cell::master::requests` and `applying`: what can be refused or read is so
//! at once, the rest is a command, which is committed at once. No leases, queues or ACLs: nobody caches or waits here, and
//! everybody may do everything.

use hasp_cell::state::{ClientWrite, Command, Create, Holder, Outcome, State, Write};
use hasp_proto::crossing::{Anchor, CrossOp, Evidence, Root, SealTicket};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleBody;
use hasp_proto::id::{CellName, Epoch, SessionId};
use hasp_proto::item::ItemKinds;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Open, Reply, Request};
use hasp_proto::time::Time;

use crate::model::Omission;
use crate::model::crossing::cells::{self, CELLS, Commits};
use crate::model::hashed::Hashed;
use crate::model::world::Committed;

/// The cell that holds the node.
pub(super) const NODE: usize = 0;
/// The cell that holds the children.
pub(super) const CHILDREN: usize = 1;

/// What is below the directories in `/ls/dev/r` is spread over both cells.
pub(super) fn map() -> PartitionMap {
    cells::map(&[("/ls/dev", "a"), ("/ls/dev/r/*", "a b")])
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
    let owner = map().owner(&open.name).cloned().expect("in the map");
    let cell = CELLS.iter().position(|cell| *cell == owner.as_str()).expect("one of two");
    let handle = cells::handle(cell, open.name.clone(), stat.instance, stat.kind, session);
    Reply::Opened { handle, created, stat }
}
