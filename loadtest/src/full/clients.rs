//! What the applications of a run do, and that they note all of it in the journal.

use std::time::Duration;

use hasp_client::{
    CallError, Client, ConnectOptions, Env, ErrorCode, Generation, Handle, LockMode, OpenOptions, Position,
    SessionEvent,
};
use hasp_rt::rng::Rng;
use tokio::task::JoinSet;

use super::history::{Answer, Call};
use super::journal::Journal;

/// Clients append to it by compare-and-swap.
pub const APPENDED: &str = "/ls/dev/appended";
/// Clients replace it whatever it holds.
pub const REPLACED: &str = "/ls/dev/replaced";
/// Clients contend for its lock.
pub const LOCK: &str = "/ls/dev/lock";

/// Who a client is and where it goes.
#[derive(Clone)]
pub struct Applicant {
    /// Its number in the journal.
    pub number: usize,
    /// Addresses of proxies or of replicas.
    pub targets: Vec<String>,
    /// Where it notes what it is told.
    pub journal: Journal,
    /// Whether it keeps what it reads.
    pub caches: bool,
    /// Whether it runs the cell.
    pub is_admin: bool,
}

impl Applicant {
    /// A client that keeps what it reads.
    pub const fn new(number: usize, targets: Vec<String>, journal: Journal) -> Self {
        Self { number, targets, journal, caches: true, is_admin: false }
    }
}

/// Runs clients of one host side by side until each has ended.
///
/// # Errors
/// The first that failed.
pub async fn together<F>(works: impl IntoIterator<Item = F>) -> turmoil::Result
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for work in works {
        running.spawn(work);
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// A session whose troubles go into the journal.
///
/// # Errors
/// If the service is not reached within a minute.
pub async fn connect(env: &Env, who: &Applicant) -> Result<Client, String> {
    let options = ConnectOptions {
        cache: who.caches,
        principal: if who.is_admin { "admin".into() } else { format!("client-{}", who.number) },
        timeout: Duration::from_secs(60),
        ..ConnectOptions::new(who.targets.clone())
    };
    let client = Client::connect(options, env).await.map_err(|error| error.to_string())?;
    let (mut events, who) = (client.events(), who.clone());
    env.tasks.spawn("client-events", async move {
        while let Some(event) = events.next().await {
            match event {
                SessionEvent::Jeopardy { .. } => {
                    who.journal.note("jeopardy");
                    who.journal.doubts(who.number);
                }
                SessionEvent::Safe { .. } => who.journal.note("safe again"),
                SessionEvent::FailOver { .. } => who.journal.note("told of a fail-over"),
                SessionEvent::Missed(_) => who.journal.problem("events missed".into()),
                SessionEvent::Expired(error) => {
                    who.journal.doubts(who.number);
                    who.journal.lost(format!("client {} lost its session: {error}", who.number));
                }
                SessionEvent::CellLost { cell } => {
                    who.journal.doubts(who.number);
                    who.journal.lost(format!("client {} lost cell {cell}", who.number));
                }
            }
        }
    });
    Ok(client)
}

fn place(position: Option<Position>) -> Position {
    position.expect("a cell answered")
}

/// A client with its two files open.
pub struct Writer {
    who: Applicant,
    /// Keeps the session.
    client: Client,
    appended: Handle,
    replaced: Handle,
    writes: u64,
    /// What it decides by.
    pub rng: Rng,
}

impl Writer {
    /// Begins a session and opens the files.
    ///
    /// # Errors
    /// If the service is not reached, or refuses.
    pub async fn begin(env: Env, who: Applicant) -> Result<Self, String> {
        let client = connect(&env, &who).await?;
        let open = |name| client.open(name, OpenOptions::create_file(""));
        let text = |error: CallError| error.to_string();
        let appended = open(APPENDED).await.map_err(text)?.handle;
        let replaced = open(REPLACED).await.map_err(text)?.handle;
        let rng = env.seeds.stream("writer");
        Ok(Self { who, client, appended, replaced, writes: 0, rng })
    }

    /// Reads and writes both files at random until told to stop.
    ///
    /// # Errors
    /// None: what goes wrong is in the journal.
    pub async fn work(mut self) -> Result<(), String> {
        while !self.who.journal.is_stopping() {
            match self.rng.below(5) {
                0 | 1 => self.append().await,
                2 | 3 => self.replace().await,
                _ => drop(self.read(REPLACED).await),
            }
            self.pause(250).await;
        }
        self.who.journal.is_at(self.who.number, "close");
        self.client.close().await;
        self.who.journal.is_done(self.who.number);
        Ok(())
    }

    /// Does nothing for up to so many milliseconds.
    pub async fn pause(&mut self, millis_max: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.below(millis_max))).await;
    }

    fn token(&mut self) -> String {
        self.writes += 1;
        format!("{}.{}", self.who.number, self.writes)
    }

    /// Appends a token of its own.
    pub async fn append(&mut self) {
        let Some((contents, generation)) = self.read(APPENDED).await else { return };
        let contents = format!("{contents} {}", self.token());
        self.write(APPENDED, contents, Some(generation)).await;
    }

    /// Writes contents of its own.
    pub async fn replace(&mut self) {
        let contents = self.token();
        self.write(REPLACED, contents, None).await;
    }

    /// What the file holds, if the service says so.
    pub async fn read(&self, file: &'static str) -> Option<(String, Generation)> {
        self.who.journal.is_at(self.who.number, "read");
        let operation = self.who.journal.begun(self.who.number, file, Call::Read);
        match self.handle(file).get_contents_and_stat().await {
            Ok(read) => {
                let contents = String::from_utf8_lossy(&read.contents).into_owned();
                let generation = read.stat.content_generation;
                let answer = Answer::Read {
                    contents: contents.clone(),
                    generation: generation.0,
                    position: place(read.position),
                };
                self.who.journal.ended(operation, answer);
                self.who.journal.success(self.who.number);
                Some((contents, generation))
            }
            Err(error) => {
                self.failed(operation, file, &error);
                None
            }
        }
    }

    async fn write(&self, file: &'static str, contents: String, if_generation: Option<Generation>) {
        self.who.journal.is_at(self.who.number, "write");
        let call = Call::Write { contents: contents.clone(), guard: None };
        let operation = self.who.journal.begun(self.who.number, file, call);
        match self.handle(file).set_contents(contents, if_generation).await {
            Ok(written) => {
                let answer = Answer::Written {
                    generation: written.content_generation.0,
                    previous: written.previous_generation.0,
                    position: place(written.position),
                };
                self.who.journal.ended(operation, answer);
                self.who.journal.success(self.who.number);
            }
            Err(error) if error.code == ErrorCode::GenerationMismatch => {
                self.who.journal.ended(operation, Answer::Refused);
                self.who.journal.note("swap refused");
            }
            Err(error) => self.failed(operation, file, &error),
        }
    }

    fn failed(&self, operation: usize, file: &str, error: &CallError) {
        self.who.journal.ended(operation, Answer::Unknown);
        self.who.journal.problem(format!("client {}, {file}: {error}", self.who.number));
    }

    fn handle(&self, file: &str) -> &Handle {
        if file == APPENDED { &self.appended } else { &self.replaced }
    }
}

