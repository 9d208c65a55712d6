//! A client: one session, as an application sees it.

use std::sync::Arc;

use hasp_proto::id::SessionId;
use hasp_proto::name::Name;
use hasp_proto::request::{Op, Open, Reply};
use hasp_proto::sequencer::SequencerToken;
use hasp_router::links::Connections;
use hasp_router::upstream::{Begin, Hosts, UpstreamConfig, UpstreamCore};
use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use tokio::sync::oneshot;

use crate::connect::{ConnectError, ConnectOptions, Names, Service, Tried};
use crate::core::{Call, CoreOptions, HandleNumber, Opening};
use crate::engine::{Engine, Heard, Welcomed};
use crate::error::CallError;
use crate::events::Events;
use crate::handle::{Done, Handle, Opened};
use crate::open::{IntoName, OpenOptions};
use crate::root::Root;
use crate::sequencer::Sequencer;
use crate::timers::Timers;

/// A session with the service. A clone is the same session; it ends when the last clone and the
/// last handle are dropped, or by [`close`](Client::close).
#[derive(Clone)]
pub struct Client {
    session: Arc<Session>,
}

/// Ends with the last that needs it.
pub(crate) struct Session {
    pub(crate) engine: Arc<Engine>,
}

impl Session {
    /// Opens a node; `base` is the handle on the directory that the name is relative to.
    pub(crate) async fn open(
        self: &Arc<Self>,
        open: Open,
        opening: Opening,
        base: Option<(HandleNumber, Option<SequencerToken>)>,
    ) -> Result<Opened, CallError> {
        let (on, guard) = base.map_or((None, None), |(on, guard)| (Some(on), guard));
        let Heard { answer, handle } =
            self.engine.ask(Call { guard, on, opening, ..Op::Open(open).into() }).await?;
        match (answer.result, handle, answer.position) {
            (Ok(Reply::Opened { handle: token, created, stat }), Some(handle), position) => {
                let handle = Handle::new(self.clone(), handle, token, &stat);
                Ok(Opened { handle, created, stat, position })
            }
            (Ok(_), ..) => Err(CallError::wrong_reply()),
            (Err(error), _, position) => Err(CallError::new(error, position)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.engine.end();
    }
}

impl Client {
    /// Finds the service and starts a session.
    ///
    /// # Errors
    /// If nobody answers within the timeout, or who answers refuses.
    pub async fn connect(options: ConnectOptions, env: &Env) -> Result<Self, ConnectError> {
        options.check()?;
        let begin = env.clock.now();
        let service = Service::locate(&options.targets, options.timeout, env).await?;
        let passed = env.clock.now().saturating_since(begin);
        let timeout = options.timeout.saturating_sub(passed);
        Self::join(&service, ConnectOptions { timeout, ..options }, env).await
    }

    /// Starts a session with a service that was found before.
    ///
    /// Through a proxy or router this waits until the session is welcomed. With cells, a session
    /// begins at each when something is first asked of it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn join(service: &Service, options: ConnectOptions, env: &Env) -> Result<Self, ConnectError> {
        options.check()?;
        let (sender, welcomed) = oneshot::channel();
        let client = Self::start(service, &options, env, sender);
        let Hosts::One(addresses) = &service.hosts else { return Ok(client) };
        match tokio::time::timeout(options.timeout, welcomed).await {
            Ok(Ok(Ok(()))) => Ok(client),
            Ok(Ok(Err(error))) => Err(ConnectError::Refused(CallError::new(error, None))),
            Ok(Err(_)) | Err(_) => Err(ConnectError::Unreachable(not_welcomed(addresses.members()))),
        }
    }

    fn start(
        service: &Service,
        options: &ConnectOptions,
        env: &Env,
        welcomed: oneshot::Sender<Welcomed>,
    ) -> Self {
        let mut random = env.seeds.stream("client session");
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&random.random_16());
        seed[16..].copy_from_slice(&random.random_16());
        let begin = match service.hosts {
            Hosts::One(_) => Begin::AtOnce,
            Hosts::Cells(_) => Begin::AtFirstUse,
        };
        let config = UpstreamConfig {
            begin,
            grace: options.grace,
            ..UpstreamConfig::application(service.hosts.clone(), &options.principal, seed)
        };
        let connections = options.connections.clone();
        let connections = connections.unwrap_or_else(|| Connections::dedicated(env, Profile::clients()));
        let timers = options.timers.clone().unwrap_or_else(|| Timers::new(env));
        let upstream = UpstreamCore::new(env.clock.now(), config);
        let members = match &service.hosts {
            Hosts::One(hosts) => hosts.members().to_vec(),
            Hosts::Cells(_) => Vec::new(),
        };
        let options = CoreOptions {
            principal: options.principal.clone(),
            cache_bytes: options.cache.then_some(options.cache_bytes),
            ends_idle: options.ends_idle,
            follows: if options.follows_list { members } else { Vec::new() },
        };
        let names = Names::new(env, service.names.clone());
        let engine = Engine::start(env, upstream, &options, connections, &timers, (welcomed, names));
        Self { session: Arc::new(Session { engine }) }
    }

