//! What a cell must know of each client: through whom it speaks, the locks it holds, the ephemeral nodes it
//! has open, the answers it may ask for again (`proxy-1`, `proxy-3`, `proxy-4`, P-ONCE).
//!
//! ```text
//!          first write, claim, CreateSession            its speaker's session ends
//!   absent -----------------------------> attached ------------------------------> orphaned
//!     ^                                   |  ^  | ^                                 |  |
//!     |         nothing held or to answer |  |  | '--------- newer claim -----------'  |
//!     |                   and no own session  |  '--- EndClient, EndSession -.          | OrphanEnd
//!     |                                   v  | next write, claim            v          v
//!     |                                lingering                       ended, and lingering
//!     '------------------- Forget ---------'-----------------------------------'
//! ```
//!
//! A record that is needed no more lingers, so that what was said before cannot pass for new: an older speaker's
//! write is refused, a settled one is not done again, and who was given up does not come back as if nothing had been.

use std::sync::Arc;
use std::time::Duration;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Claim, Instance, RequestNumber, SessionId};
use hasp_proto::limits::{ANSWERS_KEPT_PER_CLIENT, HANDLES_PER_CLIENT};
use hasp_proto::name::Name;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::command::ClientWrite;
use super::outcome::AppliedOutcome;

/// When to ask again after too many unsettled answers: about one round trip of acknowledgements.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// One of a client's handles, by the node and the request that made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeHandle {
    /// Of the node.
    pub name: Name,
    /// Of the node.
    pub instance: Instance,
    /// The handle's `Open`.
    pub opened_by: RequestNumber,
}

/// How far a client's record is on its way out, as a snapshot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// [`ClientRecord::orphaned_at`].
    pub orphaned_at: Option<u64>,
    /// [`ClientRecord::lingers_since`].
    pub lingers_since: Option<u64>,
    /// [`ClientRecord::has_ended`].
    pub has_ended: bool,
}

/// What is to be done about a write whose speaker may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was not done before.
    New,
    /// It was done before, with this outcome, at this position (P-ONCE).
    Repeated(AppliedOutcome),
}

/// The answer of a write, until it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// What is answered.
    pub applied: AppliedOutcome,
    /// Of the node that it was about; unknown of answers that an older program has kept.
    pub name: Option<Name>,
}

/// What the cell knows of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRecord {
    /// The proxy or router it was last heard through; `None`: its own session.
    pub via: Option<SessionId>,
    /// Of the connection it was last heard through; only grows.
    pub claim: Claim,
    /// As whom it was authenticated there.
    pub principal: Arc<str>,
    /// Answers below this are settled and forgotten.
    pub settled_below: RequestNumber,
    /// Index of the command that took its speaker away; `None` while it has one.
    pub orphaned_at: Option<u64>,
    /// Index of the command since which nothing hangs on it; `None` while something does.
    pub lingers_since: Option<u64>,
    /// It was ended: whoever speaks for it is refused.
    pub has_ended: bool,
    answers: RedBlackTreeMapSync<RequestNumber, KeptAnswer>,
    locks: RedBlackTreeSetSync<NodeHandle>,
    /// On ephemeral nodes.
    opens: RedBlackTreeSetSync<NodeHandle>,
}

impl ClientRecord {
    fn new(via: Option<SessionId>, claim: Claim, principal: &str) -> Self {
        Self {
            via,
            claim,
            principal: principal.into(),
            settled_below: RequestNumber::default(),
            orphaned_at: None,
            lingers_since: None,
            has_ended: false,
            answers: RedBlackTreeMapSync::new_sync(),
            locks: RedBlackTreeSetSync::new_sync(),
            opens: RedBlackTreeSetSync::new_sync(),
        }
    }

    /// The handles that hold a lock, by name, instance and request.
    pub fn locks(&self) -> impl Iterator<Item = &NodeHandle> {
        self.locks.iter()
    }

    /// The handles that keep an ephemeral node in being, by name, instance and request.
    pub fn opens(&self) -> impl Iterator<Item = &NodeHandle> {
        self.opens.iter()
    }

    /// Whether this handle of it keeps an ephemeral node in being.
    pub fn keeps_open(&self, handle: &NodeHandle) -> bool {
        self.opens.contains(handle)
    }

    /// Whether it holds this lock.
    pub fn holds(&self, lock: &NodeHandle) -> bool {
        self.locks.contains(lock)
    }

    /// The answers that are not settled, by number.
    pub fn answers(&self) -> impl Iterator<Item = (RequestNumber, &KeptAnswer)> {
        self.answers.iter().map(|(number, kept)| (*number, kept))
    }

    /// The kept answer of this request.
    pub fn answer(&self, number: RequestNumber) -> Option<&AppliedOutcome> {
        self.answers.get(&number).map(|kept| &kept.applied)
    }

    /// Whether nothing would be lost with it: no locks, no ephemeral nodes open, no answers.
    pub fn is_idle(&self) -> bool {
        self.locks.is_empty() && self.opens.is_empty() && self.answers.is_empty()
    }

