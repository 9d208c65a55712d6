//! What a relay does when a cell takes back what it let be cached, or is lost: its own copies go first,
//! then those below; the cell hears of it when none is left (`cache-4`).

use std::collections::BTreeSet;

use hasp_proto::client::{Event, NewsId};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Epoch, Sequence, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::server::cachers::RoundId;
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::{MARGIN, Output, Phase, RelayCore, Show, nesting};

impl RelayCore {
    /// Something happened to the own session at a cell.
    pub(super) fn happened(&mut self, now: Time, cell: &CellName, event: Event) {
        // What is granted with a Welcome counts when that is told: the lease before may have lapsed.
        let moves_ceiling = !matches!(event, Event::Welcomed { .. } | Event::News(..));
        self.take_in(now, cell, event);
        if moves_ceiling {
            self.set_ceiling(now);
        }
    }

    /// The same, before leases below may reach further by it.
    pub(super) fn take_in(&mut self, now: Time, cell: &CellName, event: Event) {
        match event {
            Event::Welcomed { session, resumed, master_of, handle_keys, .. } => {
                self.welcomed.insert(cell.clone());
                if let Some((_, key)) = handle_keys.into_iter().find(|(of, _)| of == cell) {
                    self.learn_key(cell, key);
                }
                let source = self.sources.entry(cell.clone()).or_default();
                let is_same = source.welcomed(session);
                if let Some((_, epoch)) = master_of {
                    source.epoch = source.epoch.max(epoch);
                }
                if !resumed {
                    self.forgotten(now, cell, is_same);
                }
            }
            Event::Extended => self.extended(cell),
            Event::CacheLapsed => self.lapsed(now, cell),
            Event::Expired(_) => self.lose(now, cell),
            Event::CellLost(_) => self.lost_above(now, cell, None),
            Event::News(id, item) => self.news(now, cell, id, item),
            Event::Jeopardy | Event::Safe | Event::Closed => {}
        }
    }

    fn learn_key(&mut self, cell: &CellName, key: HandleKey) {
        self.server.pass_on_key(cell.clone(), key.clone());
        self.sources.entry(cell.clone()).or_default().key = Some(key.clone());
        self.outputs.push_back(Output::Show(Show::Key(cell.clone(), key)));
    }

    pub(super) fn set_ceiling(&mut self, now: Time) {
        if self.phase < Phase::Stopping {
            let standing = nesting::ceiling(self.upstream.sessions(), MARGIN);
            let lost = self.sources.values().filter_map(|source| source.ceiling(MARGIN));
            self.server.set_ceiling(now, lost.fold(standing, |tightest, other| tightest.and(other)));
        }
    }

    /// Lets a session below keep these items of an answer that it is about to get; returns which it may.
    pub(super) fn let_cache(
        &mut self,
        now: Time,
        cell: &CellName,
        session: SessionId,
        copy: &Copy<'_>,
    ) -> ItemKinds {
        let (Some(own_end), Some(its_end)) = (self.upstream.cache_end(cell), self.server.cache_end(session))
        else {
            return ItemKinds::NONE;
        };
        // lease-1, also for a cell that was not counted yet when the session's lease was granted.
        let is_nested = its_end <= own_end && self.phase < Phase::Stopping;
        if !is_nested || !self.server.may_cache(now, session) || self.fading.get(session).is_some() {
            return ItemKinds::NONE;
        }
        let Some(source) = self.sources.get_mut(cell) else { return ItemKinds::NONE };
        let mut granted = ItemKinds::NONE;
        for kind in copy.kinds.kinds() {
            let name = if kind == ItemKind::Acl { copy.acl_file() } else { Some(copy.name.clone()) };
            if name.is_some_and(|name| source.cachers.register(session, &Item::new(name, kind))) {
                granted = granted.with(kind);
            }
        }
        if !granted.is_empty() {
            self.server.note_keeps(now, session);
        }
        granted
    }

    /// A session below has dealt with a piece of news.
    pub(super) fn acknowledged(&mut self, now: Time, session: SessionId, sequence: Sequence) {
        for cell in self.above.cells().to_vec() {
            let Some(source) = self.sources.get_mut(&cell) else { continue };
            let ready = source.cachers.acknowledged(session, sequence);
            self.finish(now, &cell, ready);
        }
    }

    /// Whatever a session below had cached is void: it lost its cache lease, or ended.
    pub(super) fn holds_nothing(&mut self, now: Time, session: SessionId) {
        for cell in self.above.cells().to_vec() {
            let Some(source) = self.sources.get_mut(&cell) else { continue };
            let ready = source.cachers.gone(session);
            self.finish(now, &cell, ready);
        }
    }

    /// A session below is over without having said so: until the cache lease that it may believe in has
    /// ended, its copies count.
    pub(super) fn fade(&mut self, now: Time, session: SessionId, cache_end: Time) {
        if cache_end > now {
            self.fading.set(session, Some(cache_end));
        } else {
            self.holds_nothing(now, session);
        }
    }

    pub(super) fn end_fading(&mut self, now: Time) {
        while let Some(session) = self.fading.pop_due(now) {
            self.holds_nothing(now, session);
        }
    }