/// Acquires, holds and releases the lock until told to stop.
///
/// # Errors
/// If the service is not reached, or refuses.
pub async fn contend(env: Env, who: Applicant, lock_delay: Duration) -> Result<(), String> {
    let mut rng = env.seeds.stream("contender");
    let client = connect(&env, &who).await?;
    let options = OpenOptions::create_file("").lock_delay(lock_delay);
    let handle = client.open(LOCK, options).await.map_err(|error| error.to_string())?.handle;
    while !who.journal.is_stopping() {
        tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
        who.journal.is_at(who.number, "acquire");
        let acquired = match handle.acquire(LockMode::Exclusive).await {
            Ok(acquired) => acquired,
            Err(error) => {
                who.journal.problem(format!("client {}, acquire: {error}", who.number));
                return Ok(());
            }
        };
        let hold = who.journal.granted(
            who.number,
            LockMode::Exclusive,
            acquired.lock_generation.0,
            place(acquired.position),
        );
        who.journal.success(who.number);
        tokio::time::sleep(Duration::from_millis(20 + rng.below(180))).await;
        who.journal.gives_back(hold);
        who.journal.is_at(who.number, "release");
        match handle.release().await {
            Ok(done) => who.journal.released(hold, place(done.position)),
            Err(error) => who.journal.problem(format!("client {}, release: {error}", who.number)),
        }
    }
    who.journal.is_at(who.number, "close");
    client.close().await;
    who.journal.is_done(who.number);
    Ok(())
}
