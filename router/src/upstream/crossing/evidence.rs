//! What requests carry of the home cell's ACLs, from when a cell asks for it until nobody goes by it any more (`route-5`).

use std::collections::BTreeSet;

use hasp_proto::acl::{ACL_DIRECTORY, AclEntries};
use hasp_proto::client::{Ask, Event, NewsId};
use hasp_proto::crossing::{CrossOp, Membership};
use hasp_proto::error::ErrorCode;
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::super::carriers::Carrier;
use super::super::vouching::VOUCH_INTERVAL;
use super::super::{Asked, Place, Ticket, UpstreamCore};
use super::{Crossed, Landed, Question, Stage, failed};

impl UpstreamCore {
    /// A request goes out to that slot's cell.
    pub(in crate::upstream) fn carry(&mut self, now: Time, slot: usize, asked: &mut Asked) {
        asked.progress.asked_at = now;
        asked.progress.is_revoked = false;
        let Some(client) = &asked.ask.on_behalf else { return };
        let Some(evidence) = client.evidence.as_ref().filter(|it| !it.memberships.is_empty()) else { return };
        let acls = evidence.memberships.iter().map(|it| it.acl.clone()).collect();
        let is_waiting = matches!(asked.ask.op, Op::Acquire(..));
        let until = self.home_end(now).unwrap_or(now);
        self.crossings.carriers.add(asked.ticket, Carrier { slot, acls, is_waiting, until });
        if is_waiting {
            self.crossings.vouching.begin(now);
        }
    }

    /// A request is under way no longer.
    pub(in crate::upstream) fn set_down(&mut self, now: Time, ticket: Ticket) {
        for news in self.crossings.carriers.remove(ticket) {
            self.acknowledge_home(now, news);
        }
    }

    /// The owner has dealt with a piece of news; whether the cell may hear of it at once.
    pub(in crate::upstream) fn may_acknowledge(&mut self, slot: usize, news: NewsId) -> bool {
        self.crossings.home != Some(slot) || self.crossings.carriers.dealt_with(news)
    }

    /// Something happened to the session of that slot.
    ///
    /// What a fetch under way brings after this may be from before it, and so may what requests carry: a fetch is not
    /// kept, and requests that may wait for long are called back. What is void may not be said again either, as long as
    /// anything carries it.
    pub(in crate::upstream) fn note_event(&mut self, now: Time, slot: usize, event: &Event) {
        if matches!(event, Event::Welcomed { .. }) {
            self.offer(now, slot);
        }
        if matches!(event, Event::Welcomed { resumed: false, .. } | Event::News(_, News::FailOver { .. })) {
            self.forget_watches(slot);
        }
        if self.crossings.home != Some(slot) {
            return;
        }
        match event {
            Event::News(news, News::Invalidate { items, .. }) => {
                let voided: BTreeSet<String> = items.iter().filter_map(|item| self.acl_of(item)).collect();
                let mut carriers = BTreeSet::new();
                for acl in &voided {
                    self.crossings.acls.void(acl);
                    carriers.extend(self.crossings.carriers.void(acl));
                }
                self.crossings.carriers.hold(*news, carriers.clone());
                self.revoke(now, carriers);
            }
            Event::News(news, News::FailOver { .. } | News::CellLost { .. }) => {
                self.crossings.acls.void_all();
                let carriers = self.crossings.carriers.void_all();
                self.crossings.carriers.hold(*news, carriers.clone());
                self.revoke(now, carriers);
            }
            Event::Welcomed { resumed: false, .. }
            | Event::CacheLapsed
            | Event::Jeopardy
            | Event::CellLost(_)
            | Event::Expired(_)
            | Event::Closed => {
                if matches!(event, Event::Jeopardy) {
                    self.fail_fetches();
                }
                self.crossings.acls.void_all();
                let carriers = self.crossings.carriers.void_all();
                self.revoke(now, carriers);
            }
            Event::News(_, News::Event(_) | News::EventsLost { .. })
            | Event::Welcomed { resumed: true, .. }
            | Event::Extended
            | Event::Safe => {}
        }
    }

