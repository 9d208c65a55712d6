//! What a relay does when names go to another cell (`move-4`): the cell that has them now hears through whom their clients
//! speak, and clients show it the handles that listen. Who listens is told of a fail-over, since nobody told of what
//! happened between.

use std::collections::BTreeSet;

use hasp_proto::client::Ask;
use hasp_proto::id::{CellName, RequestNumber};
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::Op;
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::RelayCore;
use super::departures::speak_for;
use super::flights::Purpose;

impl RelayCore {
    /// Requests go by this map from here on.
    pub(super) fn routed_by(&mut self, now: Time, map: PartitionMap) {
        let before = self.above.set_map(map);
        let map = self.above.map().clone();
        let journeys = before.journeys_to(&map);
        if journeys.is_empty() {
            return;
        }
        let left: BTreeSet<_> = journeys.iter().map(|(from, _)| from.clone()).collect();
        self.flights.displace(&left);
        for (from, to) in &journeys {
            let issuers =
                self.moved.get(from).into_iter().flatten().chain([from]).cloned().collect::<Vec<_>>();
            self.moved.entry(to.clone()).or_default().extend(issuers.into_iter().filter(|it| it != to));
            self.speak_there(now, from, to);
        }
        for (session, cell) in self.subscriptions.forget_names(|name| before.has_moved(name, &map)) {
            let epoch = self.sources.get(&cell).map(|source| source.epoch).unwrap_or_default();
            // Who cannot be told is over.
            self.server.tell(now, session, News::FailOver { cell, epoch });
        }
    }

    /// What clients have left in one cell may be in the other now: it hears who speaks for them, before it takes them for
    /// lost.
    fn speak_there(&mut self, now: Time, from: &CellName, to: &CellName) {
        let wrote = |cells: &[CellName]| cells.contains(from);
        let own: Vec<_> = self
            .footprints
            .iter()
            .filter(|(_, print)| wrote(print.wrote()))
            .filter_map(|(session, _)| Some((*session, self.server.holder(*session)?.clone())))
            .collect();
        for (session, holder) in own {
            self.footprints.entry(session).or_default().note_all(to);
            let on_behalf = speak_for(session, holder.claim, &holder.principal, RequestNumber(0));
            let ask = Ask { on_behalf: Some(on_behalf), ..Op::Claim.into() };
            self.ask_gate(now, to.clone(), Purpose::Claim(session, holder.claim), ask);
        }
        for (session, claim, principal) in self.guests.moved(from, to) {
            let on_behalf = speak_for(session, claim, &principal, RequestNumber(0));
            let ask = Ask { on_behalf: Some(on_behalf), ..Op::Claim.into() };
            self.ask_gate(now, to.clone(), Purpose::LateClaim(session, claim), ask);
        }
    }
}
