//! A session of which a benchmark decides every message: whether it asks to cache, and that it keeps
//! no more than one answer. The library would decide that by itself.
//!
//! It is held by the same [`ClientCore`] as every other, on a connection of its own or a shared one,
//! by one task. What it has read with leave to cache counts as *cached* until it is told otherwise or
//! its cache lease ends; news is acknowledged as soon as that is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_proto::client::{Ask, Attempt, ClientConfig, ClientCore, Event, Output, Status};
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{Generation, RequestNumber, SessionKey};
use hasp_proto::limits::{OUTBOX_BYTES_CLIENT, OUTBOX_ITEMS};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Open, Reply, Use};
use hasp_proto::stream::{Down, News, Up};
use hasp_proto::time::Time;
use hasp_proto::wire::v1;
use hasp_rt::env::Env;
use hasp_rt::outbox::{Limits, Outbox};
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::{Connection, dial};
use hasp_rt::rpc::session::SessionLink;
use tokio::sync::mpsc;

use super::belief::Belief;

/// How long a connection, and then the stream on it, may take to stand.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Requests waiting to be taken in by the session's task.
const COMMANDS: usize = 1_024;

/// Puts sessions on connections.
pub struct Connector {
    env: Env,
    sessions_per_connection: usize,
    /// By address, with the sessions that each was given to.
    open: tokio::sync::Mutex<BTreeMap<String, Vec<(Connection, usize)>>>,
}

impl Connector {
    /// Up to so many sessions to one address share a connection.
    pub fn new(env: &Env, sessions_per_connection: usize) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), sessions_per_connection, open: tokio::sync::Mutex::default() })
    }

    async fn connection(&self, address: &str) -> std::io::Result<Connection> {
        let mut open = self.open.lock().await;
        let connections = open.entry(address.to_owned()).or_default();
        connections.retain(|(connection, _)| !connection.is_closed());
        let with_room = connections.iter_mut().find(|(_, sessions)| *sessions < self.sessions_per_connection);
        if let Some((connection, sessions)) = with_room {
            *sessions += 1;
            return Ok(connection.clone());
        }
        let connection = dial(&self.env, address, &Profile::clients(), OPEN_DEADLINE).await?;
        connections.push((connection.clone(), 1));
        Ok(connection)
    }
}

/// A session held by a benchmark. Ends when dropped.
pub struct BareSession {
    env: Env,
    commands: mpsc::Sender<Command>,
    kept: Arc<Mutex<Kept>>,
}

/// What to ask, and who waits for the answers.
struct Command {
    asks: Vec<Ask>,
    /// Has room for all of them.
    sender: mpsc::Sender<Answer>,
}

fn understand(answer: Option<Answer>) -> anyhow::Result<(Reply, Option<Position>)> {
    let answer = answer.context("wait for an answer: the session is over")?;
    let reply = answer.result.map_err(|error| anyhow::anyhow!("the answer is {error:?}"))?;
    Ok((reply, answer.position))
}

/// What the session has and has been through.
#[derive(Debug, Default)]
struct Kept {
    belief: Belief,
    cache_lease_end: Time,
    jeopardies: u64,
    is_over: bool,
}

impl BareSession {
    /// Starts a session with the first of these hosts that takes it, or the one that it names.
    pub fn start(env: &Env, connector: &Arc<Connector>, targets: Vec<String>) -> Self {
        let key = SessionKey::new(env.seeds.stream("bare session").random_16());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let kept = Arc::<Mutex<Kept>>::default();
        let holder = Holder {
            core: ClientCore::new(env.clock.now(), ClientConfig::application(key, "bench", targets)),
            env: env.clone(),
            connector: connector.clone(),
            link: None,
            waiting: BTreeMap::new(),
            kept: kept.clone(),
        };
        env.tasks.spawn("bare-session", holder.run(commands));
        Self { env: env.clone(), commands: sender, kept }
    }

    /// Asks something.
    ///
    /// # Errors
    /// The session is over, or the answer is an error.
    pub async fn ask(&self, ask: Ask) -> anyhow::Result<(Reply, Option<Position>)> {
        let (sender, mut answers) = mpsc::channel(1);
        self.send(Command { asks: vec![ask], sender }).await?;
        understand(answers.recv().await)
    }

    /// Asks all of these at once, so that they leave together; waits for all answers.
    ///
    /// # Errors
    /// The session is over, or an answer is an error.
    pub async fn ask_all(&self, asks: Vec<Ask>) -> anyhow::Result<()> {
        let count = asks.len();
        let (sender, mut answers) = mpsc::channel(count.max(1));
        self.send(Command { asks, sender }).await?;
        for _ in 0..count {
            understand(answers.recv().await)?;
        }
        Ok(())
    }

