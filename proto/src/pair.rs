//! A world of two ends for tests: one [`ClientCore`], hosts with one [`ServerCore`] each, and a
//! network between them, all in virtual time. What happens is written down as a transcript.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use crate::client::{self, Attempt, ClientConfig, ClientCore};
use crate::error::Error;
use crate::id::{RequestNumber, SessionId, SessionKey};
use crate::lease::{Ceiling, LeaseTerms};
use crate::request::{Answer, Reply, Request};
use crate::server::{self, ConnectionId, ServerCore};
use crate::stream::{Down, Hello, Up};
use crate::time::Time;

/// One host: its machine, and what its owner saw.
pub(crate) struct Host {
    pub(crate) core: ServerCore,
    /// Up: accepts connections and answers. Down: every connection to it breaks.
    pub(crate) up: bool,
    /// Its clock shows `now + now * fast_ppm / 10^6`.
    pub(crate) fast_ppm: u64,
    /// Sessions that its owner knows from before; others that want to resume are unknown.
    pub(crate) admits_resumed: bool,
    pub(crate) requests: Vec<(SessionId, Request)>,
    pub(crate) expired: Vec<SessionId>,
    /// Answers each request at once.
    pub(crate) answers: bool,
}

enum Wire {
    Up(ConnectionId, Up),
    Down(ConnectionId, Down),
    Opened(ConnectionId),
    Broken(ConnectionId),
}

/// The world.
pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) client: ClientCore,
    pub(crate) hosts: BTreeMap<String, Host>,
    pub(crate) events: Vec<client::Event>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) latency: Duration,
    links: BTreeMap<ConnectionId, (Attempt, String)>,
    wire: VecDeque<(Time, Wire)>,
    connections: u64,
    transcript: String,
}