    /// Gives a request along what is known of the ACLs that the cell is likely to ask for.
    pub(in crate::upstream) fn bring_along(&mut self, now: Time, slot: usize, asked: &mut Asked) {
        if self.crossings.home.is_none_or(|home| home == slot) || asked.ask.on_behalf.is_none() {
            return;
        }
        let likely = self.crossings.hints.of(slot, &asked.ask.op);
        asked.progress.acls.extend(likely);
        self.vouch_for(now, slot, asked);
    }

    /// Asks a request again, with what is known by now.
    pub(super) fn ask_again(&mut self, now: Time, slot: usize, mut asked: Asked) {
        self.vouch_for(now, slot, &mut asked);
        asked.progress.denied = None;
        self.ask(now, slot, asked);
    }

    /// Puts into a request what is known of its ACLs, and nothing else.
    fn vouch_for(&self, now: Time, slot: usize, asked: &mut Asked) {
        asked.drop_memberships();
        let memberships = self.memberships(asked);
        if memberships.is_empty() {
            return;
        }
        // Without one the cell will ask for the ACLs again, and tell us its time.
        let end = self.home_end(now).unwrap_or(now);
        if let Some(vouch) = self.crossings.vouching.vouch(now, slot, end)
            && let Some(evidence) = asked.evidence()
        {
            evidence.memberships = memberships;
            evidence.vouch = Some(vouch);
        }
    }

    /// What is known of the ACLs that the cell asked for.
    fn memberships(&self, asked: &Asked) -> Vec<Membership> {
        let Some(client) = &asked.ask.on_behalf else { return Vec::new() };
        let of = |acl: &String| {
            let known = self.crossings.acls.entries(acl).map(|entries| entries.contains(&client.principal));
            let is_denied = asked.progress.denied.as_ref() == Some(acl);
            let is_member = known.or(is_denied.then_some(false))?;
            Some(Membership { acl: acl.clone(), is_member })
        };
        asked.progress.acls.iter().filter_map(of).collect()
    }

    pub(super) fn get_acl(&mut self, now: Time, slot: usize, asked: Asked, acl: String) {
        if self.home_end(now).is_some() && self.crossings.acls.entries(&acl).is_some() {
            return self.ask_again(now, slot, asked);
        }
        let ticket = asked.ticket;
        self.wait(Crossed { asked, slot, stage: Stage::Acl(acl.clone()) });
        if !self.crossings.acls.join(&acl, ticket) {
            self.fetch(now, acl, [ticket].into());
        }
    }

    fn fetch(&mut self, now: Time, acl: String, waiting: BTreeSet<Ticket>) {
        let home = self.crossings.home.expect("only cells have needs");
        let ask = Ask { caches: true, ..Op::Cross(CrossOp::ReadAcl(acl.clone())).into() };
        let question = self.run(now, home, Question::Acl(acl.clone()), ask);
        self.crossings.acls.fetch(acl, question, waiting);
    }

    /// The file of an ACL came, or did not.
    pub(super) fn acl_came(&mut self, now: Time, acl: &str, question: Ticket, answer: &Answer) {
        let Some(fetch) = self.crossings.acls.land(acl, question) else { return };
        let said = read(answer).and_then(|(entries, may_keep)| match self.home_end(now) {
            Some(_) => Ok((entries, may_keep)),
            None => Err("the cache lease there is over".to_owned()),
        });
        let (said, is_kept) = match said {
            Ok((entries, may_keep)) => {
                let is_kept = may_keep && self.crossings.acls.keep(acl, &fetch, entries.clone());
                (Ok(entries), is_kept)
            }
            Err(why) => (Err(why), false),
        };
        for ticket in fetch.waiting {
            self.acl_known(now, acl, ticket, &said, is_kept);
        }
        if is_kept {
            fetch.late.into_iter().for_each(|ticket| self.acl_known(now, acl, ticket, &said, true));
        } else if !fetch.late.is_empty() {
            self.fetch(now, acl.to_owned(), fetch.late);
        }
    }

