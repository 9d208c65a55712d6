//! What each session did where, for as long as it lives: who must be told when a cell is lost
//! (`route-7`), and which cells must hear when the session has come to its end (`proxy-2`).

use std::collections::BTreeMap;

use hasp_proto::id::{CellName, RequestNumber, SessionId};
use hasp_proto::request::Op;

/// Cells where a session left something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Asked anything. Sorted.
    used: Vec<CellName>,
    /// Gates behind which it asked for something that a cell may have to keep. Sorted.
    wrote: Vec<CellName>,
}

impl Footprint {
    /// Something was asked there, for the session or for others.
    pub(super) fn note_use(&mut self, cell: &CellName) {
        insert(&mut self.used, cell);
    }

    /// The session asked this there, through that gate.
    pub(super) fn note(&mut self, cell: &CellName, gate: &CellName, op: &Op) {
        self.note_use(cell);
        if is_kept(op) {
            insert(&mut self.wrote, gate);
        }
    }

    /// Whoever spoke for the session may have left anything behind that gate.
    pub(super) fn note_all(&mut self, gate: &CellName) {
        self.note_use(gate);
        insert(&mut self.wrote, gate);
    }

    /// What was left before is this one's too.
    pub(super) fn join(&mut self, other: &Self) {
        other.used.iter().for_each(|cell| insert(&mut self.used, cell));
        other.wrote.iter().for_each(|cell| insert(&mut self.wrote, cell));
    }

    pub(super) fn used(&self, cell: &CellName) -> bool {
        self.used.binary_search(cell).is_ok()
    }

    pub(super) fn wrote(&self) -> &[CellName] {
        &self.wrote
    }
}

fn insert(cells: &mut Vec<CellName>, cell: &CellName) {
    if let Err(place) = cells.binary_search(cell) {
        cells.insert(place, cell.clone());
    }
}

/// Whether the cell may keep something of the request beyond its answer: a write, a lock, a subscription,
/// the record that makes asking again harmless.
fn is_kept(op: &Op) -> bool {
    match op {
        Op::Refresh(handle) => handle.claimed_body().is_some_and(|body| !body.events.is_empty()),
        // Whether the node is ephemeral, of which the cell keeps who has it open, is not known before.
        Op::Open(_)
        | Op::Close(_)
        | Op::SetContents { .. }
        | Op::Delete(_)
        | Op::Acquire(..)
        | Op::TryAcquire(..)
        | Op::Release(_)
        | Op::SetAcl { .. } => true,
        Op::GetContentsAndStat(_)
        | Op::GetStat(_)
        | Op::ReadDir(_)
        | Op::GetSequencer(_)
        | Op::CheckSequencer(_)
        | Op::EndClient(_)
        | Op::Settle(_)
        | Op::Claim
        | Op::Cross(_) => false,
    }
}

/// Marks of what clients have settled, collected for one message to each cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    marks: BTreeMap<SessionId, RequestNumber>,
}

impl Settling {
    pub(super) fn note(&mut self, session: SessionId, below: RequestNumber) {
        self.marks.insert(session, below);
    }

    /// The session's mark, which will not go out with the others then.
    pub(super) fn take(&mut self, session: SessionId) -> Option<RequestNumber> {
        self.marks.remove(&session)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// All marks for each gate that the sessions wrote behind, in batches of at most `batch_max`.
    pub(super) fn take_batches(
        &mut self,
        footprints: &BTreeMap<SessionId, Footprint>,
        batch_max: usize,
    ) -> Vec<(CellName, Vec<(SessionId, RequestNumber)>)> {
        let mut by_cell = BTreeMap::<CellName, Vec<(SessionId, RequestNumber)>>::new();
        for (session, below) in std::mem::take(&mut self.marks) {
            for cell in footprints.get(&session).map_or(&[][..], Footprint::wrote) {
                by_cell.entry(cell.clone()).or_default().push((session, below));
            }
        }
        let split = |(cell, marks): (CellName, Vec<_>)| {
            marks.chunks(batch_max).map(|batch| (cell.clone(), batch.to_vec())).collect::<Vec<_>>()
        };
        by_cell.into_iter().flat_map(split).collect()
    }
}
