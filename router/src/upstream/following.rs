//! The partition map, as its file in the home cell says: followed like anything else that is cached, so that no map is gone
//! by that has been taken back (design §2). A cell refuses what is not its own, so an old map costs a while and no more.
//!
//! ```text
//! unsure -- asked, answered, may be kept --> sure -- taken back, lease over, another master --> unsure
//!    ^------- may not be kept: asked again soon
//! ```

use std::time::Duration;

use hasp_proto::client::{Ask, Event};
use hasp_proto::crossing::CrossOp;
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::partition::{PARTITIONS_FILE, PartitionMap};
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::crossing::Question;
use super::{Asked, Hosts, Output, Place, Ticket, UpstreamCore};

/// Pause before the map is read again that is about to change.
const SOON: Duration = Duration::from_millis(20);
/// Pause before it is read again after that could not be done.
const LATER: Duration = Duration::from_secs(1);
/// Pause before a request is routed again that has to wait for another map than ours.
const PAUSE: Duration = Duration::from_millis(100);
/// The same if ours is the newer one: the cell hears of it in a moment.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// What is known of the map's file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Following {
    /// Requests are not routed here, or there is nothing to choose from.
    #[default]
    Not,
    /// To be read then.
    Unsure(Time),
    /// Being read; void if it was taken back meanwhile.
    Asked { question: Ticket, is_void: bool },
    /// As it was read last.
    Sure,
}

impl Following {
    fn due(self) -> Option<Time> {
        match self {
            Self::Unsure(at) => Some(at),
            Self::Not | Self::Asked { .. } | Self::Sure => None,
        }
    }

    fn void(&mut self, now: Time) {
        match self {
            Self::Asked { is_void, .. } => *is_void = true,
            Self::Sure => *self = Self::Unsure(now),
            Self::Not | Self::Unsure(_) => {}
        }
    }
}

impl UpstreamCore {
    /// Whether the map's file is to be followed.
    pub(super) fn follows(&self) -> Following {
        let has_choice = self.map().is_some_and(|map| map.cells.len() > 1);
        if has_choice && self.config.role.is_tier() { Following::Unsure(Time::ZERO) } else { Following::Not }
    }

    /// Something happened to the session of that slot.
    pub(super) fn note_event_of_map(&mut self, now: Time, slot: usize, event: &Event) {
        if self.map_slot() != Some(slot) {
            return;
        }
        match event {
            Event::News(_, News::Invalidate { items, .. }) => {
                if items.iter().any(|item| self.is_of_map(item)) {
                    self.following.void(now);
                }
            }
            Event::Welcomed { resumed: false, .. }
            | Event::News(_, News::FailOver { .. } | News::CellLost { .. })
            | Event::CacheLapsed => self.following.void(now),
            // It is not read before there is another session, and nobody knows when.
            Event::Expired(_) => {
                self.following.void(now);
                self.settle(now, false);
            }
            Event::Welcomed { resumed: true, .. }
            | Event::News(_, News::Event(_) | News::EventsLost { .. })
            | Event::CellLost(_)
            | Event::Jeopardy
            | Event::Safe
            | Event::Extended
            | Event::Closed => {}
        }
    }

    /// Reads the map if that is due.
    pub(super) fn follow_due(&mut self, now: Time) {
        let Some(slot) = self.map_slot() else { return };
        if self.next_follow().is_some_and(|(at, _)| at <= now) {
            let ask = Ask { caches: true, ..Op::Cross(CrossOp::ReadMap).into() };
            let question = self.run(now, slot, Question::Map, ask);
            self.following = Following::Asked { question, is_void: false };
        }
    }

    /// When it is to be read.
    pub(super) fn next_follow(&self) -> Option<(Time, &'static str)> {
        let is_worth_it =
            self.map_slot().is_some_and(|slot| self.slots[slot].was_welcomed) && !self.is_ending;
        self.following.due().filter(|_| is_worth_it).map(|at| (at, "the partition map is read"))
    }

