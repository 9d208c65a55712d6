//! What applications do in a swarm: they read and write, take a lock and write under its sequencer, create and delete, until
//! they are told to stop; and when a session is lost they begin another.

mod gate;
mod names;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hasp_client::{
    CallError, Client, Env, ErrorCode, EventMask, Generation, Handle, LockMode, OpenOptions, Position,
    Sequencer,
};
use hasp_rt::rng::Rng;

use super::clients::{APPENDED, Applicant, connect};
use super::history::{Answer, Call};
use super::journal::Journal;
use super::layout::{Places, Shape};
use super::plan::ClientPlan;
pub use gate::{ACL, Gate};
use names::Names;

/// Written by the holder of the lock, under its sequencer, where there is one cell.
pub const GUARDED: &str = "/ls/dev/guarded";
/// What an ACL guards, where there is one cell.
pub const WALLED: &str = "/ls/dev/walled";
/// Where names come and go.
pub const DIRECTORY: &str = "/ls/dev/names";
/// What is added to a client's number for each session of its.
pub const SESSION: usize = 100;

/// A client, whichever sessions it has.
#[derive(Clone)]
pub struct User {
    /// What it is.
    pub plan: ClientPlan,
    /// The host it runs on.
    pub host: String,
    /// Where it goes.
    pub targets: Vec<String>,
    /// Where it notes what it is told.
    pub journal: Journal,
    /// Of the lock.
    pub lock_delay: Duration,
    /// Longest time between two calls.
    pub idle_max_ms: u64,
    /// Of a thousand acquisitions so many are shared.
    pub shared_per_mille: u64,
    /// Whether it listens to what becomes of a file.
    pub watches: bool,
    /// Its part in what an ACL guards, if there is such a thing.
    pub gate: Option<Gate>,
    /// Which machines there are, and what is where.
    pub shape: Shape,
    /// Sessions so far.
    pub sessions: Arc<AtomicUsize>,
}

impl User {
    /// One session after another, until told to stop.
    ///
    /// # Errors
    /// None: what goes wrong is in the journal.
    pub async fn live(self, env: Env) -> Result<(), String> {
        while !self.journal.is_stopping() {
            let number = self.plan.number + SESSION * (1 + self.sessions.fetch_add(1, Ordering::Relaxed));
            let is_admin = self.gate == Some(Gate::Keeper);
            let who = Applicant { number, caches: self.plan.caches, is_admin, ..self.applicant() };
            self.journal.comes_to(&self.host, number);
            self.at("connect");
            match Session::begin(&env, &self, who).await {
                Ok(session) => session.work().await,
                Err(error) => self.journal.tell(&format!("client {number} did not begin: {error}")),
            }
        }
        self.journal.is_done(self.plan.number);
        Ok(())
    }

    fn applicant(&self) -> Applicant {
        Applicant::new(self.plan.number, self.targets.clone(), self.journal.clone())
    }

    fn at(&self, what: &'static str) {
        self.journal.is_at(self.plan.number, what);
    }
}

/// One session of a client.
struct Session<'a> {
    user: &'a User,
    number: usize,
    client: Client,
    appended: Handle,
    replaced: Handle,
    guarded: Handle,
    /// Only its keeper has the ACL open.
    acl: Option<Handle>,
    lock: Handle,
    names: Names,
    writes: u64,
    is_lost: bool,
    rng: Rng,
}

