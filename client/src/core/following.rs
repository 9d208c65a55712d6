//! Which proxies there are: the list that the namespace keeps ([`hasp_proto::hosts`]) is read when a session begins with one
//! and again whenever it changes. It is only used to find the next host when one is lost, so it may be a moment old; where
//! there is no list, or it is not for this client to read, the addresses that it was given will do.
//!
//! ```text
//! waiting -- time, under a session --> opening -- handle --> reading -- told it may be kept --> following
//!    ^------------------ refused, not to be kept ------------'                                     |
//!    '------------------------- the host says that it changes, or may have ------------------------'
//! ```

use std::time::Duration;

use hasp_proto::client::{Ask, Event, Status};
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::HandleToken;
use hasp_proto::hosts;
use hasp_proto::id::SessionId;
use hasp_proto::item::ItemKind;
use hasp_proto::lease::fraction_of;
use hasp_proto::name::Name;
use hasp_proto::request::{Answer, Op, Open, Reply, Use};
use hasp_proto::stream::News;
use hasp_proto::time::Time;
use hasp_router::upstream::Ticket;

use super::ApplicationCore;

/// After a change, clients ask within so much time: not all at once.
const SPREAD: Duration = Duration::from_secs(5);
/// Until the next attempt, when what was read is about to change.
const AGAIN: Duration = Duration::from_secs(1);
/// The same, when the list is not for this client to read.
const LATER: Duration = Duration::from_secs(300);

/// What is being done about it.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// It is looked at then, if a session stands.
    Waiting(Time),
    Opening(Ticket),
    Reading(Ticket, HandleToken),
    /// The host says when it changes.
    Following,
}

/// The list of proxies, followed.
#[derive(Clone, Debug)]
pub(super) struct Following {
    /// As it was given.
    given: Vec<String>,
    /// In the first host's namespace.
    name: Name,
    /// As the host calls it, once that is known.
    true_name: Option<Name>,
    state: State,
}

impl Following {
    /// Of a client that was given these addresses.
    pub(super) fn new(given: Vec<String>) -> Self {
        let name = Name::parse(&format!("/ls/local/{}", hosts::PROXIES_FILE)).expect("a name");
        Self { given, name, true_name: None, state: State::Waiting(Time::from_micros(u64::MAX)) }
    }

    fn due(&self) -> Option<Time> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Opening(_) | State::Reading(..) | State::Following => None,
        }
    }

    /// Whether the list may have changed by that.
    fn is_affected(&self, event: &Event) -> bool {
        let is_it = |name: &Name| match &self.true_name {
            Some(own) => own == name,
            // An absent file has no handle that would tell its true name.
            None => name.as_str().ends_with(hosts::PROXIES_FILE),
        };
        match event {
            Event::Welcomed { resumed, .. } => !resumed,
            Event::CacheLapsed | Event::CellLost(_) => true,
            Event::News(_, News::Invalidate { items, .. }) => items.iter().any(|item| {
                matches!(item.kind, ItemKind::Data | ItemKind::Absence | ItemKind::Acl) && is_it(&item.name)
            }),
            Event::News(_, News::FailOver { .. } | News::CellLost { .. }) => true,
            Event::News(..)
            | Event::Extended
            | Event::Jeopardy
            | Event::Safe
            | Event::Expired(_)
            | Event::Closed => false,
        }
    }
}

impl ApplicationCore {
    /// Something happened to the session: the list may have to be looked at again.
    pub(super) fn follow(&mut self, now: Time, event: &Event) {
        let spread =
            fraction_of(SPREAD, self.upstream.sessions().next().map_or(0, |held| place(held.session)));
        let Some(following) = &mut self.following else { return };
        if following.is_affected(event) {
            let at = now + spread;
            following.state = State::Waiting(following.due().map_or(at, |due| due.min(at)));
        }
    }

    pub(super) fn follow_at(&self) -> Option<Time> {
        let due = self.following.as_ref()?.due()?;
        self.upstream.sessions().any(|held| held.status == Status::Safe).then_some(due)
    }

    /// Looks at the list, if it is time to.
    pub(super) fn look_at_list(&mut self, now: Time) {
        if self.follow_at().is_none_or(|at| at > now) {
            return;
        }
        let Some(following) = &mut self.following else { return };
        let open = Op::Open(Open::existing(following.name.clone(), Use::Read));
        following.state = State::Opening(self.upstream.submit(now, Ask { caches: true, ..open.into() }));
    }

    /// Takes in an answer, if it is about the list; whether it was.
    pub(super) fn followed(&mut self, now: Time, ticket: Ticket, answer: &Answer) -> bool {
        let Some(following) = &mut self.following else { return false };
        match (&following.state, &answer.result) {
            (State::Opening(asked), Ok(Reply::Opened { handle, .. })) if *asked == ticket => {
                following.true_name = handle.claimed_body().map(|body| body.name);
                let read = Ask { caches: true, ..Op::GetContentsAndStat(handle.clone()).into() };
                following.state = State::Reading(self.upstream.submit(now, read), handle.clone());
            }
            (State::Reading(asked, handle), result) if *asked == ticket => {
                let (handle, result) = (handle.clone(), result.clone());
                let is_told = answer.caches.contains(ItemKind::Data);
                following.state = if is_told { State::Following } else { State::Waiting(now + AGAIN) };
                if let Ok(Reply::Contents { contents, .. }) = result {
                    // The cell takes no list that cannot be read; one that names nobody names those that were given.
                    let listed = hosts::parse(&contents).unwrap_or_default();
                    self.use_hosts(listed);
                }
                let _ = self.upstream.submit(now, Op::Close(handle).into());
            }
            (State::Opening(asked), Err(error)) if *asked == ticket => {
                let is_absent = error.code == ErrorCode::NotFound;
                let is_told = answer.caches.contains(ItemKind::Absence);
                following.state = match (is_absent, is_told) {
                    (true, true) => State::Following,
                    (true, false) => State::Waiting(now + AGAIN),
                    (false, _) => State::Waiting(now + LATER),
                };
                if is_absent {
                    self.use_hosts(Vec::new());
                }
            }
            (State::Opening(asked), Ok(_)) if *asked == ticket => {
                following.state = State::Waiting(now + LATER)
            }
            _ => return false,
        }
        true
    }

    fn use_hosts(&mut self, listed: Vec<String>) {
        let Some(following) = &self.following else { return };
        let hosts = if listed.is_empty() { following.given.clone() } else { listed };
        self.upstream.set_hosts(hosts);
    }

    /// What stands for the addresses that were given has changed: names may mean other hosts by now.
    pub(super) fn given_again(&mut self, given: Vec<String>) {
        match &mut self.following {
            Some(following) if following.state == State::Following && following.true_name.is_some() => {
                // The list is newer than that.
                following.given = given;
            }
            Some(following) => {
                following.given.clone_from(&given);
                self.upstream.set_hosts(given);
            }
            None => self.upstream.set_hosts(given),
        }
    }
}

/// A session's place among all, in 65,536ths.
const fn place(session: SessionId) -> u16 {
    u16::from_be_bytes([session.0[14], session.0[15]])
}