    /// A request that waited for an ACL goes on. See [`super::acls`] for what an answer is worth that is not kept.
    fn acl_known(
        &mut self,
        now: Time,
        acl: &str,
        ticket: Ticket,
        said: &Result<AclEntries, String>,
        is_kept: bool,
    ) {
        let Some(Crossed { mut asked, slot, .. }) = self.take_crossed(ticket) else { return };
        let home = self.crossings.home.map_or("?", |home| self.cell_at(home));
        let principal = asked.ask.on_behalf.as_ref().map_or("", |client| &client.principal);
        let detail = match said {
            Ok(entries) if !is_kept && entries.contains(principal) => {
                format!("ACL {acl} is being changed in its home cell {home}")
            }
            Ok(_) => {
                asked.progress.denied = (!is_kept).then(|| acl.to_owned());
                return self.ask_again(now, slot, asked);
            }
            Err(why) => format!("ACL {acl} cannot be read in its home cell {home}: {why}"),
        };
        self.give_up(now, slot, asked, failed(&detail));
    }

    /// The home cell cannot be reached: nobody waits for what it would say of ACLs.
    fn fail_fetches(&mut self) {
        let answer = failed("the session there is in jeopardy");
        for (acl, question) in self.crossings.acls.fetches() {
            let landed = Landed::Question(question, Question::Acl(acl.clone()), Box::new(answer.clone()));
            self.crossings.landed.push_back(landed);
        }
    }

    /// Calls back those that may wait for long.
    fn revoke(&mut self, now: Time, carriers: BTreeSet<Ticket>) {
        for ticket in
            carriers.into_iter().filter(|it| self.crossings.carriers.is_waiting(*it)).collect::<Vec<_>>()
        {
            let Some(Place::Asked(slot, number)) = self.places.get(&ticket).copied() else { continue };
            let Some(asked) = self.slots[slot].asked.get_mut(&number) else { continue };
            let was_cancelled = asked.progress.is_cancelled || asked.progress.is_revoked;
            asked.progress.is_revoked = true;
            if !was_cancelled {
                self.with_client(now, slot, |client| client.cancel(number));
            }
        }
    }

    /// Tells cells where requests wait that what was said of ACLs holds still, and hears their time.
    pub(super) fn vouch_again(&mut self, now: Time) {
        self.crossings.vouching.due = None;
        for slot in self.crossings.carriers.to_renew() {
            let Some(end) = self.home_end(now) else { continue };
            if !self.crossings.vouching.ask(slot) {
                continue;
            }
            let vouch = self.crossings.vouching.vouch(now, slot, end);
            if vouch.is_some() {
                self.crossings.carriers.renewed(slot, end);
            }
            self.run(now, slot, Question::Vouch(slot), Op::Cross(CrossOp::Vouch(vouch)).into());
        }
        if self.crossings.carriers.is_any_waiting() {
            self.crossings.vouching.due = Some(now + VOUCH_INTERVAL);
        }
    }

    pub(super) fn acknowledge_home(&mut self, now: Time, news: NewsId) {
        if let Some(home) = self.crossings.home {
            self.with_client(now, home, |client| client.acknowledge(news));
        }
    }

    /// The end of the cache lease at the home cell, if it is not over.
    fn home_end(&self, now: Time) -> Option<Time> {
        let home = self.slots[self.crossings.home?].cell.as_ref()?;
        self.cache_end(home).filter(|end| *end > now)
    }

    /// The ACL whose file the item is of.
    fn acl_of(&self, item: &Item) -> Option<String> {
        let map = self.map()?;
        let directory = item.name.parent()?;
        let is_it = directory.component() == ACL_DIRECTORY
            && directory.parent().is_some_and(|root| root.parent().is_none())
            && directory.namespace() == map.namespace;
        is_it.then(|| item.name.component().to_owned())
    }
}

/// What an answer says of an ACL, and whether it may be kept; or why it says nothing.
fn read(answer: &Answer) -> Result<(AclEntries, bool), String> {
    match &answer.result {
        Ok(Reply::Contents { contents, .. }) => {
            let entries = AclEntries::parse(contents).map_err(|error| error.detail)?;
            Ok((entries, answer.caches.contains(ItemKind::Data)))
        }
        Err(error) if error.code == ErrorCode::NotFound && answer.position.is_some() => {
            Ok((AclEntries::default(), answer.caches.contains(ItemKind::Absence)))
        }
        Ok(_) => Err("its answer makes no sense".to_owned()),
        Err(error) => Err(error.detail.clone()),
    }
}
