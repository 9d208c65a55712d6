//! Each cell as a source of cached data: who below may keep what of it, how far its word reaches, and
//! what has to be dropped below before it hears that it was (`cache-4`).
//!
//! ```text
//! round:  begun (an invalidation, a fail-over, a loss above) -- everybody below who may hold a copy has
//!         dropped it, or lost the cache lease --> ready --> finished: acknowledged above
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_proto::client::NewsId;
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Epoch, SessionId};
use hasp_proto::item::Item;
use hasp_proto::lease::{Ceiling, LeaseEnds};
use hasp_proto::position::Position;
use hasp_proto::server::cachers::{Cachers, RoundId};
use hasp_proto::time::Time;

use super::counts::Round;

/// One cell. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// Own session there, as it was welcomed last.
    pub(super) session: Option<SessionId>,
    /// Of the cell's handles.
    pub(super) key: Option<HandleKey>,
    /// The mastership that speaks.
    pub(super) epoch: Epoch,
    /// The latest mastership that sessions below were told of by a fail-over.
    told_of: Epoch,
    /// Who below may hold copies.
    pub(super) cachers: Cachers,
    /// The latest position in anything that was heard from the cell. See [`Source::see`].
    seen: Option<Position>,
    /// The latest end of the own cache lease.
    cache_end: Time,
    rounds_begun: u64,
    rounds: BTreeMap<RoundId, Round>,
    /// The session above was lost while copies were held below; until they are dropped, leases below
    /// stay within what it had promised.
    loss: Option<(RoundId, Time)>,
}

impl Source {
    /// Something was heard of the cell, as of this position; whether it is the latest so far.
    ///
    /// What is cached and was not invalidated is current as of the latest position heard, not only as of
    /// the one where it was read: a write that changes it is done only after the cell has told this host
    /// to drop it and has heard that it did, or after its cache lease ended (`cache-1`). What the cell
    /// says comes in order. So if something heard reflects the write, the invalidation came before it.
    /// That is why hits are answered with this position, and a client that wrote through this host is
    /// never shown an older one (P-MONO).
    pub(super) fn see(&mut self, position: &Position) -> bool {
        self.epoch = self.epoch.max(position.epoch);
        let is_later = self.seen.as_ref().is_none_or(|seen| seen.is_before(position));
        if is_later {
            self.seen = Some(position.clone());
        }
        is_later
    }

    /// What cached data of this cell is current as of.
    pub(super) const fn seen(&self) -> Option<&Position> {
        self.seen.as_ref()
    }

    /// The session at the cell was welcomed; whether it is the one that was welcomed before.
    pub(super) fn welcomed(&mut self, session: SessionId) -> bool {
        self.session.replace(session) == Some(session)
    }

    /// Sessions below were told of this mastership.
    pub(super) fn told_of(&mut self, epoch: Epoch) {
        self.told_of = self.told_of.max(epoch);
    }

    /// Whether they were.
    pub(super) fn is_told_of(&self, epoch: Epoch) -> bool {
        self.told_of >= epoch
    }

    /// The own cache lease reaches that far.
    pub(super) fn extended(&mut self, cache_end: Time) {
        self.cache_end = self.cache_end.max(cache_end);
    }

    /// These items are about to change. Returns the round and whom to tell of what, as
    /// [`Cachers::begin`] does. With the finished round `news` is acknowledged.
    pub(super) fn begin(
        &mut self,
        now: Time,
        items: Vec<Item>,
        news: Option<NewsId>,
    ) -> (RoundId, BTreeMap<SessionId, Vec<Item>>) {
        let round = self.next_round(now, news);
        let tell = self.cachers.begin(round, items);
        (round, tell)
    }

    /// Everything cached of the cell is void. Returns the round and who has to drop what it holds, as
    /// [`Cachers::begin_all`] does.
    pub(super) fn begin_all(&mut self, now: Time, news: Option<NewsId>) -> (RoundId, BTreeSet<SessionId>) {
        let round = self.next_round(now, news);
        let holders = self.cachers.begin_all(round);
        (round, holders)
    }

    /// The session above is over: until that round is finished, what it had promised binds leases below.
    pub(super) fn lost(&mut self, round: RoundId) {
        let end = std::mem::take(&mut self.cache_end);
        self.bind(round, end);
    }

    /// The session above is with a host that knows nothing of it: until that round is finished, what the
    /// host before had promised binds leases below.
    pub(super) fn moved(&mut self, round: RoundId) {
        let end = std::mem::take(&mut self.cache_end);
        self.bind(round, end);
    }

    fn bind(&mut self, round: RoundId, end: Time) {
        let end = self.loss.map_or(end, |(_, bound)| bound.min(end));
        self.loss = Some((round, end));
    }

    /// Finishes rounds that are ready. Returns what is to be acknowledged above, and since when
    /// the rounds went on.
    pub(super) fn finish(&mut self, rounds: impl IntoIterator<Item = RoundId>) -> Vec<(NewsId, Time)> {
        let mut acknowledge = Vec::new();
        for round in rounds {
            let Some(Round { news, began }) = self.rounds.remove(&round) else { continue };
            self.cachers.finish(round);
            self.loss.take_if(|(lost, _)| *lost == round);
            acknowledge.extend(news.map(|news| (news, began)));
        }
        acknowledge
    }

    /// Whether a loss binds leases below.
    pub(super) const fn is_bound(&self) -> bool {
        self.loss.is_some()
    }

    /// How far leases below may reach while a loss binds them.
    pub(super) fn ceiling(&self, margin: Duration) -> Option<Ceiling> {
        let (_, cache) = self.loss?;
        // The session lease is bound by sessions that stand, not by this one.
        let session = Time::from_micros(u64::MAX);
        Some(Ceiling::below(LeaseEnds { session, cache }, margin))
    }

    /// Rounds that are not finished.
    pub(super) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    pub(super) fn check_invariants(&self) {
        self.cachers.check_invariants();
        assert_eq!(self.rounds.len(), self.cachers.rounds(), "every round has its end");
        for round in self.rounds.keys() {
            assert!(!self.cachers.is_ready(*round), "cache-4: {round:?} waits for nobody");
        }
        if let Some((round, _)) = self.loss {
            assert!(self.rounds.contains_key(&round), "a loss binds until its round is finished");
        }
    }

    fn next_round(&mut self, now: Time, news: Option<NewsId>) -> RoundId {
        self.rounds_begun += 1;
        let round = RoundId(self.rounds_begun);
        self.rounds.insert(round, Round { news, began: now });
        round
    }
}

/// All cells, in order.
pub(super) type Sources = BTreeMap<CellName, Source>;