    pub(super) fn news(&mut self, now: Time, cell: &CellName, id: NewsId, item: News) {
        match item {
            News::Invalidate { items, floor } => self.invalidate(now, cell, id, items, &floor),
            News::FailOver { epoch, .. } => self.failed_over(now, cell, epoch, id),
            News::CellLost { .. } => self.lost_above(now, cell, Some(id)),
            News::Event(event) => {
                self.see(cell, &event.position);
                for session in self.subscriptions.hearers(&event) {
                    self.server.tell_event(now, session, event.clone());
                }
                self.acknowledge(now, cell, id);
            }
            News::EventsLost { .. } => {
                self.tell_events_lost(now, cell);
                self.acknowledge(now, cell, id);
            }
        }
    }

    pub(super) fn tell_events_lost(&mut self, now: Time, cell: &CellName) {
        for session in self.subscriptions.hearers_of(cell) {
            self.server.tell_events_lost(now, session);
        }
    }

    fn acknowledge(&mut self, now: Time, cell: &CellName, id: NewsId) {
        let at = (!self.above.is_one()).then_some(cell);
        self.upstream.acknowledge(now, at, id);
    }

    fn invalidate(&mut self, now: Time, cell: &CellName, id: NewsId, items: Vec<Item>, floor: &Position) {
        self.counts.upstream_invalidations += 1;
        self.counts.invalidations += items.len() as u64;
        self.see(cell, floor);
        self.take_back(now, cell, Some(id), items, floor);
    }

    /// Drops the own copies of these items, and has those below dropped; `id` is acknowledged after that.
    pub(super) fn take_back(
        &mut self,
        now: Time,
        cell: &CellName,
        id: Option<NewsId>,
        items: Vec<Item>,
        floor: &Position,
    ) {
        self.cache.invalidate(&items, floor);
        self.outputs.push_back(Output::Show(Show::Void(items.clone())));
        let (round, tell) = self.sources.entry(cell.clone()).or_default().begin(now, items, id);
        for (session, items) in tell {
            let news = News::Invalidate { items: items.clone(), floor: floor.clone() };
            if let Some(sequence) = self.server.tell(now, session, news) {
                let source = self.sources.get_mut(cell).expect("just used");
                source.cachers.told(session, sequence, items);
            }
            // Who cannot be told is over, and fades or is gone.
        }
        self.check_round(now, cell, round);
    }

    /// A new master speaks for the cell: nothing that its predecessors let be cached may be used when it
    /// hears that we know.
    fn failed_over(&mut self, now: Time, cell: &CellName, epoch: Epoch, id: NewsId) {
        let source = self.sources.entry(cell.clone()).or_default();
        // A host above that is no master may go on with what an earlier one said, and forget it later.
        let round = if source.is_told_of(epoch) && !self.above.is_one() {
            // They were told when this master's Welcome did not know us.
            source.begin(now, Vec::new(), Some(id)).0
        } else {
            self.void(cell, Some(epoch));
            let news = News::FailOver { cell: cell.clone(), epoch };
            self.tell_void(now, cell, &news, Some(id))
        };
        self.check_round(now, cell, round);
    }

    /// The host above does not know what it let us keep, or tell us, before. The first Welcome of a
    /// session says that too, and then there is nothing to forget.
    fn forgotten(&mut self, now: Time, cell: &CellName, was_welcomed: bool) {
        self.void(cell, None);
        let source = self.sources.entry(cell.clone()).or_default();
        if was_welcomed {
            let epoch = source.epoch;
            let news = News::FailOver { cell: cell.clone(), epoch };
            let round = self.tell_void(now, cell, &news, None);
            self.sources.entry(cell.clone()).or_default().moved(round);
            self.check_round(now, cell, round);
        }
    }

    /// The session at a cell is over, and with it what was promised of that cell (`route-7`). What is
    /// held of it below must be dropped before that promise ends: until then no lease is extended beyond.
    fn lose(&mut self, now: Time, cell: &CellName) {
        self.void(cell, None);
        let round = self.tell_void(now, cell, &News::CellLost { cell: cell.clone() }, None);
        self.sources.entry(cell.clone()).or_default().lost(round);
        self.check_round(now, cell, round);
    }

    /// The host above has lost its session with the cell.
    fn lost_above(&mut self, now: Time, cell: &CellName, news: Option<NewsId>) {
        self.void(cell, None);
        let round = self.tell_void(now, cell, &News::CellLost { cell: cell.clone() }, news);
        self.check_round(now, cell, round);
    }

    /// The own cache lease had ended. Those below, which were granted within it, had ended before
    /// (`lease-1`), and their holders find that out by themselves.
    fn lapsed(&mut self, now: Time, cell: &CellName) {
        self.void(cell, None);
        let Some(source) = self.sources.get(cell) else { return };
        let (holders, is_bound): (Vec<_>, _) = (source.cachers.sessions().collect(), source.is_bound());
        for session in holders {
            let end = self.server.cache_end(session).max(self.fading.get(session)).unwrap_or_default();
            // Who holds something of a session that was lost is bound by what that one had promised.
            debug_assert!(is_bound || end <= now, "lease-1: {session} may use copies until {end:?}");
            if end <= now {
                let ready = self.sources.get_mut(cell).expect("just seen").cachers.gone(session);
                self.finish(now, cell, ready);
            }
        }
    }