    async fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).await.ok().context("ask: the session is over")
    }

    /// Opens a file for reading, without asking to cache anything of it.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn open(&self, name: &str) -> anyhow::Result<HandleToken> {
        let name = Name::parse(name).with_context(|| format!("open {name}"))?;
        match self.ask(Op::Open(Open::existing(name, Use::Read)).into()).await? {
            (Reply::Opened { handle, .. }, _) => Ok(handle),
            (other, _) => bail!("open: answered with {other:?}"),
        }
    }

    /// What it may still believe to be the file's contents, by generation; `None`: it would have to ask.
    pub fn cached(&self) -> Option<Generation> {
        let kept = self.kept();
        kept.belief.cached().filter(|_| self.env.clock.now() < kept.cache_lease_end)
    }

    /// How long cached contents may be used from now on, by the session's own clock.
    pub fn cache_lease_left(&self) -> Duration {
        self.kept().cache_lease_end.saturating_since(self.env.clock.now())
    }

    /// How often its session lease ran out before it was extended.
    pub fn jeopardies(&self) -> u64 {
        self.kept().jeopardies
    }

    /// Whether nothing can be asked any more.
    pub fn is_over(&self) -> bool {
        self.kept().is_over
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream that a session speaks on.
struct Stream {
    attempt: Attempt,
    link: SessionLink,
    outbox: Arc<Outbox<v1::Up>>,
}

/// The task that holds a session.
struct Holder {
    core: ClientCore,
    env: Env,
    connector: Arc<Connector>,
    link: Option<Stream>,
    waiting: BTreeMap<RequestNumber, mpsc::Sender<Answer>>,
    kept: Arc<Mutex<Kept>>,
}

impl Holder {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let stop = self.env.tasks.token().clone();
        let mut taken = Vec::new();
        let mut is_wanted = true;
        loop {
            self.carry_out().await;
            if self.core.status() == Status::Over {
                lock(&self.kept).is_over = true;
                return;
            }
            let deadline = self.core.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                items = receive(&mut self.link) => self.received(items),
                count = commands.recv_many(&mut taken, COMMANDS), if is_wanted => {
                    is_wanted = count > 0;
                    if !is_wanted {
                        self.core.end(self.env.clock.now());
                    }
                    taken.drain(..).for_each(|command| self.submit(command));
                }
                () = sleep_until(&self.env, deadline) => self.core.handle_timeout(self.env.clock.now()),
            }
        }
    }

    fn submit(&mut self, command: Command) {
        for ask in command.asks {
            let number = self.core.submit(ask);
            self.waiting.insert(number, command.sender.clone());
        }
    }

    fn received(&mut self, items: Option<Vec<Down>>) {
        let Some(attempt) = self.link.as_ref().map(|stream| stream.attempt) else { return };
        let now = self.env.clock.now();
        match items {
            Some(items) => items.into_iter().for_each(|down| self.core.received(now, attempt, down)),
            None => {
                self.link = None;
                self.core.disconnected(now, attempt);
            }
        }
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect(attempt, address) => self.connect(attempt, &address).await,
                Output::Disconnect(attempt) => {
                    self.link.take_if(|stream| stream.attempt == attempt);
                }
                Output::Send(attempt, up) => self.send(attempt, up),
                Output::Answered(answer) => self.answered(answer),
                Output::Event(event) => self.happened(event),
            }
        }
    }

    async fn connect(&mut self, attempt: Attempt, address: &str) {
        let limits = Limits { items_max: OUTBOX_ITEMS, bytes_max: OUTBOX_BYTES_CLIENT };
        let outbox = Arc::new(Outbox::new(limits));
        let opening = async {
            let connection = self.connector.connection(address).await.ok()?;
            SessionLink::open(&connection, outbox.clone(), OPEN_DEADLINE).await.ok()
        };
        let opened = opening.await;
        let now = self.env.clock.now();
        match opened {
            Some(link) => {
                self.link = Some(Stream { attempt, link, outbox });
                self.core.connected(now, attempt);
            }
            None => self.core.disconnected(now, attempt),
        }
    }

    fn send(&mut self, attempt: Attempt, up: Up) {
        if let Some(stream) = self.link.as_ref().filter(|stream| stream.attempt == attempt) {
            let weight = up.weight();
            // Closed means that the stream's end is about to be received.
            let _ = stream.outbox.push(up.into(), weight);
        }
    }

    fn answered(&mut self, answer: Answer) {
        lock(&self.kept).belief.learn(&answer);
        if let Some(caller) = self.waiting.remove(&answer.number) {
            // Who does not wait any more does not need it.
            let _ = caller.try_send(answer);
        }
    }

    fn happened(&mut self, event: Event) {
        let mut kept = lock(&self.kept);
        match event {
            Event::Extended | Event::Safe => {}
            Event::Welcomed { resumed: true, .. } => {}
            Event::Welcomed { resumed: false, .. } | Event::CacheLapsed => kept.belief.forget(),
            Event::Jeopardy => {
                kept.belief.forget();
                kept.jeopardies += 1;
            }
            Event::Expired(_) | Event::Closed | Event::CellLost(_) => kept.belief.forget(),
            Event::News(id, news) => {
                match news {
                    News::Invalidate { floor, .. } => kept.belief.invalidate(floor),
                    News::FailOver { .. } | News::CellLost { .. } => kept.belief.forget(),
                    News::Event(_) | News::EventsLost { .. } => {}
                }
                self.core.acknowledge(id);
            }
        }
        kept.cache_lease_end = self.core.lease_ends().cache;
    }
}

/// The next items, or `None` once the stream is gone; never if there is none. Cancel-safe.
async fn receive(link: &mut Option<Stream>) -> Option<Vec<Down>> {
    let Some(stream) = link else { return std::future::pending().await };
    let items = stream.link.receive().await.ok()??;
    items.into_iter().map(Down::try_from).collect::<Result<_, _>>().ok()
}

async fn sleep_until(env: &Env, deadline: Option<Time>) {
    match deadline {
        Some(deadline) => env.clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
