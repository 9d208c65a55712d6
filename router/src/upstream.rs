//! The holding side of one user of the service: an application's library, a proxy, a router.
//!
//! It decides at which hosts sessions are held, which of them a request goes to (`route-1`), and
//! what becomes of requests whose session or cell does not answer for them. What a session is, is
//! decided by the [`ClientCore`] of each. It does not know who asks, nor how bytes travel.
//!
//! ```text
//! session at a cell:  none -- first use, or at once --> held -- expired, or rested --> none
//! request:            asked -- WrongCell --> paused --> asked ... answered
//!                     asked -- another cell is needed --> crossing --> asked ... answered
//! ```

mod acls;
mod beginning;
mod carriers;
mod config;
mod crossing;
mod following;
mod hints;
mod resting;
mod route;
mod slot;
#[cfg(test)]
mod tests;
mod vouching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hasp_proto::client::{self, Ask, Attempt, ClientCore, Event, NewsId, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{CellName, RequestNumber, SessionId};
use hasp_proto::lease::LeaseEnds;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op};
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;

pub use config::{Begin, Hosts, UpstreamConfig};
use crossing::{Crossings, Progress};
use following::Following;
use slot::Slot;

/// How often a request is sent to a cell that says it does not own the name, while the map says it
/// does: the cell may be behind the map.
const WRONG_CELL_TRIES: u8 = 4;
/// Pause between those.
const WRONG_CELL_PAUSE: Duration = Duration::from_millis(100);
/// Pause before the next session after one that no host wanted.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How long a caller over the limit is told to wait.
const RATE_PAUSE: Duration = Duration::from_millis(100);

/// A connection of one of the sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Whose session; `None` for the only one.
    pub cell: Option<CellName>,
    /// Grows; never used twice for a cell.
    pub attempt: Attempt,
}

/// Names a request until its answer is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the shell has to do and the owner is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection there; say `connected` or `disconnected`.
    Connect(LinkId, String),
    /// Close that connection; no more is expected from it.
    Disconnect(LinkId),
    /// Send this on that connection.
    Send(LinkId, Up),
    /// A request has its final answer. The number in it means nothing to who asked.
    Answered(Ticket, Answer),
    /// Something happened to the session at that cell.
    Event(Option<CellName>, Event),
    /// Requests are routed by this map from here on.
    Routes(Box<PartitionMap>),
}

/// One session, for status and lease arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// At which cell; `None` for the only one.
    pub cell: Option<&'a CellName>,
    /// Its id.
    pub session: SessionId,
    /// Where it stands.
    pub status: Status,
    /// Ends of its leases, by the holder's clock.
    pub ends: LeaseEnds,
    /// The host it speaks with, while it does.
    pub host: Option<&'a str>,
}

/// A request that waits for its answer.
#[derive(Clone, Debug)]
struct Asked {
    ticket: Ticket,
    ask: Ask,
    tries_left: u8,
    progress: Progress,
}

/// Where a request is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// With the session of that slot.
    Asked(usize, RequestNumber),
    /// Waiting to be routed again.
    Paused(Time),
    /// Waiting until the session of that slot has come to its end.
    HeldBack(usize),
    /// Waiting for what other cells have to do.
    Crossing,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct UpstreamCore {
    config: UpstreamConfig,
    /// In the order of the cells' names.
    slots: Vec<Slot>,
    keys_used: u64,
    tickets: u64,
    places: BTreeMap<Ticket, Place>,
    paused: BTreeMap<(Time, Ticket), Asked>,
    crossings: Crossings,
    following: Following,
    is_ending: bool,
    outputs: VecDeque<Output>,
}