    fn extended(&mut self, cell: &CellName) {
        let Some(end) = self.upstream.cache_end(cell) else { return };
        self.sources.entry(cell.clone()).or_default().extended(end);
        self.outputs.push_back(Output::Show(Show::Lease(cell.clone(), end)));
    }

    /// Drops the own copies of what a cell said; reads under way are not kept.
    fn void(&mut self, cell: &CellName, epoch: Option<Epoch>) {
        self.cache.flush_cell(cell, epoch);
        self.outputs.push_back(Output::Show(Show::VoidCell(cell.clone())));
    }

    /// Tells sessions that nothing they cached of the cell holds, nor what they subscribed to: all of a fail-over, of
    /// other things those that used the cell. The round waits for those that may hold something.
    fn tell_void(&mut self, now: Time, cell: &CellName, news: &News, id: Option<NewsId>) -> RoundId {
        self.tell_strangers(now, cell, news);
        self.subscriptions.forget_cell(cell);
        let source = self.sources.entry(cell.clone()).or_default();
        if let News::FailOver { epoch, .. } = news {
            source.told_of(*epoch);
        }
        let (round, holders) = source.begin_all(now, id);
        let mut hearers = match news {
            News::FailOver { .. } => self.server.sessions().collect(),
            News::CellLost { .. } | News::Invalidate { .. } | News::Event(_) | News::EventsLost { .. } => {
                self.users_of(cell)
            }
        };
        hearers.extend(holders.iter().copied());
        for session in hearers {
            // Who cannot be told is over, and fades or is gone: it acknowledges nothing, so 0 will do.
            let sequence = self.server.tell(now, session, news.clone()).unwrap_or_default();
            if holders.contains(&session) {
                self.sources.get_mut(cell).expect("just used").cachers.suspect(session, sequence);
            }
        }
        round
    }

    /// Clients go by the cell that has made their handles. Those with handles on nodes that have moved to this cell are told
    /// so, too.
    fn tell_strangers(&mut self, now: Time, cell: &CellName, news: &News) {
        let told: Vec<(SessionId, News)> = match news {
            News::FailOver { .. } => {
                let of = |(session, cell): (SessionId, CellName)| {
                    let epoch = self.sources.get(&cell).map(|source| source.epoch).unwrap_or_default();
                    (session, News::FailOver { cell, epoch })
                };
                self.subscriptions.strangers_in(cell).into_iter().map(of).collect()
            }
            // Which handles are on what has moved is not known here.
            News::CellLost { .. } => {
                let issuers = self.moved.get(cell).cloned().unwrap_or_default();
                let users = self.users_of(cell);
                let of = |issuer: CellName| {
                    let lost = News::CellLost { cell: issuer };
                    users.iter().map(move |session| (*session, lost.clone())).collect::<Vec<_>>()
                };
                issuers.into_iter().flat_map(of).collect()
            }
            News::Invalidate { .. } | News::Event(_) | News::EventsLost { .. } => Vec::new(),
        };
        for (session, news) in told {
            // Who cannot be told is over.
            self.server.tell(now, session, news);
        }
    }

    fn users_of(&self, cell: &CellName) -> BTreeSet<SessionId> {
        self.footprints.iter().filter(|(_, print)| print.used(cell)).map(|(session, _)| *session).collect()
    }

    fn check_round(&mut self, now: Time, cell: &CellName, round: RoundId) {
        let is_ready = self.sources.get(cell).is_some_and(|source| source.cachers.is_ready(round));
        self.finish(now, cell, is_ready.then_some(round));
    }

    fn finish(&mut self, now: Time, cell: &CellName, ready: impl IntoIterator<Item = RoundId>) {
        let Some(source) = self.sources.get_mut(cell) else { return };
        let was_bound = source.is_bound();
        let acknowledge = source.finish(ready);
        let is_free = was_bound && !source.is_bound();
        for (id, began) in acknowledge {
            self.outputs.push_back(Output::FannedOut(now.saturating_since(began)));
            self.acknowledge(now, cell, id);
        }
        if is_free {
            self.set_ceiling(now);
        }
    }

    /// The latest position heard of the cell. See [`super::sources::Source::see`].
    pub(super) fn see(&mut self, cell: &CellName, position: &Position) {
        if position.cell == *cell
            && let Some(source) = self.sources.get_mut(cell)
            && source.see(position)
        {
            self.outputs.push_back(Output::Show(Show::Seen(position.clone())));
        }
    }
}

/// Which parts of an answer may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy<'a> {
    pub(super) name: &'a Name,
    /// The node's ACL for reading.
    pub(super) acl: Option<&'a str>,
    pub(super) kinds: ItemKinds,
}

impl Copy<'_> {
    fn acl_file(&self) -> Option<Name> {
        Name::parse(&format!("/ls/{}/acl/{}", self.name.namespace(), self.acl?)).ok()
    }
}
