//! What is above a relay: the cells themselves, with a session at each, or one host that has those (a relay behind a
//! relay). What a cell is told goes by its *gate*: the cell's own name, or one name for all cells behind one host.
//!
//! ```text
//! host above:  welcomed -- another host welcomes, which does not know us --> copies below are void, subscriptions are
//!              shown again; clients that left something at a cell, and relays below for theirs, come again, to be
//!              claimed (`proxy-4`)
//! ```

use hasp_proto::client::{Event, NewsId};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{CellName, SessionId};
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::Op;
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::RelayCore;
use crate::upstream::{Hosts, UpstreamCore};

/// What is above. See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Above {
    map: PartitionMap,
    /// Every cell, in order.
    cells: Vec<CellName>,
    is_one: bool,
}

impl Above {
    /// # Panics
    /// If there is no cell, or the hosts are cells of another map.
    pub(super) fn new(map: PartitionMap, hosts: &Hosts) -> Self {
        let is_one = match hosts {
            Hosts::One(_) => true,
            Hosts::Cells(cells) => {
                assert_eq!(cells, &map, "sessions are held with the cells of the map");
                false
            }
        };
        let cells: Vec<_> = map.cells.keys().cloned().collect();
        assert!(!cells.is_empty(), "a map has cells");
        Self { map, cells, is_one }
    }

    pub(super) const fn map(&self) -> &PartitionMap {
        &self.map
    }

    /// Goes by this map, which is of the same cells, from here on. Returns the one before.
    pub(super) fn set_map(&mut self, map: PartitionMap) -> PartitionMap {
        std::mem::replace(&mut self.map, map)
    }

    pub(super) fn cells(&self) -> &[CellName] {
        &self.cells
    }

    /// Whether one host is before all cells.
    pub(super) const fn is_one(&self) -> bool {
        self.is_one
    }

    /// The name under which that cell is told things.
    pub(super) fn gate<'a>(&'a self, cell: &'a CellName) -> &'a CellName {
        if self.is_one { &self.cells[0] } else { cell }
    }

    /// All such names: one for each session above.
    pub(super) fn gates(&self) -> &[CellName] {
        if self.is_one { &self.cells[..1] } else { &self.cells }
    }

    /// The cell that a request will be answered by, if that is sure; whoever is above has the last word.
    pub(super) fn cell_of(&self, op: &Op) -> Option<CellName> {
        UpstreamCore::owner(&self.map, op)
    }
}

impl RelayCore {
    /// Something happened to the only session above.
    pub(super) fn happened_above(&mut self, now: Time, event: Event) {
        match event {
            Event::News(id, item) => self.news_from_above(now, id, item),
            Event::CellLost(cell) => self.happened(now, &cell.clone(), Event::CellLost(cell)),
            Event::Welcomed { session, resumed, .. } => {
                let was_welcomed = self.sources.values().any(|source| source.session == Some(session));
                self.take_in_all(now, &event);
                if was_welcomed && !resumed {
                    self.moved_above();
                }
            }
            Event::Extended
            | Event::CacheLapsed
            | Event::Expired(_)
            | Event::Jeopardy
            | Event::Safe
            | Event::Closed => {
                self.take_in_all(now, &event);
                self.set_ceiling(now);
            }
        }
    }

    /// It is the session with each cell: none is told anything before all have heard of it.
    fn take_in_all(&mut self, now: Time, event: &Event) {
        for cell in self.above.cells().to_vec() {
            self.take_in(now, &cell, event.clone());
        }
    }

    fn news_from_above(&mut self, now: Time, id: NewsId, item: News) {
        let cell = match &item {
            News::FailOver { cell, .. } | News::CellLost { cell } | News::EventsLost { cell: Some(cell) } => {
                cell
            }
            News::Invalidate { floor, .. } => &floor.cell,
            News::Event(event) => &event.position.cell,
            News::EventsLost { cell: None } => {
                for cell in self.above.cells().to_vec() {
                    self.tell_events_lost(now, &cell);
                }
                return self.upstream.acknowledge(now, None, id);
            }
        };
        if self.sources.contains_key(cell) {
            let cell = cell.clone();
            self.news(now, &cell, id, item);
        } else {
            // A cell that the map does not know: nothing of it is held here or below.
            self.upstream.acknowledge(now, None, id);
        }
    }

    /// Another host speaks for this one at the cells. What clients have left there has to be claimed through it, with a
    /// claim that is newer than what went through the last: they come again. So do relays below, for theirs.
    fn moved_above(&mut self) {
        let left_something =
            |session: &SessionId| self.footprints.get(session).is_some_and(|print| !print.wrote().is_empty());
        let is_relay = |session: &SessionId| self.server.holder(*session).is_some_and(|it| it.role.is_tier());
        let meant: Vec<_> =
            self.server.sessions().filter(|session| is_relay(session) || left_something(session)).collect();
        for session in meant {
            let error = ErrorCode::Unavailable.because("the host above has changed: come again");
            self.server.turn_out(session, error);
        }
    }
}
