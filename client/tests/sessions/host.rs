//! A proxy of a few lines: welcomes every session, answers what it is told to, remembers everything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hasp_client::{
    AclNames, CellName, Env, Epoch, Generation, Instance, LockMode, Name, NodeKind, Position, Stat,
};
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::id::{RequestNumber, Sequence, SessionId};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::sequencer::{SequencerBody, SequencerToken};
use hasp_proto::stream::{Down, Grant, Hello, News, Up, Welcome};
use hasp_proto::wire::v1;
use hasp_rt::outbox::{Limits, Outbox};
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::server::{Dispatch, serve};
use hasp_rt::rpc::session::{HaspService, LocateHandler, SessionHandler};

/// Where the host listens.
pub const ADDRESS: &str = "proxy:1";

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers all but `Acquire`, which waits for the test.
    Kind,
    /// Refuses every session.
    Refusing,
    /// Says nothing.
    Silent,
}

pub struct Host {
    manner: Manner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<u64, Arc<Outbox<v1::Down>>>,
    last: u64,
    session: Option<SessionId>,
    contents: Bytes,
    heard: Vec<String>,
    acquiring: Vec<RequestNumber>,
    /// What may be cached of answers.
    caches: ItemKinds,
    news: u64,
}

impl Host {
    pub async fn start(env: &Env, manner: Manner) -> Arc<Self> {
        Self::start_at(env, manner, ADDRESS).await
    }

    pub async fn start_at(env: &Env, manner: Manner, address: &str) -> Arc<Self> {
        let host = Arc::new(Self { manner, state: Mutex::default() });
        let limits = Limits { items_max: 1_000, bytes_max: 1 << 20 };
        let service = HaspService::server(host.clone(), limits, &Profile::clients());
        let listener = env.transport.listen(address).await.expect("free");
        serve(&env.tasks, listener, Dispatch::new().with(service), Profile::clients());
        host
    }

    /// What it has heard, in order, KeepAlives left out.
    pub fn heard(&self) -> Vec<String> {
        self.state().heard.clone()
    }

    /// Grants the lock to the last that asked for it.
    pub fn grant(&self) {
        let number = self.state().acquiring.pop().expect("somebody asked");
        let reply = Reply::Acquired { lock_generation: Generation(9) };
        self.say(Down::Answer(Answer { position: position(), ..Answer::plain(number, Ok(reply)) }));
    }

    /// Lets everything be cached from here on.
    pub fn let_cache(&self) {
        self.state().caches = ItemKinds::of(ItemKind::ALL);
    }

    /// Tells the next piece of news.
    pub fn tell(&self, item: News) {
        let mut state = self.state();
        state.news += 1;
        let sequence = Sequence(state.news);
        drop(state);
        self.say(Down::News { sequence, item });
    }

    /// The id of the session that speaks.
    pub fn session(&self) -> SessionId {
        self.state().session.expect("welcomed")
    }

    /// Ends every connection.
    pub fn hang_up(&self) {
        self.state().connections.values().for_each(|outbox| outbox.close());
    }