impl UpstreamCore {
    /// A holder of no session yet; those that begin at once are due at `now`.
    pub fn new(now: Time, config: UpstreamConfig) -> Self {
        let mut slots = match &config.hosts {
            Hosts::One(_) => Vec::from([Slot::new(None, Vec::new())]),
            Hosts::Cells(map) => {
                let slot = |(cell, replicas): (&CellName, &Vec<String>)| {
                    Slot::new(Some(cell.clone()), replicas.clone())
                };
                map.cells.iter().map(slot).collect()
            }
        };
        if config.begin == Begin::AtOnce {
            slots.iter_mut().for_each(|slot| slot.begin_at = Some(now));
        }
        let home = match &config.hosts {
            Hosts::One(_) => None,
            Hosts::Cells(map) => slots.iter().position(|slot| slot.cell.as_ref() == Some(map.acl_owner())),
        };
        let mut core = Self {
            config,
            slots,
            keys_used: 0,
            tickets: 0,
            places: BTreeMap::new(),
            paused: BTreeMap::new(),
            crossings: Crossings::new(home),
            following: Following::Not,
            is_ending: false,
            outputs: VecDeque::new(),
        };
        core.following = core.follows();
        core
    }

    /// The map that requests are routed by; `None` if the host does that.
    pub fn map(&self) -> Option<&PartitionMap> {
        match &self.config.hosts {
            Hosts::One(_) => None,
            Hosts::Cells(map) => Some(map),
        }
    }

