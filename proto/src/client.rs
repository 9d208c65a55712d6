//! The holding end of a session: what an application's library, a proxy and a router do towards
//! their host.
//!
//! It decides where to connect and when to try again, keeps the leases by the holder's own clock,
//! numbers requests and asks them again after a lost connection with the same numbers (P-ONCE),
//! and tells its owner of jeopardy, safety and the session's end (paper §2.8).
//!
//! ```text
//! link:     waiting -- pause over --> connecting --> greeting -- Welcome --> live
//!              ^--- failed, refused, lost, silent for too long ---------------'
//! session:  new -- Welcome --> safe -- lease over --> jeopardy -- Welcome, Lease --> safe
//!                                                         '-- grace over --> expired
//! ```

pub mod cache;
mod leases;
mod link;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::error::{Error, ErrorCode, Retry};
use crate::handle::HandleKey;
use crate::id::{CellName, Claim, Epoch, RequestNumber, Sequence, SessionId, SessionKey};
use crate::lease::LeaseEnds;
use crate::limits::{GRACE, PROTOCOL};
use crate::position::Position;
use crate::request::{Answer, OnBehalf, Op, Reply};
use crate::sequencer::SequencerToken;
use crate::stream::{Down, Grant, Hello, KeepAlive, News, Role, Up, Welcome};
use crate::time::Time;
use crate::trace::TraceContext;

use leases::Leases;
use link::Link;
pub use link::{Attempt, PATIENCE_MAX};
use requests::Requests;

/// Who holds the session and where its hosts are.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The session's secret; fresh for every session.
    pub key: SessionKey,
    /// What the holder is.
    pub role: Role,
    /// As whom it acts.
    pub principal: String,
    /// Where its own clients reach it; empty for applications.
    pub advertise: String,
    /// Addresses to try, in this order, round and round.
    pub targets: Vec<String>,
    /// How long to look for the host in jeopardy.
    pub grace: Duration,
    /// Spreads the pauses between attempts of many clients.
    pub jitter: u64,
}

impl ClientConfig {
    /// An application's session with default times.
    pub fn application(key: SessionKey, principal: &str, targets: Vec<String>) -> Self {
        Self {
            jitter: u64::from_le_bytes(key.id().0[..8].try_into().expect("8 of 16 bytes")),
            key,
            role: Role::Client,
            principal: principal.to_owned(),
            advertise: String::new(),
            targets,
            grace: GRACE,
        }
    }
}

/// What the shell has to do and the owner is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection there; say `connected` or `disconnected`.
    Connect(Attempt, String),
    /// Close that connection; no more is expected from it.
    Disconnect(Attempt),
    /// Send this on that connection.
    Send(Attempt, Up),
    /// A request has its final answer.
    Answered(Answer),
    /// Something happened to the session.
    Event(Event),
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A host welcomed it.
    Welcomed {
        /// Its id.
        session: SessionId,
        /// Where.
        host: String,
        /// The host remembered it.
        resumed: bool,
        /// The cell and epoch of the master that speaks.
        master_of: Option<(CellName, Epoch)>,
        /// For proxies and routers: the keys of cells' check digits.
        handle_keys: Vec<(CellName, HandleKey)>,
    },
    /// The leases were extended.
    Extended,
    /// The local lease is over: nothing is sure until `Safe` or `Expired`.
    Jeopardy,
    /// The session came through jeopardy.
    Safe,
    /// The session is over, with everything that hung on it.
    Expired(Error),
    /// The session ended by its holder's wish.
    Closed,
    /// The cache lease had ended before it was extended: whatever was cached is void (`lease-4`).
    CacheLapsed,
    /// The host has no session with this cell that could carry on this one: what it had there is lost. Comes before the
    /// `Welcomed` that it goes with.
    CellLost(CellName),
    /// The host has news: to be acknowledged with [`ClientCore::acknowledge`] once it is dealt with.
    News(NewsId, News),
}