    /// To the newest connection.
    pub fn say(&self, down: Down) {
        let outbox = self.state().connections.values().next_back().cloned().expect("connected");
        outbox.push(down.into(), 1).expect("room");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn greet(&self, hello: &Hello) {
        let session = hello.key.id();
        self.state().session = Some(session);
        if self.manner == Manner::Refusing {
            return self.say(Down::Refused(ErrorCode::Unauthenticated.because("not you")));
        }
        let lease = Duration::from_secs(12);
        let grant = Grant { held: Duration::ZERO, session: lease, cache: lease };
        self.say(Down::Welcome(Welcome {
            session,
            resumed: hello.known_since.is_some(),
            grant,
            master_of: None,
            handle_keys: Vec::new(),
            lost_cells: Vec::new(),
        }));
    }

    fn answer(&self, request: Request) {
        if let Op::Acquire(..) = &request.op {
            return self.state().acquiring.push(request.number);
        }
        let result = self.reply(&request).ok_or_else(|| ErrorCode::NotFound.because("no such thing"));
        let caches = self.state().caches;
        let answer = Answer { position: position(), caches, ..Answer::plain(request.number, result) };
        self.say(Down::Answer(answer));
    }

    fn reply(&self, request: &Request) -> Option<Reply> {
        let mut state = self.state();
        match &request.op {
            Op::Open(open) => {
                let body = HandleBody {
                    cell: CellName::new("a"),
                    name: Name::parse(&open.name.as_str().replace("/ls/local", "/ls/dev")).unwrap(),
                    instance: Instance(4),
                    kind: NodeKind::File,
                    r#use: open.r#use,
                    session: state.session?,
                    opened_by: request.number,
                    epoch: Epoch(1),
                    lock_delay: open.lock_delay,
                    events: open.events,
                    ephemeral: false,
                };
                let handle = HandleKey::new(Bytes::from_static(&[1; 32])).seal(&body);
                let created = open.create.is_some();
                (open.name.component() != "missing").then(|| Reply::Opened { handle, created, stat: stat(0) })
            }
            Op::Close(_) => Some(Reply::Closed),
            Op::GetContentsAndStat(_) => {
                let contents = state.contents.clone();
                Some(Reply::Contents { stat: stat(contents.len() as u64), contents })
            }
            Op::SetContents { contents, .. } => {
                state.contents = contents.clone();
                Some(Reply::Written { content_generation: Generation(2), previous_generation: Generation(1) })
            }
            Op::Release(_) => Some(Reply::Released),
            Op::GetStat(_) | Op::Refresh(_) => Some(Reply::Stat(stat(state.contents.len() as u64))),
            Op::SetAcl { .. } => Some(Reply::AclSet { acl_generation: Generation(3) }),
            Op::GetSequencer(_) => Some(Reply::Sequencer(sequencer())),
            Op::CheckSequencer(token) => (*token == sequencer()).then_some(Reply::SequencerStands),
            _ => None,
        }
    }
}

pub fn position() -> Option<Position> {
    Some(Position { cell: CellName::new("a"), epoch: Epoch(1), index: 1 })
}

/// What the holder of the lock is given.
pub fn sequencer() -> SequencerToken {
    HandleKey::new(Bytes::from_static(&[1; 32])).seal_sequencer(&SequencerBody {
        cell: CellName::new("a"),
        name: Name::parse("/ls/dev/f").unwrap(),
        instance: Instance(4),
        mode: LockMode::Exclusive,
        lock_generation: Generation(9),
    })
}

fn stat(length: u64) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(4),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

/// The request's name, and what is special about it.
fn described(request: &Request) -> String {
    let mut words = vec![request.op.name()];
    words.extend(request.guard.as_ref().map(|_| "guarded"));
    if let Op::Open(open) = &request.op {
        words.extend(open.relative_to.as_ref().map(|_| "relative"));
        words.extend(open.create.as_ref().filter(|create| create.ephemeral).map(|_| "ephemeral"));
    }
    words.join(" ")
}

impl SessionHandler for Host {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, _peer: &str) -> u64 {
        let mut state = self.state();
        state.last += 1;
        let connection = state.last;
        state.connections.insert(connection, outbox);
        connection
    }

    fn received(&self, _connection: u64, items: Vec<v1::Up>) {
        for item in items.into_iter().map(|item| Up::try_from(item).expect("well-formed")) {
            let word = match &item {
                Up::Hello(hello) => {
                    if hello.known_since.is_some() {
                        "resume"
                    } else {
                        "hello"
                    }
                }
                Up::Request(request) => &described(request),
                Up::KeepAlive(_) => continue,
                Up::Acknowledge(_) => "acknowledge",
                Up::Cancel(_) => "cancel",
                Up::EndSession => "end",
            };
            self.state().heard.push(word.to_owned());
            match item {
                _ if self.manner == Manner::Silent => {}
                Up::Hello(hello) => self.greet(&hello),
                Up::Request(request) => self.answer(request),
                Up::EndSession => self.hang_up(),
                Up::KeepAlive(_) | Up::Acknowledge(_) | Up::Cancel(_) => {}
            }
        }
    }

    fn disconnected(&self, connection: u64) {
        self.state().connections.remove(&connection);
    }
}

impl LocateHandler for Host {
    fn locate(&self) -> v1::LocateReply {
        let host = v1::locate_reply::Host::Proxy.into();
        v1::LocateReply { host, cell: String::new(), master: String::new(), map: None }
    }
}