impl<'a> Session<'a> {
    async fn begin(env: &Env, user: &'a User, who: Applicant) -> Result<Self, String> {
        let client = connect(env, &who).await?;
        let text = |error: CallError| error.to_string();
        let file = || OpenOptions::create_file("");
        let appended = client.open(APPENDED, file()).await.map_err(text)?.handle;
        let places = user.shape.places();
        let events = if user.watches { watch::events() } else { EventMask::NONE };
        let opened = client.open(places.replaced, file().events(events)).await.map_err(text)?;
        let replaced = opened.handle;
        if user.watches {
            watch::listen(env, &user.journal, who.number, places.replaced, &replaced);
        }
        let acl = match user.gate {
            Some(Gate::Keeper) => Some(gate::build(&client, places.walled).await.map_err(text)?),
            Some(Gate::Guest) | None => None,
        };
        let guarded = client.open(places.guarded, file()).await.map_err(text)?.handle;
        let lock = client.open(places.lock, file().lock_delay(user.lock_delay)).await.map_err(text)?.handle;
        let directory = client.open(DIRECTORY, OpenOptions::create_directory()).await.map_err(text)?.handle;
        Ok(Self {
            user,
            number: who.number,
            client,
            appended,
            replaced,
            guarded,
            acl,
            lock,
            names: Names::new(directory, user.shape.spread),
            writes: 0,
            is_lost: false,
            rng: env.seeds.stream("user"),
        })
    }

    const fn places(&self) -> Places {
        self.user.shape.places()
    }