    /// Opens a node, and creates it if the options say so. `/ls/local/...` is the namespace of the
    /// first host.
    ///
    /// # Errors
    /// `InvalidName` and `TooLarge` before anything is sent; else as the service says: `NotFound`,
    /// `AlreadyExists`, `NotADirectory`, `PermissionDenied`, `SessionExpired`.
    pub async fn open(&self, name: impl IntoName, options: OpenOptions) -> Result<Opened, CallError> {
        let opening = options.opening();
        self.session.open(options.for_node(name.into_name()?, None)?, opening, None).await
    }

    /// The root of the first host's namespace, to open names relative to.
    pub fn root(&self) -> Root {
        Root::new(self.clone())
    }

    /// Asks the cell that made a sequencer whether its acquisition still stands.
    ///
    /// # Errors
    /// `SequencerInvalid` if it does not, or was never made by that cell; `SessionExpired`.
    pub async fn check_sequencer(&self, sequencer: &Sequencer) -> Result<Done, CallError> {
        let op = Op::CheckSequencer(sequencer.token().clone());
        let answer = self.session.engine.ask(op.into()).await?.answer;
        match (answer.result, answer.position) {
            (Ok(Reply::SequencerStands), position) => Ok(Done { position }),
            (Ok(_), _) => Err(CallError::wrong_reply()),
            (Err(error), position) => Err(CallError::new(error, position)),
        }
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// As [`open`](Self::open); `AlreadyExists` whatever it is that exists.
    pub async fn mkdir(&self, name: impl IntoName) -> Result<Opened, CallError> {
        let name: Name = name.into_name()?;
        self.open(name, OpenOptions::create_directory().must_create()).await
    }

    /// The session's id; with cells that of the first of its sessions, if one has begun.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.engine.look(|upstream| upstream.sessions().next().map(|held| held.session))
    }

    /// Whether it speaks with a host right now; with cells, with one for each session that has begun. Calls wait while it
    /// does not.
    pub fn is_connected(&self) -> bool {
        self.session.engine.look(|upstream| {
            let mut hosts = upstream.sessions().map(|held| held.host).peekable();
            hosts.peek().is_some() && hosts.all(|host| host.is_some())
        })
    }

    /// KeepAlives sent since the start, to all hosts.
    pub fn keep_alives_sent(&self) -> u64 {
        self.session.engine.look(UpstreamCore::keep_alives_sent)
    }

    /// Listens to what happens to the session from now on.
    pub fn events(&self) -> Events {
        self.session.engine.events()
    }

    /// Whether the session has expired or was closed: nothing can be asked any more.
    pub fn is_over(&self) -> bool {
        self.session.engine.is_over()
    }

    /// Ends the session, with all handles and locks, at once; waits until the hosts know it or
    /// cannot be told. Calls under way fail with `SessionExpired`.
    pub async fn close(&self) {
        self.session.engine.end();
        self.session.engine.ended().await;
    }
}

fn not_welcomed(addresses: &[String]) -> Vec<Tried> {
    let tried = |address: &String| Tried { address: address.clone(), why: "no session in time".into() };
    addresses.iter().map(tried).collect()
}