    /// Makes `via` its speaker under `claim`, if that is not outdated (`proxy-4`).
    fn attach(&mut self, via: Option<SessionId>, claim: Claim, principal: &str) -> Result<(), Error> {
        if self.has_ended {
            return Err(ErrorCode::SessionExpired.because("the client was given up"));
        }
        // An orphan's former speaker is gone, so whoever comes next speaks for the same connection:
        // a proxy that had to begin a new session goes on for its clients.
        let is_free = self.via == via || self.orphaned_at.is_some();
        let is_current = if is_free { claim >= self.claim } else { claim > self.claim };
        if !is_current {
            let detail = format!("claim {claim} is outdated, the client speaks under claim {}", self.claim);
            return Err(ErrorCode::SessionMoved.because(detail));
        }
        if (claim > self.claim || self.principal.is_empty()) && *self.principal != *principal {
            self.principal = principal.into();
        }
        (self.via, self.claim, self.orphaned_at) = (via, claim, None);
        self.lingers_since = None;
        Ok(())
    }

    fn admit(&mut self, write: &ClientWrite) -> Result<Admission, Error> {
        self.attach(write.via, write.claim, &write.principal)?;
        self.settle(write.settled_below);
        if write.number < self.settled_below {
            let detail = format!("request {} was settled before: numbers are used once", write.number);
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        if let Some(kept) = self.answers.get(&write.number) {
            return Ok(Admission::Repeated(kept.applied.clone()));
        }
        if self.answers.size() >= ANSWERS_KEPT_PER_CLIENT {
            let code = ErrorCode::RateLimited { retry_after: SETTLE_PAUSE };
            let detail = format!("{ANSWERS_KEPT_PER_CLIENT} answers are not settled");
            return Err(code.because(detail));
        }
        Ok(Admission::New)
    }

    fn settle(&mut self, below: RequestNumber) {
        self.settled_below = self.settled_below.max(below);
        while let Some((&number, _)) = self.answers.first() {
            if number >= self.settled_below {
                break;
            }
            self.answers.remove_mut(&number);
        }
    }
}

/// All clients that the cell must know.
#[derive(Clone, Default, PartialEq)]
pub struct Clients {
    records: RedBlackTreeMapSync<SessionId, ClientRecord>,
}

impl Clients {
    /// The client's record.
    pub fn get(&self, session: SessionId) -> Option<&ClientRecord> {
        self.records.get(&session)
    }

    /// All records, by session.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &ClientRecord)> {
        self.records.iter().map(|(session, record)| (*session, record))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.size()
    }

    /// Lets a client's session of its own speak for it, unless a newer connection does.
    pub fn attach_own(&mut self, session: SessionId, claim: Claim, principal: &str) {
        match self.records.get_mut(&session) {
            // An outdated claim changes nothing: the client speaks elsewhere by now.
            Some(record) => {
                drop(record.attach(None, claim, principal));
                record.lingers_since = None;
            }
            None => self.records.insert_mut(session, ClientRecord::new(None, claim, principal)),
        }
    }

    /// Whether the client was ended, and that is not forgotten yet.
    pub fn has_ended(&self, session: SessionId) -> bool {
        self.get(session).is_some_and(|record| record.has_ended)
    }

    /// Checks who speaks and whether the request is new, and notes what it says is settled.
    ///
    /// # Errors
    /// Somebody else speaks for the client, the number is settled, or too many answers are not: nothing is done.
    pub fn admit(&mut self, write: &ClientWrite) -> Result<Admission, Error> {
        match self.records.get_mut(&write.session) {
            Some(record) => record.admit(write),
            None => {
                let mut record = ClientRecord::new(write.via, write.claim, &write.principal);
                let admission = record.admit(write)?;
                self.records.insert_mut(write.session, record);
                Ok(admission)
            }
        }
    }

    /// Keeps an answer, with the position at which it came about, until it is settled (P-ONCE).
    ///
    /// # Panics
    /// If the client was not admitted before.
    pub fn keep_answer(&mut self, session: SessionId, number: RequestNumber, answer: KeptAnswer) {
        let record =
            self.records.get_mut(&session).expect("a client that was admitted is known until it is answered");
        record.answers.insert_mut(number, answer);
    }

    /// Forgets the answers below `below`.
    pub fn settle(&mut self, session: SessionId, below: RequestNumber) {
        if let Some(record) = self.records.get_mut(&session) {
            record.settle(below);
        }
    }

    /// Lists a lock as held by the client.
    pub fn list_lock(&mut self, session: SessionId, lock: NodeHandle) {
        if let Some(record) = self.records.get_mut(&session) {
            record.locks.insert_mut(lock);
        }
    }

    /// Lists a lock as held no longer.
    pub fn unlist_lock(&mut self, session: SessionId, lock: &NodeHandle) {
        if let Some(record) = self.records.get_mut(&session) {
            record.locks.remove_mut(lock);
        }
    }

    /// Whether the client may have one more ephemeral node open.
    pub fn has_room(&self, session: SessionId) -> bool {
        self.get(session).is_none_or(|record| record.opens.size() < HANDLES_PER_CLIENT)
    }

