//! The sessions that the master itself grants: proxies, routers and direct clients. Leases are not
//! here: they live in the master's memory (`lease-5`, trap 5).

use hasp_proto::id::SessionId;
use hasp_proto::stream::Role;
use rpds::RedBlackTreeMapSync;

/// Somebody who speaks to the master directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Application, proxy or router.
    pub role: Role,
    /// As whom it was authenticated.
    pub principal: String,
    /// Where clients reach a proxy or router; empty for an application.
    pub advertise: String,
    /// Index of the command that created it.
    pub created_at: u64,
}

/// All sessions of a cell.
#[derive(Clone, Default, PartialEq)]
pub struct Sessions {
    records: RedBlackTreeMapSync<SessionId, SessionRecord>,
}

impl Sessions {
    /// The session's record.
    pub fn get(&self, session: SessionId) -> Option<&SessionRecord> {
        self.records.get(&session)
    }

    /// Whether the session is there.
    pub fn contains(&self, session: SessionId) -> bool {
        self.records.contains_key(&session)
    }

    /// Whether the session is a proxy's or router's, which may speak for others (`proxy-6`).
    pub fn is_tier(&self, session: SessionId) -> bool {
        self.get(session).is_some_and(|record| record.role.is_tier())
    }

    /// All sessions, by id.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &SessionRecord)> {
        self.records.iter().map(|(session, record)| (*session, record))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.size()
    }

    /// Puts a session in.
    pub fn insert(&mut self, session: SessionId, record: SessionRecord) {
        self.records.insert_mut(session, record);
    }

    /// Takes a session out. Whether it was there.
    pub fn remove(&mut self, session: SessionId) -> bool {
        self.records.remove_mut(&session)
    }
}