/// Names a piece of news until it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewsId {
    session: SessionId,
    /// Of the Hello that began with this host: another host numbers its news anew.
    since: Claim,
    sequence: Sequence,
}

/// Something to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// What.
    pub op: Op,
    /// For whom, if not for the session itself.
    pub on_behalf: Option<OnBehalf>,
    /// A sequencer that must stand.
    pub guard: Option<SequencerToken>,
    /// What is read would be cached.
    pub caches: bool,
    /// For those who follow it on its way.
    pub trace: Option<TraceContext>,
}

impl From<Op> for Ask {
    fn from(op: Op) -> Self {
        Self { op, on_behalf: None, guard: None, caches: false, trace: None }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not welcomed by any host yet.
    New,
    /// Under a lease.
    Safe,
    /// The lease is over; still looking for a host.
    Jeopardy,
    /// Over.
    Over,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct ClientCore {
    config: ClientConfig,
    link: Link,
    leases: Leases,
    requests: Requests,
    status: Status,
    claim: Claim,
    /// Of the Hello since which the host knows the session.
    known_since: Claim,
    /// The mastership that welcomed it last.
    master_of: Option<(CellName, Epoch)>,
    news_seen: Sequence,
    /// Told to the owner, who has not dealt with it yet.
    news_pending: BTreeSet<Sequence>,
    keep_alives_sent: u64,
    floor: Vec<Position>,
    ending: bool,
    outputs: VecDeque<Output>,
}

impl ClientCore {
    /// A session that starts to look for its host at `now`.
    pub fn new(now: Time, config: ClientConfig) -> Self {
        assert!(!config.targets.is_empty(), "a session needs somewhere to go");
        let mut core = Self {
            link: Link::new(config.jitter),
            leases: Leases::default(),
            requests: Requests::default(),
            status: Status::New,
            claim: Claim(0),
            known_since: Claim(0),
            master_of: None,
            news_seen: Sequence(0),
            news_pending: BTreeSet::new(),
            keep_alives_sent: 0,
            floor: Vec::new(),
            ending: false,
            outputs: VecDeque::new(),
            config,
        };
        core.connect(now);
        core
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.config.key.id()
    }

    /// Where it stands.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// Ends of its leases, by the holder's clock.
    pub const fn lease_ends(&self) -> LeaseEnds {
        self.leases.ends()
    }

    /// KeepAlives sent since the start.
    pub const fn keep_alives_sent(&self) -> u64 {
        self.keep_alives_sent
    }

    /// The host that it speaks with, while it does.
    pub fn host(&self) -> Option<&str> {
        self.link.is_live().then(|| self.link.target(&self.config.targets))
    }

    /// Uses these addresses from the next attempt on, the first of them first.
    pub fn set_targets(&mut self, targets: Vec<String>) {
        assert!(!targets.is_empty(), "a session needs somewhere to go");
        self.link.retarget(&self.config.targets);
        self.config.targets = targets;
    }

    /// Asks something. The answer comes as [`Output::Answered`] with the number returned.
    pub fn submit(&mut self, ask: Ask) -> RequestNumber {
        let number = self.requests.add(ask);
        if self.status == Status::Over || self.ending {
            self.fail(number, ErrorCode::SessionExpired.because("the session is over"));
        } else if let Some(attempt) = self.link.live() {
            self.send_request(attempt, number);
        }
        number
    }

    /// The caller no longer waits; the answer still comes, most likely `Cancelled`.
    pub fn cancel(&mut self, number: RequestNumber) {
        let Some(request) = self.requests.get_mut(number) else { return };
        if request.was_sent || self.link.live().is_some() {
            self.cancel_there(number);
        } else {
            self.fail(number, ErrorCode::Cancelled.because("before it was sent"));
        }
    }

    /// The same for a request that may have been done before, for whom it is asked: only a host can say.
    pub fn cancel_there(&mut self, number: RequestNumber) {
        let Some(request) = self.requests.get_mut(number) else { return };
        request.cancelled = true;
        if let Some(attempt) = self.link.live() {
            self.send(attempt, Up::Cancel(number));
        }
    }

    /// The owner has dealt with a piece of news: nothing that it voids is used any more.
    pub fn acknowledge(&mut self, news: NewsId) {
        if (news.session, news.since) == (self.session(), self.known_since)
            && self.news_pending.remove(&news.sequence)
            && let Some(attempt) = self.link.live()
        {
            self.send(attempt, Up::Acknowledge(news.sequence));
        }
    }

    /// Ends the session: tells the host if it can, then is over.
    pub fn end(&mut self, now: Time) {
        if self.status == Status::Over || self.ending {
            return;
        }
        self.ending = true;
        match self.link.live() {
            Some(attempt) => {
                self.send(attempt, Up::EndSession);
                self.link.wait_for_end(now);
            }
            None => self.over(Event::Closed, &ErrorCode::SessionExpired.because("ended by its holder")),
        }
    }

    /// The connection that [`Output::Connect`] asked for stands: greets the host.
    pub fn connected(&mut self, now: Time, attempt: Attempt) {
        if !self.link.greet(now, attempt, self.config.targets.len()) {
            return;
        }
        self.claim = self.claim.next();
        let hello = Hello {
            protocol: PROTOCOL,
            key: self.config.key,
            role: self.config.role,
            principal: self.config.principal.clone(),
            known_since: (self.status != Status::New).then_some(self.known_since),
            claim: self.claim,
            advertise: self.config.advertise.clone(),
            next_request: self.requests.next(),
            lease_left: self.leases.ends().session.saturating_since(now),
        };
        self.send(attempt, Up::Hello(hello));
    }

    /// The connection could not be made, or is gone.
    pub fn disconnected(&mut self, now: Time, attempt: Attempt) {
        if !self.link.is(attempt) {
            return;
        }
        if self.ending {
            return self.over(Event::Closed, &ErrorCode::SessionExpired.because("ended by its holder"));
        }
        self.link.failed(now, self.config.targets.len());
    }

    /// Takes in one item from the host.
    pub fn received(&mut self, now: Time, attempt: Attempt, down: Down) {
        if !self.link.is(attempt) {
            return;
        }
        match down {
            Down::Welcome(welcome) => self.welcomed(now, attempt, welcome),
            Down::Answer(answer) => self.answered(now, attempt, answer),
            Down::Lease { keep_alive, grant } => {
                if let Some(sent) = self.leases.take_sent(keep_alive) {
                    self.granted(now, sent, &grant);
                    self.send_keep_alive(now, attempt);
                }
            }
            Down::News { sequence, item } => self.news(attempt, sequence, item),
            Down::Refused(error) => self.refused(now, attempt, error),
        }
    }

    /// Does what is due: the next attempt, jeopardy, the end of the grace period, a repetition.
    pub fn handle_timeout(&mut self, now: Time) {
        self.check_leases(now);
        if self.status == Status::Over {
            return;
        }
        if self.link.is_pause_over(now) {
            self.connect(now);
        } else if let Some(attempt) = self.link.take_too_slow(now) {
            self.outputs.push_back(Output::Disconnect(attempt));
            if self.ending {
                return self.over(Event::Closed, &ErrorCode::SessionExpired.because("ended by its holder"));
            }
            self.link.failed(now, self.config.targets.len());
        }
        if let Some(attempt) = self.link.live() {
            if self.leases.is_host_suspect(now) {
                self.drop_link(now, attempt);
            } else {
                while let Some(number) = self.requests.take_due(now) {
                    self.send_request(attempt, number);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`ClientCore::handle_timeout`] has something to do, and what.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        if self.status == Status::Over {
            return None;
        }
        let lease = match self.status {
            Status::Safe => Some((self.leases.ends().session, "the session lease ends")),
            Status::Jeopardy => Some((self.leases.grace_end(self.config.grace), "the grace period ends")),
            Status::New | Status::Over => None,
        };
        let suspect = self.link.live().and_then(|_| self.leases.suspect_at());
        let repeat = self.link.live().and_then(|_| self.requests.next_due());
        [
            lease,
            self.link.deadline().map(|at| (at, "the link has waited long enough")),
            suspect.map(|at| (at, "the host should have answered the KeepAlive")),
            repeat.map(|at| (at, "a request is due to be asked again")),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    fn connect(&mut self, now: Time) {
        let attempt = self.link.connect(now);
        let target = self.link.target(&self.config.targets).to_owned();
        self.outputs.push_back(Output::Connect(attempt, target));
    }

    fn welcomed(&mut self, now: Time, attempt: Attempt, welcome: Welcome) {
        let Some(greeted) = self.link.welcomed(attempt) else { return };
        if welcome.session != self.session() {
            return self.drop_link(now, attempt);
        }
        // A host that does not know the session, or took it over from a predecessor, numbers news anew.
        if !welcome.resumed || welcome.master_of != self.master_of {
            self.known_since = self.claim;
            self.news_seen = Sequence(0);
            self.news_pending.clear();
        }
        // What a proxy promised of its cache binds no other host; what a master did binds its successors (`fail-2`).
        let is_bound = match (&self.master_of, &welcome.master_of) {
            (Some((before, _)), Some((now, _))) => before == now,
            _ => welcome.resumed,
        };
        if !is_bound {
            self.leases.forget_cache();
        }
        self.master_of.clone_from(&welcome.master_of);
        self.leases.forget_sent();
        let was = self.status;
        self.status = Status::Safe;
        for cell in welcome.lost_cells {
            self.outputs.push_back(Output::Event(Event::CellLost(cell)));
        }
        // Who the host is comes before what it grants: what another had promised does not reach as far.
        self.outputs.push_back(Output::Event(Event::Welcomed {
            session: welcome.session,
            host: self.link.target(&self.config.targets).to_owned(),
            resumed: welcome.resumed,
            master_of: welcome.master_of,
            handle_keys: welcome.handle_keys,
        }));
        self.granted(now, greeted, &welcome.grant);
        if was == Status::Jeopardy {
            self.outputs.push_back(Output::Event(Event::Safe));
        }
        self.send_keep_alive(now, attempt);
        for number in self.requests.all() {
            self.send_request(attempt, number);
        }
        self.check_leases(now);
    }

    fn granted(&mut self, now: Time, sent: Time, grant: &Grant) {
        if now >= self.leases.ends().cache {
            self.outputs.push_back(Output::Event(Event::CacheLapsed));
        }
        self.leases.extend(sent, grant);
        self.outputs.push_back(Output::Event(Event::Extended));
    }

    fn answered(&mut self, now: Time, attempt: Attempt, answer: Answer) {
        let number = answer.number;
        let Some(request) = self.requests.get_mut(number) else { return };
        if let Err(error) = &answer.result {
            let own = request.ask.on_behalf.is_none();
            match error.code.retry() {
                Retry::SameHost if !request.cancelled => {
                    return self.requests.repeat_later(now, number, &error.code);
                }
                Retry::FindMaster => return self.drop_link(now, attempt),
                Retry::NewSession if own => return self.expired(error.detail.clone()),
                Retry::SameHost | Retry::NewSession | Retry::Never | Retry::Reroute => {}
            }
        }
        if let Some(position) = &answer.position
            && !self.is_monotonic(position, &answer)
        {
            // P-MONO: this host shows an older state than was seen before. Ask another.
            return self.drop_link(now, attempt);
        }
        self.requests.remove(number);
        self.outputs.push_back(Output::Answered(answer));
    }

    /// Raises the floor of the answer's cell; `false` if a read shows something older. Answers of
    /// writes carry the write's own place, which later reads may have passed.
    fn is_monotonic(&mut self, position: &Position, answer: &Answer) -> bool {
        let is_read =
            matches!(answer.result, Ok(Reply::Contents { .. } | Reply::Stat(_) | Reply::Children { .. }));
        match self.floor.iter_mut().find(|floor| floor.cell == position.cell) {
            None => self.floor.push(position.clone()),
            Some(floor) if position.is_before(floor) => return !is_read,
            Some(floor) => *floor = position.clone(),
        }
        true
    }

    fn news(&mut self, attempt: Attempt, sequence: Sequence, item: News) {
        if sequence > self.news_seen {
            self.news_seen = sequence;
            self.news_pending.insert(sequence);
            let id = NewsId { session: self.session(), since: self.known_since, sequence };
            self.outputs.push_back(Output::Event(Event::News(id, item)));
        } else if !self.news_pending.contains(&sequence) {
            // It was dealt with, and the acknowledgement was lost with a connection.
            self.send(attempt, Up::Acknowledge(sequence));
        }
    }

    fn refused(&mut self, now: Time, attempt: Attempt, error: Error) {
        self.outputs.push_back(Output::Disconnect(attempt));
        match (error.code.retry(), error.code.clone()) {
            (Retry::NewSession, _) => self.expired(error.detail),
            (_, ErrorCode::Unauthenticated | ErrorCode::InvalidArgument) => {
                self.over(Event::Expired(error.clone()), &error);
            }
            (_, ErrorCode::NotMaster { hint: Some(master) }) => {
                self.link.redirected(now, master, self.config.targets.len());
            }
            _ => self.link.failed(now, self.config.targets.len()),
        }
    }

    fn check_leases(&mut self, now: Time) {
        if self.status == Status::Safe && now >= self.leases.ends().session {
            self.status = Status::Jeopardy;
            self.outputs.push_back(Output::Event(Event::Jeopardy));
            if let Some(attempt) = self.link.live() {
                self.drop_link(now, attempt);
            }
        }
        if self.status == Status::Jeopardy && now >= self.leases.grace_end(self.config.grace) {
            if let Some(attempt) = self.link.any() {
                self.outputs.push_back(Output::Disconnect(attempt));
            }
            self.expired("no host was found before the grace period ended".to_owned());
        }
    }

    fn drop_link(&mut self, now: Time, attempt: Attempt) {
        self.outputs.push_back(Output::Disconnect(attempt));
        self.link.failed(now, self.config.targets.len());
    }

    /// Whatever a host calls it that nothing on the session will succeed, its owner hears that it has expired.
    fn expired(&mut self, detail: String) {
        let error = ErrorCode::SessionExpired.because(detail);
        self.over(Event::Expired(error.clone()), &error);
    }

    fn over(&mut self, event: Event, error: &Error) {
        self.status = Status::Over;
        if let Some(attempt) = self.link.any() {
            self.outputs.push_back(Output::Disconnect(attempt));
        }
        self.link.stop();
        self.outputs.push_back(Output::Event(event));
        for number in self.requests.all() {
            self.fail(number, error.clone());
        }
    }

    fn fail(&mut self, number: RequestNumber, error: Error) {
        if self.requests.remove(number) {
            self.outputs.push_back(Output::Answered(Answer::plain(number, Err(error))));
        }
    }

    fn send_request(&mut self, attempt: Attempt, number: RequestNumber) {
        if let Some((request, cancelled)) = self.requests.message(number) {
            self.send(attempt, Up::Request(request));
            if cancelled {
                self.send(attempt, Up::Cancel(number));
            }
        }
    }

    fn send_keep_alive(&mut self, now: Time, attempt: Attempt) {
        self.keep_alives_sent += 1;
        let number = self.keep_alives_sent;
        self.leases.sent(now, number);
        let settled_below = self.requests.settled_below();
        self.send(attempt, Up::KeepAlive(KeepAlive { number, settled_below }));
    }

    fn send(&mut self, attempt: Attempt, up: Up) {
        self.outputs.push_back(Output::Send(attempt, up));
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        if self.status == Status::Over {
            assert!(self.requests.is_empty(), "nothing waits on a session that is over");
            assert!(self.link.any().is_none(), "a session that is over has no connection");
        }
        assert!(
            self.status == Status::Over || self.poll_timeout().is_some(),
            "nothing would ever happen again"
        );
    }
}