impl Pair {
    /// A client that knows these hosts, all up and granting like a master.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        let key = SessionKey::new([7; 16]);
        let targets: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let config = ClientConfig::application(key, "alice", targets);
        let host = |name: &&str| {
            let mut core = ServerCore::new(LeaseTerms::default());
            core.set_ceiling(Time::ZERO, Ceiling::Master);
            let host = Host {
                core,
                up: true,
                fast_ppm: 0,
                admits_resumed: false,
                requests: Vec::new(),
                expired: Vec::new(),
                answers: true,
            };
            ((*name).to_owned(), host)
        };
        let mut pair = Self {
            now: Time::ZERO,
            client: ClientCore::new(Time::ZERO, config),
            hosts: hosts.iter().map(host).collect(),
            events: Vec::new(),
            answers: Vec::new(),
            latency: Duration::from_millis(10),
            links: BTreeMap::new(),
            wire: VecDeque::new(),
            connections: 0,
            transcript: String::new(),
        };
        pair.settle();
        pair
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("a host of this world")
    }

    /// Lets everything happen until `until`.
    pub(crate) fn run_until(&mut self, until: Time) {
        for _ in 0..1_000_000 {
            self.settle();
            let Some(next) = self.next_event().filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
        panic!("the world does not come to rest");
    }

    /// Kills a host: its connections break, it forgets nothing.
    pub(crate) fn take_down(&mut self, name: &str) {
        self.note(&format!("-- {name} is down"));
        self.host(name).up = false;
        let broken: Vec<_> = self
            .links
            .iter()
            .filter(|(_, (_, host))| host == name)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in broken {
            self.break_link(connection);
        }
    }

    /// Breaks the client's connections without either end having said so.
    pub(crate) fn break_links(&mut self) {
        self.note("-- connections break");
        let all: Vec<_> = self.links.keys().copied().collect();
        for connection in all {
            self.break_link(connection);
        }
    }

    fn break_link(&mut self, connection: ConnectionId) {
        if let Some((attempt, host)) = self.links.remove(&connection) {
            self.host(&host).core.disconnected(connection);
            let now = self.now;
            self.client.disconnected(now, attempt);
        }
    }

    fn next_event(&self) -> Option<Time> {
        let hosts = self.hosts.values().filter(|host| host.up).filter_map(|host| {
            let (at, _) = host.core.poll_timeout()?;
            // The host's clock is fast: its time `at` comes earlier in true time.
            Some(Time::from_micros(at.as_micros() * 1_000_000 / (1_000_000 + host.fast_ppm) + 1))
        });
        let client = self.client.poll_timeout().map(|(at, _)| at);
        let wire = self.wire.front().map(|(at, _)| *at);
        hosts.chain(client).chain(wire).min()
    }

    fn step(&mut self) {
        while self.wire.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, item) = self.wire.pop_front().expect("just seen");
            self.deliver(item);
            self.settle();
        }
        let now = self.now;
        self.client.handle_timeout(now);
        for host in self.hosts.values_mut().filter(|host| host.up) {
            let host_now = clock(now, host.fast_ppm);
            host.core.handle_timeout(host_now);
        }
        self.settle();
    }

    fn deliver(&mut self, item: Wire) {
        let now = self.now;
        match item {
            Wire::Opened(connection) => {
                let Some((attempt, host)) = self.links.get(&connection).cloned() else { return };
                if self.hosts[&host].up {
                    self.host(&host).core.connected(connection);
                    self.client.connected(now, attempt);
                } else {
                    self.links.remove(&connection);
                    self.note(&format!("{host} cannot be reached"));
                    self.client.disconnected(now, attempt);
                }
            }
            Wire::Up(connection, up) => {
                let Some((_, host)) = self.links.get(&connection).cloned() else { return };
                let host_now = clock(now, self.hosts[&host].fast_ppm);
                self.host(&host).core.received(host_now, connection, up);
            }
            Wire::Down(connection, down) => {
                let Some((attempt, _)) = self.links.get(&connection).cloned() else { return };
                self.client.received(now, attempt, down);
            }
            Wire::Broken(connection) => {
                if let Some((attempt, _)) = self.links.remove(&connection) {
                    self.client.disconnected(now, attempt);
                }
            }
        }
    }

    /// Carries out what the machines want, until they want nothing more.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.client.poll_output() {
                quiet = false;
                self.carry_out_client(output);
            }
            let names: Vec<_> = self.hosts.keys().cloned().collect();
            for name in names {
                while let Some(output) = self.host(&name).core.poll_output() {
                    quiet = false;
                    self.carry_out_host(&name, output);
                }
            }
            if quiet {
                break;
            }
        }
        self.client.check_invariants();
        self.hosts.values().for_each(|host| host.core.check_invariants());
    }

    fn carry_out_client(&mut self, output: client::Output) {
        match output {
            client::Output::Connect(attempt, target) => {
                self.connections += 1;
                let connection = ConnectionId(self.connections);
                self.links.insert(connection, (attempt, target));
                self.send(Wire::Opened(connection));
            }
            client::Output::Disconnect(attempt) => {
                let Some((connection, (_, host))) =
                    self.links.iter().find(|(_, (a, _))| *a == attempt).map(|(c, l)| (*c, l.clone()))
                else {
                    return;
                };
                self.links.remove(&connection);
                self.host(&host).core.disconnected(connection);
            }
            client::Output::Send(attempt, up) => {
                let Some((connection, host)) =
                    self.links.iter().find(|(_, (a, _))| *a == attempt).map(|(c, (_, h))| (*c, h.clone()))
                else {
                    return;
                };
                self.note(&format!("client -> {host}: {}", say_up(&up)));
                self.send(Wire::Up(connection, up));
            }
            client::Output::Answered(answer) => self.answers.push(answer),
            client::Output::Event(event) => {
                if !matches!(event, client::Event::Extended | client::Event::CacheLapsed) {
                    self.note(&format!("client: {}", say_event(&event)));
                }
                if let client::Event::News(id, _) = &event {
                    self.client.acknowledge(*id);
                }
                self.events.push(event);
            }
        }
    }

    fn carry_out_host(&mut self, name: &str, output: server::Output) {
        let now = clock(self.now, self.hosts[name].fast_ppm);
        match output {
            server::Output::Send(connection, down) => {
                self.note(&format!("client <- {name}: {}", say_down(&down)));
                self.send(Wire::Down(connection, down));
            }
            server::Output::Close(connection) => self.send(Wire::Broken(connection)),
            server::Output::Admit(connection, _, hello) => {
                let host = self.host(name);
                if hello.known_since.is_some() && !host.admits_resumed {
                    let error = crate::error::ErrorCode::SessionExpired.because("unknown here");
                    host.core.refuse(connection, error);
                } else {
                    host.core.admit(now, connection);
                }
            }
            server::Output::Request(session, request) => {
                let host = self.host(name);
                if host.answers {
                    let number = request.number;
                    host.core.answer(session, Answer::plain(number, Ok(Reply::Noted)));
                }
                host.requests.push((session, request));
            }
            server::Output::Expired(session) => {
                self.note(&format!("{name}: session runs out"));
                let host = self.host(name);
                host.expired.push(session);
                host.core.forget(session);
            }
            server::Output::Ended(session) => {
                self.note(&format!("{name}: session ended by its holder"));
                self.host(name).core.forget(session);
            }
            server::Output::Cancel(session, number) => {
                let result: Result<Reply, Error> =
                    Err(crate::error::ErrorCode::Cancelled.because("by the client"));
                self.host(name).core.answer(session, Answer::plain(number, result));
            }
            server::Output::Settled(..)
            | server::Output::Acknowledged(..)
            | server::Output::CacheLeaseOver(_)
            | server::Output::WantsLease(_) => {}
        }
    }

    fn send(&mut self, item: Wire) {
        let at = self.now + self.latency;
        let place = self.wire.partition_point(|(other, _)| *other <= at);
        self.wire.insert(place, (at, item));
    }

    fn note(&mut self, line: &str) {
        let millis = self.now.as_micros() / 1_000;
        writeln!(self.transcript, "{millis:>6} ms  {line}").expect("writes to memory");
    }

    /// Compares what happened with `testdata/<name>.txt`. With `HASP_ACCEPT_TRANSCRIPTS` set, writes it.
    #[allow(clippy::disallowed_methods, reason = "transcripts are files of the source tree")]
    pub(crate) fn check_transcript(&self, name: &str) {
        let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("HASP_ACCEPT_TRANSCRIPTS").is_some() {
            std::fs::write(&path, &self.transcript).expect("writes the transcript");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.transcript, expected, "the transcript differs from {name}.txt");
    }

    /// The numbers of requests that `host` was asked to work on.
    pub(crate) fn asked(&self, host: &str) -> Vec<RequestNumber> {
        self.hosts[host].requests.iter().map(|(_, request)| request.number).collect()
    }
}

