//! One node's lock (paper §2.4, `lock-1` to `lock-4`): who holds it, and which lock-delays bar it.
//!
//! ```text
//!            acquire shared                 acquire exclusive
//!   shared <---------------- free, no marks ------------------> exclusive
//!     |  \                     ^        ^                          |
//!     |   \ last released      | end of | end of                   | released: free at once
//!     |    '-------------------+ delay  | delay                    | lost: mark
//!     | lost: mark, others hold on      |                          v
//!     '-----------------------------> free, marks <----------------'
//! ```
//!
//! A holder that is *lost* (its client failed) leaves a *mark* until the master ends its lock-delay. A
//! mark bars every acquisition by anybody, the client it is of included, with one exception: while
//! others still hold the lock shared, more may join them. So a lock that is held has marks of shared
//! holders only, and one that is held exclusive has none.

use std::time::Duration;

use hasp_proto::id::{RequestNumber, SessionId};
use hasp_proto::limits::LOCK_DELAY_MAX;
use hasp_proto::node::LockMode;
use rpds::RedBlackTreeMapSync;

/// Who holds a lock: a handle, told apart by its client and the request that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderId {
    /// The client.
    pub session: SessionId,
    /// The client's `Open`.
    pub opened_by: RequestNumber,
}

/// What a lost holder leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayMark {
    /// How it was held.
    pub mode: LockMode,
    /// For how long it bars the lock, from whenever the master first saw it; never zero.
    pub duration: Duration,
}

/// Marks sort by the command that left them, then by the lost holder.
pub type MarkId = (u64, HolderId);

/// A node's lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// *Invariant*: `None` exactly while there are no holders.
    mode: Option<LockMode>,
    /// With each one's lock-delay.
    holders: RedBlackTreeMapSync<HolderId, Duration>,
    marks: RedBlackTreeMapSync<MarkId, DelayMark>,
}

/// How an acquisition succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// From free to held: the lock generation grows (`lock-3`).
    First,
    /// Shared holders were there already.
    Joined,
    /// The handle held it already, in this mode.
    Repeated,
}

/// Why an acquisition did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Others hold it, in a mode that conflicts.
    Held,
    /// This very handle holds it, in the other mode; waiting would last for ever.
    HeldBySelf(LockMode),
    /// The longest lock-delay in the way.
    Delayed(Duration),
}

impl Lock {
    /// How it is held; `None` if it is free (a lock-delay may still bar it).
    pub fn mode(&self) -> Option<LockMode> {
        self.mode
    }

