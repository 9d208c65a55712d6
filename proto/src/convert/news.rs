//! What sessions are told without having asked.

use super::{Malformed, malformed};
use crate::event::{EventKind, HandleId, NodeEvent};
use crate::id::{CellName, Epoch, Instance, RequestNumber, SessionId};
use crate::item::{Item, ItemKind};
use crate::name::Name;
use crate::stream::News;
use crate::wire::v1;

fn name(text: &str) -> Result<Name, Malformed> {
    Name::parse(text).map_err(|_| malformed("name in news"))
}

impl From<ItemKind> for v1::item::Kind {
    fn from(kind: ItemKind) -> Self {
        match kind {
            ItemKind::Data => Self::Data,
            ItemKind::Lock => Self::Lock,
            ItemKind::Listing => Self::Listing,
            ItemKind::Absence => Self::Absence,
            ItemKind::Acl => Self::Acl,
        }
    }
}

impl TryFrom<v1::Item> for Item {
    type Error = Malformed;

    fn try_from(item: v1::Item) -> Result<Self, Malformed> {
        let kind = match item.kind() {
            v1::item::Kind::Data => ItemKind::Data,
            v1::item::Kind::Lock => ItemKind::Lock,
            v1::item::Kind::Listing => ItemKind::Listing,
            v1::item::Kind::Absence => ItemKind::Absence,
            v1::item::Kind::Acl => ItemKind::Acl,
            v1::item::Kind::Unspecified => return Err(malformed("kind of a cached item")),
        };
        Ok(Self { name: name(&item.name)?, kind })
    }
}

impl From<EventKind> for v1::EventKind {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::ContentsModified => Self::ContentsModified,
            EventKind::ChildAdded => Self::ChildAdded,
            EventKind::ChildRemoved => Self::ChildRemoved,
            EventKind::ChildModified => Self::ChildModified,
            EventKind::HandleInvalid => Self::HandleInvalid,
            EventKind::LockAcquired => Self::LockAcquired,
            EventKind::LockConflict => Self::LockConflict,
        }
    }
}

impl TryFrom<v1::EventKind> for EventKind {
    type Error = Malformed;

    fn try_from(kind: v1::EventKind) -> Result<Self, Malformed> {
        Ok(match kind {
            v1::EventKind::ContentsModified => Self::ContentsModified,
            v1::EventKind::ChildAdded => Self::ChildAdded,
            v1::EventKind::ChildRemoved => Self::ChildRemoved,
            v1::EventKind::ChildModified => Self::ChildModified,
            v1::EventKind::HandleInvalid => Self::HandleInvalid,
            v1::EventKind::LockAcquired => Self::LockAcquired,
            v1::EventKind::LockConflict => Self::LockConflict,
            v1::EventKind::Unspecified => return Err(malformed("kind of an event")),
        })
    }
}

impl From<NodeEvent> for v1::NodeEvent {
    fn from(event: NodeEvent) -> Self {
        let (session, opened_by) = match event.to {
            Some(handle) => (handle.session.to_bytes(), handle.opened_by.0),
            None => Default::default(),
        };
        Self {
            kind: v1::EventKind::from(event.kind).into(),
            name: event.name.to_string(),
            instance: event.instance.0,
            child: event.child.unwrap_or_default(),
            session,
            opened_by,
            position: Some(event.position.into()),
        }
    }
}

impl TryFrom<v1::NodeEvent> for NodeEvent {
    type Error = Malformed;

    fn try_from(event: v1::NodeEvent) -> Result<Self, Malformed> {
        let to = if event.session.is_empty() {
            None
        } else {
            let session =
                SessionId::from_bytes(&event.session).ok_or(malformed("session that an event is for"))?;
            Some(HandleId { session, opened_by: RequestNumber(event.opened_by) })
        };
        Ok(Self {
            kind: event.kind().try_into()?,
            name: name(&event.name)?,
            instance: Instance(event.instance),
            child: (!event.child.is_empty()).then_some(event.child),
            to,
            position: event.position.ok_or(malformed("event without position"))?.into(),
        })
    }
}

impl From<News> for v1::news::Item {
    fn from(news: News) -> Self {
        match news {
            News::FailOver { cell, epoch } => {
                Self::FailOver(v1::FailOver { cell: cell.to_string(), epoch: epoch.0 })
            }
            News::CellLost { cell } => Self::CellLost(v1::CellLost { cell: cell.to_string() }),
            News::Invalidate { items, floor } => Self::Invalidate(v1::Invalidate {
                items: items
                    .into_iter()
                    .map(|item| v1::Item {
                        name: item.name.to_string(),
                        kind: v1::item::Kind::from(item.kind).into(),
                    })
                    .collect(),
                floor: Some(floor.into()),
            }),
            News::Event(event) => Self::Event(event.into()),
            News::EventsLost { cell } => Self::EventsLost(v1::EventsLost {
                cell: cell.map(|cell| cell.to_string()).unwrap_or_default(),
            }),
        }
    }
}

impl TryFrom<v1::news::Item> for News {
    type Error = Malformed;

    fn try_from(item: v1::news::Item) -> Result<Self, Malformed> {
        Ok(match item {
            v1::news::Item::FailOver(fail_over) => {
                Self::FailOver { cell: CellName::new(&fail_over.cell), epoch: Epoch(fail_over.epoch) }
            }
            v1::news::Item::CellLost(lost) => Self::CellLost { cell: CellName::new(&lost.cell) },
            v1::news::Item::Invalidate(invalidate) => Self::Invalidate {
                items: invalidate.items.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                floor: invalidate.floor.ok_or(malformed("invalidation without floor"))?.into(),
            },
            v1::news::Item::Event(event) => Self::Event(event.try_into()?),
            v1::news::Item::EventsLost(lost) => {
                Self::EventsLost { cell: (!lost.cell.is_empty()).then(|| CellName::new(&lost.cell)) }
            }
        })
    }
}
