//! News that a session was told and has not acknowledged (`ka-3`).

use std::collections::VecDeque;

use crate::id::Sequence;
use crate::limits::{EVENTS_PER_SESSION, NEWS_PER_SESSION};
use crate::stream::News;
use crate::time::Time;

/// What is unacknowledged, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Unacknowledged {
    last: Sequence,
    items: VecDeque<(Sequence, Time, News)>,
    events: usize,
    /// An `EventsLost` is among them.
    losses_told: bool,
}

/// Whether an event can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventRoom {
    Free,
    /// Not any more: say so.
    Full,
    /// It was said, and stands for this one too.
    Told,
}

impl Unacknowledged {
    /// Takes in one more; `None` if there are too many.
    pub(super) fn push(&mut self, now: Time, item: News) -> Option<Sequence> {
        if self.items.len() >= NEWS_PER_SESSION {
            return None;
        }
        self.last = self.last.next();
        self.events += usize::from(matches!(item, News::Event(_)));
        self.losses_told |= matches!(item, News::EventsLost { .. });
        self.items.push_back((self.last, now, item));
        Some(self.last)
    }

    /// Drops this one; whether it was there.
    pub(super) fn acknowledge(&mut self, sequence: Sequence) -> bool {
        let Ok(place) = self.items.binary_search_by_key(&sequence, |(told, _, _)| *told) else {
            return false;
        };
        match self.items.remove(place) {
            Some((_, _, News::Event(_))) => self.events -= 1,
            Some((_, _, News::EventsLost { .. })) => self.losses_told = false,
            _ => {}
        }
        if self.items.is_empty() {
            self.items.shrink_to_fit();
        }
        true
    }

    /// Drops the events: their hearer takes them for lost.
    pub(super) fn drop_events(&mut self) {
        self.items.retain(|(_, _, item)| !matches!(item, News::Event(_) | News::EventsLost { .. }));
        (self.events, self.losses_told) = (0, false);
    }

    pub(super) fn room_for_event(&self) -> EventRoom {
        match (self.losses_told, self.events < EVENTS_PER_SESSION) {
            (true, _) => EventRoom::Told,
            (false, true) => EventRoom::Free,
            (false, false) => EventRoom::Full,
        }
    }

    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = (Sequence, News)> {
        self.items.iter().map(|(sequence, _, item)| (*sequence, item.clone()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.items.front().map(|(_, told, _)| *told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, NodeEvent};
    use crate::id::Instance;
    use crate::name::Name;
    use crate::position::Position;
    use crate::time::t;

    fn event() -> News {
        News::Event(NodeEvent {
            kind: EventKind::ContentsModified,
            name: Name::parse("/ls/dev/f").expect("good"),
            instance: Instance(1),
            child: None,
            to: None,
            position: Position::default(),
        })
    }

    #[test]
    fn each_piece_is_acknowledged_by_itself() {
        let mut news = Unacknowledged::default();
        for _ in 0..3 {
            news.push(t(0), event());
        }

        assert!(news.acknowledge(Sequence(2)));

        assert!(!news.acknowledge(Sequence(2)), "once");
        let left: Vec<_> = news.unacknowledged().map(|(sequence, _)| sequence).collect();
        assert_eq!(left, [Sequence(1), Sequence(3)]);
    }

    #[test]
    fn too_many_events_are_one_loss_until_it_is_acknowledged() {
        let mut news = Unacknowledged::default();
        for _ in 0..EVENTS_PER_SESSION {
            assert_eq!(news.room_for_event(), EventRoom::Free);
            news.push(t(0), event());
        }
        assert_eq!(news.room_for_event(), EventRoom::Full);

        let lost = news.push(t(0), News::EventsLost { cell: None }).expect("there is room for that");
        assert_eq!(news.room_for_event(), EventRoom::Told);
        news.acknowledge(Sequence(1));
        assert_eq!(news.room_for_event(), EventRoom::Told, "a later event would be out of its order");

        news.acknowledge(lost);
        assert_eq!(news.room_for_event(), EventRoom::Free);
    }
}
