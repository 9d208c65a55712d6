//! What applications do in a swarm: they read and write, take a lock and write under its sequencer, create and delete, until
//! they are told to stop; and when a session is lost they begin another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hasp_client::{
    CallError, Client, Env, ErrorCode, Generation, Handle, LockMode, OpenOptions, Position, Sequencer,
};
use hasp_rt::rng::Rng;

use super::clients::{APPENDED, Applicant, LOCK, REPLACED, connect};
use super::history::{Answer, Call};
use super::journal::{Journal, now};
use super::lives::{Deed, Life, Listing};
use super::plan::{ClientPlan, index};

/// Written by the holder of the lock, under its sequencer.
pub const GUARDED: &str = "/ls/dev/guarded";
/// Where names come and go.
pub const DIRECTORY: &str = "/ls/dev/names";
/// Names there.
const NAMES: usize = 4;
/// Nodes that a client keeps open, at most.
const KEPT_MAX: usize = 3;
/// What is added to a client's number for each session of its.
const SESSION: usize = 100;

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
            let who = Applicant { number, caches: self.plan.caches, ..self.applicant() };
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

/// A node that a session has created and still has open.
struct Kept {
    handle: Handle,
    life: usize,
}

/// One session of a client.
struct Session<'a> {
    user: &'a User,
    number: usize,
    client: Client,
    appended: Handle,
    replaced: Handle,
    guarded: Handle,
    lock: Handle,
    directory: Handle,
    kept: Vec<Kept>,
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
        let replaced = client.open(REPLACED, file()).await.map_err(text)?.handle;
        let guarded = client.open(GUARDED, file()).await.map_err(text)?.handle;
        let lock = client.open(LOCK, file().lock_delay(user.lock_delay)).await.map_err(text)?.handle;
        let directory = client.open(DIRECTORY, OpenOptions::create_directory()).await.map_err(text)?.handle;
        Ok(Self {
            user,
            number: who.number,
            client,
            appended,
            replaced,
            guarded,
            lock,
            directory,
            kept: Vec::new(),
            writes: 0,
            is_lost: false,
            rng: env.seeds.stream("user"),
        })
    }

    fn journal(&self) -> &'a Journal {
        &self.user.journal
    }

    async fn work(mut self) {
        while !self.journal().is_stopping() && !self.is_lost {
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
        for kept in std::mem::take(&mut self.kept) {
            self.let_go(kept);
        }
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
            1 => drop(self.read(REPLACED).await),
            _ => drop(self.read(GUARDED).await),
        }
    }

    fn file(&self, file: &str) -> Handle {
        match file {
            APPENDED => self.appended.clone(),
            REPLACED => self.replaced.clone(),
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
        self.write(REPLACED, contents, None, None).await;
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
        let acquired = match tokio::time::timeout(patience, lock.acquire(LockMode::Exclusive)).await {
            Ok(Ok(acquired)) => acquired,
            Ok(Err(error)) => return self.failed("acquire", &error),
            Err(_elapsed) => {
                self.journal().note("locks not waited for");
                // Something that must be answered, before the next long wait.
                return self.read_any().await;
            }
        };
        let hold = self.journal().granted(self.number, acquired.lock_generation.0, place(acquired.position));
        self.succeeded();
        self.user.at("sequencer");
        match self.lock.get_sequencer().await {
            Ok(sequencer) => {
                self.guarded.set_sequencer(&sequencer);
                for _ in 0..self.rng.below(3) {
                    let contents = self.token();
                    self.write(GUARDED, contents, None, Some((&sequencer, hold))).await;
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

    fn begin_life(&self, name: &str, deed: Deed, instance: Option<u64>) -> usize {
        self.journal().life(Life {
            client: self.number,
            name: name.to_owned(),
            deed,
            instance,
            begun: now(),
            done: None,
            is_refused: false,
            believed_until: None,
        })
    }

    fn refuse(&self, life: usize) {
        self.journal().life_ended(life, |life| life.is_refused = true);
        self.succeeded();
    }

    async fn create(&mut self) {
        self.user.at("create");
        let name = format!("n{}", index(&mut self.rng, NAMES));
        let options = OpenOptions::create_file(self.token()).must_create();
        let (deed, options) = match self.rng.below(2) {
            0 => (Deed::Create, options),
            _ => (Deed::CreateEphemeral, options.ephemeral()),
        };
        let life = self.begin_life(&name, deed, None);
        match self.directory.open(&name, options).await {
            Ok(opened) => {
                let (instance, position) = (opened.handle.instance().0, place(opened.position));
                self.journal().life_ended(life, |life| {
                    life.instance = Some(instance);
                    life.done = Some((now(), position));
                });
                self.succeeded();
                self.kept.push(Kept { handle: opened.handle, life });
                if self.kept.len() > KEPT_MAX {
                    let kept = self.kept.remove(0);
                    self.let_go(kept);
                }
            }
            Err(error) if error.code == ErrorCode::AlreadyExists => self.refuse(life),
            // Created, and deleted by somebody else before the answer was made.
            Err(error) if error.code == ErrorCode::StaleHandle => self.journal().note("opened too late"),
            Err(error) => self.failed("create", &error),
        }
    }

    /// Closes the handle: if the node is ephemeral it goes.
    fn let_go(&self, kept: Kept) {
        self.journal().life_ended(kept.life, |life| {
            life.believed_until.get_or_insert_with(now);
        });
        drop(kept.handle);
    }

    async fn delete(&mut self) {
        self.user.at("delete");
        let name = format!("n{}", index(&mut self.rng, NAMES));
        let opened = match self.directory.open(&name, OpenOptions::write()).await {
            Ok(opened) => opened,
            Err(error) if error.code == ErrorCode::NotFound => return self.succeeded(),
            Err(error) if error.code == ErrorCode::StaleHandle => {
                return self.journal().note("opened too late");
            }
            Err(error) => return self.failed("open", &error),
        };
        let life = self.begin_life(&name, Deed::Delete, Some(opened.handle.instance().0));
        match opened.handle.delete().await {
            Ok(done) => {
                let position = place(done.position);
                self.journal().life_ended(life, |life| life.done = Some((now(), position)));
                self.succeeded();
            }
            Err(error) if error.code == ErrorCode::StaleHandle => self.refuse(life),
            Err(error) => self.failed("delete", &error),
        }
    }

    async fn list(&mut self) {
        self.user.at("list");
        let begun = now();
        match self.directory.read_dir().await {
            Ok(children) => {
                let shown = children.children.iter();
                let children_shown =
                    shown.map(|child| (child.component.clone(), child.stat.instance.0)).collect();
                self.journal().listed(Listing {
                    client: self.number,
                    begun,
                    ended: now(),
                    position: place(children.position),
                    children: children_shown,
                });
                self.succeeded();
            }
            Err(error) => self.failed("list", &error),
        }
    }
}

fn place(position: Option<Position>) -> Position {
    position.expect("a cell answered")
}