fn clock(now: Time, fast_ppm: u64) -> Time {
    Time::from_micros(now.as_micros() + now.as_micros() * fast_ppm / 1_000_000)
}

fn say_up(up: &Up) -> String {
    match up {
        Up::Hello(Hello { claim, known_since: None, .. }) => format!("Hello claim {claim}"),
        Up::Hello(Hello { claim, known_since: Some(since), lease_left, .. }) => {
            let left = lease_left.as_millis();
            format!("Hello claim {claim} known since {since}, {left} ms of its lease left")
        }
        Up::Request(request) => {
            format!(
                "Request {} {} settled below {}",
                request.number,
                request.op.name(),
                request.settled_below
            )
        }
        Up::KeepAlive(keep_alive) => format!("KeepAlive {}", keep_alive.number),
        Up::Acknowledge(sequence) => format!("Acknowledge {sequence}"),
        Up::Cancel(number) => format!("Cancel {number}"),
        Up::EndSession => "EndSession".into(),
    }
}

fn say_down(down: &Down) -> String {
    match down {
        Down::Welcome(welcome) => format!(
            "Welcome resumed {} lease {} ms, cache {} ms",
            welcome.resumed,
            welcome.grant.session.as_millis(),
            welcome.grant.cache.as_millis()
        ),
        Down::Answer(answer) => match &answer.result {
            Ok(_) => format!("Answer {} ok", answer.number),
            Err(error) => format!("Answer {} {}", answer.number, error.code),
        },
        Down::Lease { keep_alive, grant } => format!(
            "Lease for KeepAlive {keep_alive}, held {} ms: {} ms, cache {} ms",
            grant.held.as_millis(),
            grant.session.as_millis(),
            grant.cache.as_millis()
        ),
        Down::News { sequence, item } => format!("News {sequence} {item:?}"),
        Down::Refused(error) => format!("Refused {}", error.code),
    }
}

fn say_event(event: &client::Event) -> String {
    match event {
        client::Event::Welcomed { host, resumed, .. } => format!("welcomed by {host}, resumed {resumed}"),
        client::Event::Expired(error) => format!("expired, {}", error.code),
        client::Event::News(_, item) => format!("News({item:?})").to_lowercase(),
        other => format!("{other:?}").to_lowercase(),
    }
}