    /// The handles that hold it, in order, each with its lock-delay.
    pub fn holders(&self) -> impl Iterator<Item = (HolderId, Duration)> + '_ {
        self.holders.iter().map(|(holder, delay)| (*holder, *delay))
    }

    /// How many handles hold it.
    pub fn holder_count(&self) -> usize {
        self.holders.size()
    }

    /// Whether this handle holds it.
    pub fn is_held_by(&self, holder: HolderId) -> bool {
        self.holders.contains_key(&holder)
    }

    /// The lock-delays that bar it, oldest first.
    pub fn marks(&self) -> impl Iterator<Item = (MarkId, DelayMark)> + '_ {
        self.marks.iter().map(|(id, mark)| (*id, *mark))
    }

    /// Whether a lock-delay is running.
    pub fn is_delayed(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Lock-delays that end together, as (command that began them, the longest of them), oldest first.
    pub fn delays(&self) -> impl Iterator<Item = (u64, Duration)> + '_ {
        let mut marks = self.marks.iter().peekable();
        std::iter::from_fn(move || {
            let ((began, _), mark) = marks.next()?;
            let mut longest = mark.duration;
            while let Some((_, mark)) = marks.next_if(|((other, _), _)| other == began) {
                longest = longest.max(mark.duration);
            }
            Some((*began, longest))
        })
    }

    /// Takes the lock for `holder`.
    ///
    /// # Errors
    /// Who is in the way. Nothing has changed then.
    pub fn acquire(
        &mut self,
        holder: HolderId,
        mode: LockMode,
        lock_delay: Duration,
    ) -> Result<Grant, Conflict> {
        if let Some(held) = self.mode
            && self.is_held_by(holder)
        {
            return if held == mode { Ok(Grant::Repeated) } else { Err(Conflict::HeldBySelf(held)) };
        }
        let grant = match (self.mode, mode) {
            (Some(LockMode::Shared), LockMode::Shared) => Grant::Joined,
            (Some(_), _) => return Err(Conflict::Held),
            (None, _) => match self.marks.values().map(|mark| mark.duration).max() {
                Some(longest) => return Err(Conflict::Delayed(longest)),
                None => Grant::First,
            },
        };
        self.mode = Some(mode);
        self.holders.insert_mut(holder, lock_delay.min(LOCK_DELAY_MAX));
        Ok(grant)
    }

    /// Gives the lock back, without lock-delay. Whether `holder` held it.
    pub fn release(&mut self, holder: HolderId) -> bool {
        let held = self.holders.remove_mut(&holder);
        if self.holders.is_empty() {
            self.mode = None;
        }
        held
    }

    /// Takes the lock from a holder that failed, at command `began`; its lock-delay starts unless it is
    /// zero. Whether it held the lock.
    pub fn lose(&mut self, holder: HolderId, began: u64) -> bool {
        let (Some(mode), Some(&duration)) = (self.mode, self.holders.get(&holder)) else {
            return false;
        };
        if !duration.is_zero() {
            self.marks.insert_mut((began, holder), DelayMark { mode, duration });
        }
        self.release(holder)
    }

    /// Ends the lock-delays that began at command `began`. Whether there were any.
    pub fn end_delay(&mut self, began: u64) -> bool {
        let ended: Vec<MarkId> = self
            .marks
            .keys()
            .skip_while(|(at, _)| *at < began)
            .take_while(|(at, _)| *at == began)
            .copied()
            .collect();
        for id in &ended {
            self.marks.remove_mut(id);
        }
        !ended.is_empty()
    }

    /// Lets all lock-delays begin at command `began`: whoever times them knows nothing of when they did.
    pub(super) fn restart_delays(&mut self, began: u64) {
        let mut marks = RedBlackTreeMapSync::new_sync();
        for ((_, holder), mark) in self.marks() {
            let longest = marks
                .get(&(began, holder))
                .map_or(mark.duration, |it: &DelayMark| it.duration.max(mark.duration));
            marks.insert_mut((began, holder), DelayMark { duration: longest, ..mark });
        }
        self.marks = marks;
    }

    /// Puts a lock together from what a snapshot says of it.
    pub(super) fn restore(
        mode: Option<LockMode>,
        holders: impl Iterator<Item = (HolderId, Duration)>,
        marks: impl Iterator<Item = (MarkId, DelayMark)>,
    ) -> Self {
        Self { mode, holders: holders.collect(), marks: marks.collect() }
    }

    /// What must always hold of one lock.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        assert_eq!(
            self.mode.is_none(),
            self.holders.is_empty(),
            "held in a mode exactly while somebody holds it"
        );
        if self.mode == Some(LockMode::Exclusive) {
            assert_eq!(self.holders.size(), 1, "an exclusive holder is alone");
            assert!(self.marks.is_empty(), "no lock-delay outlives an exclusive acquisition");
        }
        if self.mode == Some(LockMode::Shared) {
            let shared = self.marks.values().all(|mark| mark.mode == LockMode::Shared);
            assert!(shared, "nobody joins a lock that an exclusive holder lost before its lock-delay ends");
        }
        for (_, mark) in self.marks.iter() {
            assert!(!mark.duration.is_zero() && mark.duration <= LOCK_DELAY_MAX, "lock-delay out of bounds");
        }
    }
}