    /// Lists an ephemeral node as open.
    pub fn list_open(&mut self, session: SessionId, handle: NodeHandle) {
        if let Some(record) = self.records.get_mut(&session) {
            record.opens.insert_mut(handle);
        }
    }

    /// Lists an ephemeral node as open no longer.
    pub fn unlist_open(&mut self, session: SessionId, handle: &NodeHandle) {
        if let Some(record) = self.records.get_mut(&session) {
            record.opens.remove_mut(handle);
        }
    }

    /// Lets `via` speak for the client under `claim` from here on; one that is not known yet is from here on.
    ///
    /// # Errors
    /// Somebody else speaks for it, or it was ended.
    pub fn claim(&mut self, session: SessionId, via: SessionId, claim: Claim) -> Result<(), Error> {
        match self.records.get_mut(&session) {
            Some(record) => {
                let principal = record.principal.clone();
                record.attach(Some(via), claim, &principal)
            }
            None => {
                // As whom it acts is said with each of its writes.
                self.records.insert_mut(session, ClientRecord::new(Some(via), claim, ""));
                Ok(())
            }
        }
    }

    /// Ends the client: takes everything off its record, and hands out the locks and the ephemeral nodes open.
    pub fn end(&mut self, session: SessionId) -> (Vec<NodeHandle>, Vec<NodeHandle>) {
        let Some(record) = self.records.get_mut(&session) else {
            return (Vec::new(), Vec::new());
        };
        let (locks, opens) = (record.locks.iter().cloned().collect(), record.opens.iter().cloned().collect());
        record.locks = RedBlackTreeSetSync::new_sync();
        record.opens = RedBlackTreeSetSync::new_sync();
        record.answers = RedBlackTreeMapSync::new_sync();
        record.has_ended = true;
        (locks, opens)
    }

    /// Lets an idle record linger from command `index` on, unless the client has a session of its own, which it
    /// falls back to if it has lost its speaker. What is not idle stays as it is.
    pub fn tidy(&mut self, session: SessionId, has_own_session: bool, index: u64) {
        if !self.get(session).is_some_and(ClientRecord::is_idle) {
            return;
        }
        let Some(record) = self.records.get_mut(&session) else { return };
        if !has_own_session {
            record.lingers_since.get_or_insert(index);
        } else if record.orphaned_at.take().is_some() {
            record.via = None;
        }
    }

    /// Forgets what lingers since this command or longer.
    pub fn forget(&mut self, since: u64) {
        let lingers = |record: &ClientRecord| record.lingers_since.is_some_and(|at| at <= since);
        let old: Vec<_> =
            self.iter().filter(|(_, record)| lingers(record)).map(|(session, _)| session).collect();
        for session in old {
            self.records.remove_mut(&session);
        }
    }

    /// Marks the clients that spoke through `proxy` as orphaned at command `index` (`proxy-3`). Returns them.
    pub fn orphan(&mut self, proxy: SessionId, index: u64) -> Vec<SessionId> {
        let is_left = |record: &ClientRecord| {
            record.via == Some(proxy) && record.orphaned_at.is_none() && !record.has_ended
        };
        let left: Vec<SessionId> =
            self.iter().filter(|(_, record)| is_left(record)).map(|(session, _)| session).collect();
        for session in &left {
            if let Some(record) = self.records.get_mut(session) {
                record.orphaned_at = Some(index);
            }
        }
        left
    }

    /// Something of a client comes from another cell, where it spoke under that claim. If it was not heard here under that
    /// claim, whoever speaks for it has the claim window to say so, as after the loss of a proxy (`move-3`).
    pub(super) fn take_over(
        &mut self,
        session: SessionId,
        (claim, principal): (Claim, &str),
        settled_below: RequestNumber,
        answers: impl Iterator<Item = (RequestNumber, KeptAnswer)>,
        index: u64,
    ) {
        let mut record = match self.records.get(&session) {
            Some(record) => record.clone(),
            None => ClientRecord { orphaned_at: Some(index), ..ClientRecord::new(None, claim, principal) },
        };
        if record.has_ended {
            return;
        }
        if claim > record.claim {
            record.claim = claim;
            record.principal = principal.into();
            record.orphaned_at = Some(index);
        }
        record.lingers_since = None;
        record.settle(settled_below);
        for (number, kept) in answers {
            if number >= record.settled_below && !record.answers.contains_key(&number) {
                record.answers.insert_mut(number, kept);
            }
        }
        self.records.insert_mut(session, record);
    }

    /// Puts a record in as a snapshot says; its locks and open nodes are listed one by one after it.
    pub(super) fn restore(
        &mut self,
        session: SessionId,
        (via, claim, principal): (Option<SessionId>, Claim, &str),
        settled_below: RequestNumber,
        fate: Fate,
        answers: impl Iterator<Item = (RequestNumber, KeptAnswer)>,
    ) {
        let mut record = ClientRecord::new(via, claim, principal);
        record.settled_below = settled_below;
        (record.orphaned_at, record.lingers_since) = (fate.orphaned_at, fate.lingers_since);
        record.has_ended = fate.has_ended;
        record.answers = answers.collect();
        self.records.insert_mut(session, record);
    }
}