    /// The sessions that have begun, in the order of their cells.
    pub fn sessions(&self) -> impl Iterator<Item = Held<'_>> {
        self.slots.iter().filter_map(|slot| {
            let client = slot.client.as_deref()?;
            Some(Held {
                cell: slot.cell.as_ref(),
                session: client.session(),
                status: client.status(),
                ends: client.lease_ends(),
                host: client.host(),
            })
        })
    }

    /// Ends of the leases of each session that has begun.
    pub fn lease_ends(&self) -> impl Iterator<Item = (Option<&CellName>, LeaseEnds)> {
        self.sessions().map(|held| (held.cell, held.ends))
    }

    /// Uses these hosts from the next attempt on, where one of several holds the only session. Who speaks with one that is
    /// not among them goes on until it is lost.
    pub fn set_hosts(&mut self, addresses: Vec<String>) {
        let Hosts::One(hosts) = &mut self.config.hosts else { return };
        if addresses.is_empty() || hosts.members() == addresses {
            return;
        }
        *hosts = addresses.into();
        if let Some(client) = self.slots[0].client.as_mut() {
            client.set_targets(hosts.candidates(&client.session().0));
        }
    }

    /// When the cache lease for what that cell says ends; `None` without a session there, or at the host before it, that
    /// stands.
    pub fn cache_end(&self, cell: &CellName) -> Option<Time> {
        let client = self.slots[self.slot_for(cell)?].client.as_ref()?;
        matches!(client.status(), Status::Safe | Status::Jeopardy).then(|| client.lease_ends().cache)
    }

    /// The latest ticket given out.
    pub const fn last_ticket(&self) -> Ticket {
        Ticket(self.tickets)
    }

    /// The name as the cells of the map know it: `/ls/local/...` is in the map's namespace.
    pub fn globalized(map: &PartitionMap, name: &Name) -> Option<Name> {
        route::globalized(map, name).ok()
    }

    /// The cell that a request belongs to by that map, if it belongs to one.
    pub fn owner(map: &PartitionMap, op: &Op) -> Option<CellName> {
        route::owner(map, op)
    }

    /// KeepAlives sent since the start, by all sessions.
    pub fn keep_alives_sent(&self) -> u64 {
        self.slots.iter().map(Slot::keep_alives_sent).sum()
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.places.len() - self.crossings.questions()
    }

    /// The cell that a request was sent to; `None` if it waits nowhere, or at the only session.
    pub fn cell_of(&self, ticket: Ticket) -> Option<&CellName> {
        match self.places.get(&ticket)? {
            Place::Asked(index, _) => self.slots[*index].cell.as_ref(),
            Place::Crossing => self.slots[self.crossings.slot_of(ticket)?].cell.as_ref(),
            Place::Paused(_) | Place::HeldBack(_) => None,
        }
    }

    /// Asks something of whichever cell it belongs to. The answer comes with the ticket, always.
    pub fn submit(&mut self, now: Time, ask: Ask) -> Ticket {
        let ticket = self.next_ticket();
        let mut asked = Asked { ticket, ask, tries_left: WRONG_CELL_TRIES, progress: Progress::default() };
        if self.map().is_some() {
            asked.drop_evidence();
        }
        self.route(now, asked);
        self.cross(now);
        ticket
    }

    /// Asks something of that cell, or of the host before it, whatever the map says. There is room for as many of these
    /// as for other requests.
    pub fn submit_to(&mut self, now: Time, cell: &CellName, ask: Ask) -> Ticket {
        let ticket = self.next_ticket();
        let asked = Asked { ticket, ask, tries_left: 1, progress: Progress::default() };
        let waiting_max = self.config.waiting_max.saturating_mul(2);
        match self.slot_for(cell) {
            Some(index) if self.slots[index].asked.len() >= waiting_max => {
                self.fail(ticket, too_many(waiting_max))
            }
            Some(index) => self.ask(now, index, asked),
            None => {
                let error = ErrorCode::InvalidArgument.because(format!("the map knows no cell {cell}"));
                self.fail(ticket, error);
            }
        }
        self.cross(now);
        ticket
    }

    /// Who asked no longer waits; the answer still comes, most likely `Cancelled`.
    pub fn cancel(&mut self, now: Time, ticket: Ticket) {
        match self.places.get(&ticket).copied() {
            None => {}
            Some(Place::Asked(index, number)) => {
                let Some(asked) = self.slots[index].asked.get_mut(&number) else { return };
                let may_be_done = asked.cancel();
                self.with_client(now, index, |client| match may_be_done {
                    true => client.cancel_there(number),
                    false => client.cancel(number),
                });
            }
            Some(Place::Crossing) => self.cancel_crossed(now, ticket),
            Some(Place::Paused(until)) => {
                let paused = self.paused.get_mut(&(until, ticket)).expect("it is there");
                if !paused.cancel() {
                    self.paused.remove(&(until, ticket));
                    self.fail(ticket, ErrorCode::Cancelled.because("before it was sent"));
                }
            }
            Some(Place::HeldBack(index)) => {
                let held_back = &mut self.slots[index].held_back;
                let place = held_back.iter().position(|asked| asked.ticket == ticket).expect("it is there");
                if !held_back[place].cancel() {
                    held_back.remove(place);
                    self.fail(ticket, ErrorCode::Cancelled.because("before it was sent"));
                }
            }
        }
        self.cross(now);
    }

    /// News of the session at that cell has been dealt with: the owner uses nothing that it voids any more. The cell hears
    /// of it when no request goes by that either.
    pub fn acknowledge(&mut self, now: Time, cell: Option<&CellName>, news: NewsId) {
        if let Some(index) = self.slot_of(cell)
            && self.may_acknowledge(index, news)
        {
            self.with_client(now, index, |client| client.acknowledge(news));
        }
        self.cross(now);
    }

    /// Ends every session, and lets none begin again.
    pub fn end(&mut self, now: Time) {
        self.is_ending = true;
        for asked in std::mem::take(&mut self.paused).into_values() {
            self.fail(asked.ticket, over());
        }
        self.fail_held_back();
        self.cross(now);
        self.fail_crossed();
        for index in 0..self.slots.len() {
            self.slots[index].begin_at = None;
            self.with_client(now, index, |client| client.end(now));
        }
        self.cross(now);
    }

    /// Whether [`UpstreamCore::end`] was called and every session has come to its end.
    pub fn is_over(&self) -> bool {
        self.is_ending && self.sessions().all(|held| held.status == Status::Over)
    }

    /// The connection that [`Output::Connect`] asked for stands.
    pub fn connected(&mut self, now: Time, link: &LinkId) {
        self.with_link(now, link, |client, attempt| client.connected(now, attempt));
        self.cross(now);
    }

    /// Takes in one item from a connection.
    pub fn received(&mut self, now: Time, link: &LinkId, down: Down) {
        self.with_link(now, link, |client, attempt| client.received(now, attempt, down));
        self.cross(now);
    }

    /// The connection could not be made, or is gone.
    pub fn disconnected(&mut self, now: Time, link: &LinkId) {
        self.with_link(now, link, |client, attempt| client.disconnected(now, attempt));
        self.cross(now);
    }

    /// Does what is due, in any of the sessions or between them.
    pub fn handle_timeout(&mut self, now: Time) {
        for index in 0..self.slots.len() {
            if self.slots[index].begin_at.is_some_and(|at| at <= now) {
                self.begin(now, index);
            }
            self.with_client(now, index, |client| client.handle_timeout(now));
        }
        while let Some(entry) = self.paused.first_entry()
            && entry.key().0 <= now
        {
            let asked = entry.remove();
            self.route(now, asked);
        }
        self.cross(now);
        self.cross_due(now);
        self.follow_due(now);
        self.cross(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`UpstreamCore::handle_timeout`] has something to do, and what.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let sessions = self.slots.iter().filter_map(|slot| slot.client.as_ref()?.poll_timeout());
        let begins = self.slots.iter().filter_map(|slot| Some((slot.begin_at?, "a session begins again")));
        let paused = self.paused.keys().next().map(|(at, _)| (*at, "a request is routed again"));
        let crossing = self.crossings.poll_timeout();
        let map = self.next_follow();
        sessions.chain(begins).chain(paused).chain(crossing).chain(map).min_by_key(|(at, _)| *at)
    }

    fn route(&mut self, now: Time, mut asked: Asked) {
        let cell = match &self.config.hosts {
            Hosts::One(_) => {
                asked.ask.op.handle().map_or(Ok(()), |handle| route::claimed(handle).map(drop)).map(|()| None)
            }
            Hosts::Cells(map) => {
                Self::list_elsewhere(map, &mut asked);
                route::by_map(map, &mut asked.ask.op).map(Some)
            }
        };
        let index = cell.and_then(|cell| {
            let index = self.slot_of(cell.as_ref()).expect("every cell of the map has a slot");
            let slot = &self.slots[index];
            let over_limit = slot.asked.len() + slot.crossing >= self.config.waiting_max;
            if over_limit { Err(too_many(self.config.waiting_max)) } else { Ok(index) }
        });
        match index {
            Ok(index) => {
                self.bring_along(now, index, &mut asked);
                self.ask(now, index, asked);
            }
            Err(error) => self.fail(asked.ticket, error),
        }
    }

    fn ask(&mut self, now: Time, index: usize, asked: Asked) {
        let ticket = asked.ticket;
        if let Err(error) = self.check_session(now, index, &asked) {
            return self.fail(ticket, error);
        }
        let Some(mut asked) = self.hold_back(index, asked) else { return };
        self.carry(now, index, &mut asked);
        let slot = &mut self.slots[index];
        slot.used_at = now;
        let client = slot.client.as_mut().expect("just begun or checked");
        let number = client.submit(asked.ask.clone());
        if asked.progress.is_cancelled {
            client.cancel_there(number);
        }
        self.places.insert(asked.ticket, Place::Asked(index, number));
        slot.asked.insert(number, asked);
        self.collect(now, index);
    }

    fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn slot_of(&self, cell: Option<&CellName>) -> Option<usize> {
        self.slots.iter().position(|slot| slot.cell.as_ref() == cell)
    }

    /// Through which session that cell is spoken to.
    fn slot_for(&self, cell: &CellName) -> Option<usize> {
        match self.config.hosts {
            Hosts::One(_) => Some(0),
            Hosts::Cells(_) => self.slot_of(Some(cell)),
        }
    }

    fn with_link(&mut self, now: Time, link: &LinkId, act: impl FnOnce(&mut ClientCore, Attempt)) {
        let Some(index) = self.slot_of(link.cell.as_ref()) else { return };
        let Some(attempt) = self.slots[index].attempt(link) else { return };
        self.with_client(now, index, |client| act(client, attempt));
    }

    fn with_client(&mut self, now: Time, index: usize, act: impl FnOnce(&mut ClientCore)) {
        if let Some(client) = &mut self.slots[index].client {
            act(client);
            self.collect(now, index);
        }
    }

    /// Passes on what the session wants, until it wants nothing more.
    fn collect(&mut self, now: Time, index: usize) {
        while let Some(output) = self.slots[index].client.as_mut().and_then(|client| client.poll_output()) {
            let slot = &mut self.slots[index];
            match output {
                client::Output::Connect(attempt, address) => {
                    let link = slot.link(attempt);
                    self.outputs.push_back(Output::Connect(link, address));
                }
                client::Output::Disconnect(attempt) => {
                    let link = slot.link(attempt);
                    self.outputs.push_back(Output::Disconnect(link));
                }
                client::Output::Send(attempt, up) => {
                    let link = slot.link(attempt);
                    self.outputs.push_back(Output::Send(link, up));
                }
                client::Output::Answered(answer) => self.answered(now, index, answer),
                client::Output::Event(_) if slot.is_resting => {}
                client::Output::Event(event) => {
                    slot.was_welcomed |= matches!(event, Event::Welcomed { .. });
                    let cell = slot.cell.clone();
                    self.outputs.push_back(Output::Event(cell, event.clone()));
                    self.note_event(now, index, &event);
                    self.note_event_of_map(now, index, &event);
                }
            }
        }
        self.renew(now, index);
    }

    fn answered(&mut self, now: Time, index: usize, answer: Answer) {
        let Some(mut asked) = self.slots[index].asked.remove(&answer.number) else { return };
        self.slots[index].used_at = now;
        self.set_down(now, asked.ticket);
        let Some(answer) = self.crossings.land(asked.ticket, answer) else {
            self.places.remove(&asked.ticket);
            return;
        };
        let is_of_map = match &answer.result {
            Err(error) => match error.code {
                ErrorCode::WrongCell { map_version } => Some(map_version),
                _ => None,
            },
            Ok(_) => None,
        };
        let own = self.map().map(|map| map.version);
        if let (Some(version), Some(own)) = (is_of_map, own)
            && version != own
            && asked.is_for_client()
            && !self.is_ending
        {
            self.wait_for_map(now, asked, version);
        } else if is_of_map.is_some() && asked.tries_left > 1 && own.is_some() && !self.is_ending {
            asked.tries_left -= 1;
            asked.drop_memberships();
            // Perhaps it was sent by the map before.
            asked.progress.is_rerouted = asked.is_for_client();
            let until = now + WRONG_CELL_PAUSE;
            self.places.insert(asked.ticket, Place::Paused(until));
            self.paused.insert((until, asked.ticket), asked);
        } else if let Some((ticket, answer)) = self.next_of(now, index, asked, answer) {
            self.places.remove(&ticket);
            self.outputs.push_back(Output::Answered(ticket, answer));
        }
    }

    fn fail(&mut self, ticket: Ticket, error: Error) {
        self.places.remove(&ticket);
        if let Some(answer) = self.crossings.land(ticket, Answer::plain(RequestNumber(0), Err(error))) {
            self.outputs.push_back(Output::Answered(ticket, answer));
        }
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        let is_map_awaited = matches!(self.following, Following::Unsure(_) | Following::Asked { .. });
        self.crossings.check_invariants(&self.places, is_map_awaited);
        let mut waiting: BTreeSet<Ticket> = self.paused.keys().map(|(_, ticket)| *ticket).collect();
        waiting.extend(self.crossings.tickets());
        let crossing: usize = self.slots.iter().map(|slot| slot.crossing).sum();
        assert_eq!(crossing, self.crossings.tickets().count(), "what waits for other cells is counted");
        for slot in &self.slots {
            if let Some(client) = &slot.client {
                client.check_invariants();
            }
            assert!(slot.client.is_some() || slot.asked.is_empty(), "requests wait on no session");
            waiting.extend(slot.asked.values().chain(&slot.held_back).map(|asked| asked.ticket));
            assert!(slot.is_resting || slot.held_back.is_empty(), "what waits, waits for an end");
        }
        assert!(waiting.iter().eq(self.places.keys()), "every ticket is in one place");
    }
}

fn too_many(waiting_max: usize) -> Error {
    let code = ErrorCode::RateLimited { retry_after: RATE_PAUSE };
    code.because(format!("{waiting_max} requests wait for the cell"))
}

fn over() -> Error {
    ErrorCode::SessionExpired.because("the session is over")
}
