//! Moving what a change of the map concerns from cell to cell (`move-1` to `move-4`). The home cell has a router do it as
//! long as it is not done, like anything else that is left behind between cells. Each step may be done twice, so whoever
//! is told begins from the beginning, and whoever fails leaves it to the next.
//!
//! ```text
//! home:  read the map -- a change --> each cell concerned: adopt --> each source: pack
//!                                          --> each pair: export, import, part by part --> home: finish --> read the map
//!                                              (parts are exported while those before are imported)
//!        read the map -- no change --> destinations, then all others: adopt --> home: announced
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hasp_proto::crossing::CrossOp;
use hasp_proto::error::ErrorCode;
use hasp_proto::id::CellName;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::time::Time;

use super::super::{Ticket, UpstreamCore};
use super::Question;

/// How many parts may be on their way into a log at once: what is written in that cell meanwhile waits behind them.
const PARTS_AT_ONCE: usize = 4;

/// Asks one cell for something.
#[derive(Clone, Debug)]
struct Step {
    cell: CellName,
    op: CrossOp,
}

/// A change that this host is at work on.
#[derive(Clone, Debug)]
pub(super) struct Mover {
    /// Of the map with the change, or of the one that not all know.
    version: u64,
    /// Where something moves to.
    destinations: BTreeSet<CellName>,
    /// The steps under way: one, or those with the parts of one parcel.
    under_way: BTreeMap<Ticket, Step>,
    /// A part that is not exported yet, since too many are being imported.
    held: Option<Step>,
    /// The steps that follow.
    steps: VecDeque<Step>,
    /// A cell could not be told of the new map: others are, but it is not done.
    has_failed: bool,
}

impl UpstreamCore {
    /// The home cell tells of a change that is not done, or of a map that is not known.
    pub(super) fn take_up_move(&mut self, now: Time, version: u64) {
        if self.crossings.mover.as_ref().is_some_and(|mover| mover.version == version) {
            return;
        }
        let Some(home) = self.map().map(|map| map.home().clone()) else { return };
        let mover = Mover {
            version,
            destinations: BTreeSet::new(),
            under_way: BTreeMap::new(),
            held: None,
            steps: [Step { cell: home, op: CrossOp::ReadMap }].into(),
            has_failed: false,
        };
        self.next_step(now, mover);
    }

    /// Takes the next step, if none is under way.
    fn next_step(&mut self, now: Time, mut mover: Mover) {
        if mover.under_way.is_empty() {
            let Some(step) = mover.steps.pop_front() else { return };
            if mover.has_failed && matches!(step.op, CrossOp::Announced { .. }) {
                return;
            }
            if !self.take_step(now, &mut mover, step) {
                return;
            }
        }
        self.crossings.mover = Some(mover);
    }

    /// Asks; false if the cell is not known here.
    fn take_step(&mut self, now: Time, mover: &mut Mover, step: Step) -> bool {
        let Some(slot) = self.slot_of(Some(&step.cell)) else { return false };
        let question = self.run(now, slot, Question::Move, Op::Cross(step.op.clone()).into());
        mover.under_way.insert(question, step);
        true
    }

    /// A step has come to its end.
    pub(super) fn move_stepped(&mut self, now: Time, question: Ticket, answer: &Answer) {
        let is_its = |mover: &mut Mover| mover.under_way.contains_key(&question);
        let Some(mut mover) = self.crossings.mover.take_if(is_its) else { return };
        let Some(Step { cell, op }) = mover.under_way.remove(&question) else { return };
        match (op, &answer.result) {
            (CrossOp::ReadMap, Ok(_)) => {
                let Some(map) = self.read_map(answer) else { return };
                mover.version = map.version;
                if map.change().is_some() {
                    mover.destinations = map.journeys().into_iter().map(|(_, to)| to).collect();
                    mover.steps = moving(&map);
                } else {
                    mover.steps = announcing(&map, &mover.destinations);
                }
            }
            (CrossOp::Export { version, to, part }, Ok(Reply::Parcel { data, parts })) => {
                let export = CrossOp::Export { version, to: to.clone(), part: part + 1 };
                mover.held = (part + 1 < *parts).then(|| Step { cell: cell.clone(), op: export });
                let op = CrossOp::Import { version, from: cell, part, parts: *parts, data: data.clone() };
                if !self.take_step(now, &mut mover, Step { cell: to, op }) {
                    return;
                }
            }
            (CrossOp::Adopt(map), Ok(Reply::Noted)) if map.change().is_none() => {
                if let Some(own) = self.map() {
                    let map = map.with_cells(&own.cells);
                    self.adopt(now, &map);
                }
            }
            (_, Ok(Reply::Noted)) => {}
            // It cannot be done at all.
            (CrossOp::Pack { version }, Err(error))
                if matches!(error.code, ErrorCode::QuotaExceeded | ErrorCode::LockHeld) =>
            {
                let Some(home) = self.map().map(|map| map.home().clone()) else { return };
                let end = [CrossOp::GiveUp { version, why: error.detail.clone() }, CrossOp::ReadMap];
                mover.steps = end.map(|op| Step { cell: home.clone(), op }).into();
            }
            (CrossOp::Adopt(map), Err(_)) if map.change().is_none() => mover.has_failed = true,
            // The next who is told begins anew.
            (_, Ok(_) | Err(_)) => return,
        }
        // What is under way with a part held back is imported.
        if mover.under_way.len() < PARTS_AT_ONCE
            && let Some(export) = mover.held.take()
            && !self.take_step(now, &mut mover, export)
        {
            return;
        }
        self.next_step(now, mover);
    }
}

/// What has to be done for the change of this map.
fn moving(map: &PartitionMap) -> VecDeque<Step> {
    let version = map.version;
    let journeys = map.journeys();
    let sources: BTreeSet<_> = journeys.iter().map(|(from, _)| from.clone()).collect();
    let concerned: BTreeSet<_> = journeys.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let home = map.home();
    let others = concerned.into_iter().filter(|cell| cell != home);
    let adopt = others.map(|cell| Step { cell, op: CrossOp::Adopt(map.without_addresses()) });
    let pack = sources.into_iter().map(|cell| Step { cell, op: CrossOp::Pack { version } });
    let export = journeys.iter().map(|(from, to)| Step {
        cell: from.clone(),
        op: CrossOp::Export { version, to: to.clone(), part: 0 },
    });
    let end = [CrossOp::Finish { version }, CrossOp::ReadMap].map(|op| Step { cell: home.clone(), op });
    adopt.chain(pack).chain(export).chain(end).collect()
}

/// What has to be done so that all know this map. Where something moved to, clients wait for it.
fn announcing(map: &PartitionMap, destinations: &BTreeSet<CellName>) -> VecDeque<Step> {
    let home = map.home();
    let (first, later): (Vec<_>, Vec<_>) =
        map.cells.keys().filter(|cell| *cell != home).partition(|cell| destinations.contains(*cell));
    let cells = first.into_iter().chain(later);
    let adopt = cells.map(|cell| Step { cell: cell.clone(), op: CrossOp::Adopt(map.without_addresses()) });
    let announced = CrossOp::Announced { version: map.version };
    adopt.chain([Step { cell: home.clone(), op: announced }]).collect()
}