    fn journal(&self) -> &'a Journal {
        &self.user.journal
    }

    async fn work(mut self) {
        while !self.journal().is_stopping() && !self.is_lost {
            if self.user.gate.is_some() && self.rng.below(8) == 0 {
                self.pass_gate().await;
            }
            match self.rng.below(20) {
                0..=7 => self.read_any().await,
                8 | 9 => self.append().await,
                10..=12 => self.replace().await,
                13 | 14 => self.hold_lock().await,
                15 | 16 => self.create().await,
                17 => self.delete().await,
                _ => self.list().await,
            }
            let idle = Duration::from_millis(self.rng.below(self.user.idle_max_ms));
            tokio::time::sleep(idle).await;
        }
        self.let_all_go();
        self.user.at("close");
        self.client.close().await;
    }

    fn token(&mut self) -> String {
        self.writes += 1;
        format!("{}.{}", self.number, self.writes)
    }

    fn succeeded(&self) {
        self.journal().success(self.user.plan.number);
    }

    /// An error that is no answer to what was asked.
    fn failed(&mut self, what: &str, error: &CallError) {
        self.journal().tell(&format!("client {}, {what}: {error}", self.number));
        if error.code == ErrorCode::SessionExpired {
            self.is_lost = true;
            self.journal().doubts(self.number);
        } else {
            self.journal().problem(format!("client {}, {what}: {error}", self.number));
        }
    }

    async fn read_any(&mut self) {
        match self.rng.below(3) {
            0 => drop(self.read(APPENDED).await),
            1 => drop(self.read(self.places().replaced).await),
            _ => drop(self.read(self.places().guarded).await),
        }
    }

    fn file(&self, file: &str) -> Handle {
        match file {
            APPENDED => self.appended.clone(),
            _ if file == self.places().replaced => self.replaced.clone(),
            ACL => self.acl.clone().expect("nobody else writes it"),
            _ => self.guarded.clone(),
        }
    }

    async fn read(&mut self, file: &'static str) -> Option<(String, Generation)> {
        self.user.at("read");
        let begun = turmoil::sim_elapsed();
        let operation = self.journal().begun(self.number, file, Call::Read);
        match self.file(file).get_contents_and_stat().await {
            Ok(read) => {
                let contents = String::from_utf8_lossy(&read.contents).into_owned();
                let generation = read.stat.content_generation;
                let answer = Answer::Read {
                    contents: contents.clone(),
                    generation: generation.0,
                    position: place(read.position),
                };
                self.journal().ended(operation, answer);
                // Nobody else can answer in no time.
                if turmoil::sim_elapsed() == begun {
                    self.journal().note("cached reads");
                }
                self.succeeded();
                Some((contents, generation))
            }
            Err(error) => {
                self.journal().ended(operation, Answer::Unknown);
                self.failed(file, &error);
                None
            }
        }
    }

    async fn append(&mut self) {
        let Some((contents, generation)) = self.read(APPENDED).await else { return };
        let contents = format!("{contents} {}", self.token());
        self.write(APPENDED, contents, Some(generation), None).await;
    }

    async fn replace(&mut self) {
        let contents = self.token();
        self.write(self.places().replaced, contents, None, None).await;
    }

    /// Writes; a hold whose sequencer guards it must stand as long as the client believes in it.
    async fn write(
        &mut self,
        file: &'static str,
        contents: String,
        if_generation: Option<Generation>,
        guard: Option<(&Sequencer, usize)>,
    ) {
        self.user.at("write");
        let lock_generation = guard.map(|(sequencer, _)| sequencer.lock_generation().0);
        let call = Call::Write { contents: contents.clone(), guard: lock_generation };
        let operation = self.journal().begun(self.number, file, call);
        match self.file(file).set_contents(contents, if_generation).await {
            Ok(written) => {
                let answer = Answer::Written {
                    generation: written.content_generation.0,
                    previous: written.previous_generation.0,
                    position: place(written.position),
                };
                self.journal().ended(operation, answer);
                self.succeeded();
            }
            Err(error) if error.code == ErrorCode::GenerationMismatch && if_generation.is_some() => {
                self.journal().ended(operation, Answer::Refused);
                self.succeeded();
            }
            Err(error) if error.code == ErrorCode::SequencerInvalid && guard.is_some() => {
                self.journal().ended(operation, Answer::Refused);
                let is_believed = guard.is_some_and(|(_, hold)| self.journal().believes(hold));
                if is_believed {
                    let number = self.number;
                    self.journal()
                        .problem(format!("P-LEASE: client {number} is safe, and its lock is gone: {error}"));
                }
            }
            Err(error) => {
                self.journal().ended(operation, Answer::Unknown);
                self.failed(file, &error);
            }
        }
    }

    /// Takes the lock if it comes soon, writes under its sequencer, and gives it back.
    async fn hold_lock(&mut self) {
        self.user.at("acquire");
        let patience = Duration::from_millis(300 + self.rng.below(3_000));
        let lock = self.lock.clone();
        let is_shared = self.user.shared_per_mille > 0 && self.rng.below(1_000) < self.user.shared_per_mille;
        let mode = if is_shared { LockMode::Shared } else { LockMode::Exclusive };
        let acquired = match tokio::time::timeout(patience, lock.acquire(mode)).await {
            Ok(Ok(acquired)) => acquired,
            Ok(Err(error)) => return self.failed("acquire", &error),
            Err(_elapsed) => {
                self.journal().note("locks not waited for");
                // Something that must be answered, before the next long wait.
                return self.read_any().await;
            }
        };
        let hold =
            self.journal().granted(self.number, mode, acquired.lock_generation.0, place(acquired.position));
        self.succeeded();
        self.user.at("sequencer");
        match self.lock.get_sequencer().await {
            Ok(sequencer) => {
                self.guarded.set_sequencer(&sequencer);
                for _ in 0..self.rng.below(3) {
                    let contents = self.token();
                    self.write(self.places().guarded, contents, None, Some((&sequencer, hold))).await;
                }
                self.guarded.clear_sequencer();
            }
            Err(error) => self.lost_lock("sequencer", hold, &error),
        }
        tokio::time::sleep(Duration::from_millis(self.rng.below(300))).await;
        let was_believed = self.journal().believes(hold);
        self.journal().gives_back(hold);
        self.user.at("release");
        match self.lock.release().await {
            Ok(done) => self.journal().released(hold, place(done.position)),
            Err(error) if error.code == ErrorCode::LockNotHeld && was_believed => {
                let number = self.number;
                self.journal()
                    .problem(format!("P-LEASE: client {number} is safe, and its lock is gone: {error}"));
            }
            Err(error) => self.lost_lock("release", hold, &error),
        }
    }

    fn lost_lock(&mut self, what: &str, hold: usize, error: &CallError) {
        if error.code != ErrorCode::LockNotHeld {
            return self.failed(what, error);
        }
        if self.journal().believes(hold) {
            let number = self.number;
            self.journal()
                .problem(format!("P-LEASE: client {number} is safe, and its lock is gone: {error}"));
        }
    }
}

fn place(position: Option<Position>) -> Position {
    position.expect("a cell answered")
}
