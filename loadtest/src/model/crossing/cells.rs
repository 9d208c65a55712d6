//! Two cells' states: production's, each in its first epoch. A command is committed at once. What a master decides before
//! that, each model plays for the requests that it has.

use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use hasp_cell::state::{AppliedOutcome, Command, CreateSession, Genesis, LogEntry, State};
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Claim, Epoch, Instance, RequestNumber, SessionId, SessionKey};
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{OnBehalf, Use};
use hasp_proto::stream::Role;

use crate::model::hashed::{Hashed, fingerprint};
use crate::model::world::Committed;

/// What the cells are called.
pub const CELLS: [&str; 2] = ["a", "b"];
/// As whom everybody acts.
pub const PRINCIPAL: &str = "somebody";
/// All handles are of the client's first request.
pub const OPENED_BY: RequestNumber = RequestNumber(1);
/// Steps that are remembered; then all are forgotten.
const STEPS_MAX: usize = 50_000;

/// These rules, for both cells.
///
/// # Panics
/// If they are no good map.
pub fn map(rules: &[(&str, &str)]) -> PartitionMap {
    let cells = CELLS.map(|cell| (CellName::new(cell), vec![format!("{cell}:1")])).into();
    PartitionMap::new(1, "dev", rules.iter().copied(), cells).expect("a good map")
}

/// Each cell has its own.
fn handle_key(cell: usize) -> HandleKey {
    HandleKey::new(Bytes::copy_from_slice(&[u8::try_from(cell).expect("few") + 9; 32]))
}

/// A client's id.
///
/// # Panics
/// If there are very many.
pub fn client_id(client: usize) -> SessionId {
    SessionKey::new([u8::try_from(client).expect("few") + 100; 16]).id()
}

/// A handle of that node, which that cell made for that client.
pub fn handle(
    cell: usize,
    name: Name,
    instance: Instance,
    kind: NodeKind,
    session: SessionId,
) -> HandleToken {
    handle_key(cell).seal(&HandleBody {
        cell: CellName::new(CELLS[cell]),
        name,
        instance,
        kind,
        r#use: Use::WriteAndLock,
        session,
        opened_by: OPENED_BY,
        epoch: Epoch(1),
        lock_delay: LOCK_DELAY,
        events: EventMask::NONE,
        ephemeral: false,
    })
}

/// What a client behind a router asks. All that is below its number is settled.
pub fn on_behalf(client: usize, number: u64, claim: u64) -> OnBehalf {
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

type Commit = (Hashed<Committed>, Arc<AppliedOutcome>);

/// What commands did to states before: a search meets the same again and again.
#[derive(Debug, Default)]
pub struct Commits(DashMap<(u64, u64), Commit>);

impl Commits {
    /// The cell's log does it.
    pub fn commit(&self, cell: &mut Hashed<Committed>, command: Command) -> Arc<AppliedOutcome> {
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

    /// A cell in its first epoch, to which these sessions of routers are known.
    pub fn begun(&self, cell: usize, map: PartitionMap, routers: &[SessionId]) -> Hashed<Committed> {
        let genesis = Genesis { cell: CellName::new(CELLS[cell]), map, handle_key: handle_key(cell) };
        let mut state = State::default();
        let command = Command::MasterEpoch { replica: 1, genesis: Some(genesis) };
        state.apply(&LogEntry { epoch: Epoch(0), commands: vec![command] });
        let checksum = state.checksum();
        let mut begun = Hashed::new(Committed { state, checksum });
        for session in routers {
            self.connect(&mut begun, *session, Role::Router, PRINCIPAL);
        }
        begun
    }

    /// Somebody has a session there.
    pub fn connect(&self, cell: &mut Hashed<Committed>, session: SessionId, role: Role, principal: &str) {
        let (principal, advertise, claim) = (principal.into(), "r:1".into(), Claim(0));
        let create = CreateSession { session, role, principal, advertise, claim };
        self.commit(cell, Command::CreateSession(create));
    }
}