    /// The map was read, or could not be.
    pub(super) fn map_came(&mut self, now: Time, question: Ticket, answer: &Answer) {
        let Following::Asked { question: asked, is_void } = self.following else { return };
        if asked != question {
            return;
        }
        let read = self.read_map(answer);
        self.following = match &read {
            Some(map) => {
                self.adopt(now, map);
                let may_keep = answer.caches.contains(ItemKind::Data) && !is_void;
                if may_keep { Following::Sure } else { Following::Unsure(now + SOON) }
            }
            None => Following::Unsure(now + LATER),
        };
        self.settle(now, read.is_some());
    }

    /// Whether no newer map than ours can be in force: the home cell asks for ours back before, and waits for that as long as
    /// its cache lease lasts (`cache-1`).
    pub(super) fn is_map_sure(&self, now: Time) -> bool {
        match self.following {
            Following::Not => true,
            Following::Sure => {
                self.map().and_then(|map| self.cache_end(map.home())).is_some_and(|end| now < end)
            }
            Following::Unsure(_) | Following::Asked { .. } => false,
        }
    }

    /// Has the map read that is not sure; `false` if that cannot be, since the home cell was never reached. What waits for it
    /// hears of it.
    pub(super) fn will_read_map(&mut self, now: Time) -> bool {
        if matches!(self.following, Following::Sure) {
            self.following.void(now);
        }
        self.map_slot().is_some_and(|slot| self.slots[slot].was_welcomed)
    }

    /// The map that an answer shows, with the cells as they were configured here.
    pub(super) fn read_map(&self, answer: &Answer) -> Option<PartitionMap> {
        let Ok(Reply::Contents { contents, .. }) = &answer.result else { return None };
        let (own, read) = (self.map()?, PartitionMap::parse(contents).ok()?);
        let is_ours = read.namespace == own.namespace && read.cells.keys().eq(own.cells.keys());
        is_ours.then(|| read.with_cells(&own.cells))
    }

    /// Routes by this map from here on, if it is newer.
    pub(super) fn adopt(&mut self, now: Time, map: &PartitionMap) {
        let Hosts::Cells(own) = &mut self.config.hosts else { return };
        if map.version <= own.version {
            return;
        }
        let has_moved = !own.rules().eq(map.rules()) || !own.rings().eq(map.rings());
        *own = map.clone();
        if has_moved {
            for slot in 0..self.slots.len() {
                self.forget_watches(slot);
            }
        }
        self.outputs.push_back(Output::Routes(Box::new(map.clone())));
        for asked in std::mem::take(&mut self.paused).into_values() {
            self.route(now, asked);
        }
    }

    /// Routes a request again later: what it is about is on its way to another cell, or the cell goes by another map.
    pub(super) fn wait_for_map(&mut self, now: Time, mut asked: Asked, version: u64) {
        let own = self.map().map_or(0, |map| map.version);
        if own < version {
            self.following.void(now);
        }
        asked.drop_memberships();
        asked.progress.is_rerouted = true;
        let until = now + if own > version { SHORT_PAUSE } else { PAUSE };
        self.places.insert(asked.ticket, Place::Paused(until));
        self.paused.insert((until, asked.ticket), asked);
    }

    /// A directory is listed by the cell of its children, which may have become another than that of its node since the
    /// request came (`route-1`).
    pub(super) fn list_elsewhere(map: &PartitionMap, asked: &mut Asked) {
        let Op::ReadDir(handle) = &asked.ask.op else { return };
        let Some(body) = handle.claimed_body().filter(|_| asked.progress.is_rerouted) else { return };
        if map.owner(&body.name) != map.children_owner(&body.name) {
            asked.ask.op = Op::Cross(CrossOp::ListRoot { name: body.name, instance: body.instance });
        }
    }

    /// The slot of the cell that has the map.
    pub(super) fn map_slot(&self) -> Option<usize> {
        self.slot_of(Some(self.map()?.home()))
    }

    fn is_of_map(&self, item: &Item) -> bool {
        let is_its_name = |map: &PartitionMap| {
            item.name.as_str().strip_prefix("/ls/").and_then(|rest| rest.strip_prefix(map.namespace.as_str()))
                == Some(&format!("/{PARTITIONS_FILE}"))
        };
        item.kind == ItemKind::Data && self.map().is_some_and(is_its_name)
    }
}
