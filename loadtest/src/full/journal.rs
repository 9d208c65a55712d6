//! Where the clients of one run note what they ask and are told. All hosts of a run share it: it is not part of the
//! simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hasp_proto::node::LockMode;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;

use super::history::{Answer, Call, Hold, HoldEnd, Knock, Moment, Operation, Told, Watch};
use super::lives::{Life, Listing};
use super::relocation::{Outcome, Relocation};

/// A clone is the same journal.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Pages>>);

/// All that was noted.
#[derive(Clone, Default)]
pub struct Pages {
    /// Reads and writes.
    pub operations: Vec<Operation>,
    /// Acquisitions of the lock.
    pub holds: Vec<Hold>,
    /// What no client may be told in any scenario that keeps its promises: lost sessions, refused calls.
    pub problems: Vec<String>,
    /// How often each thing happened that may happen.
    pub notes: BTreeMap<String, u64>,
    /// When each client had its last answer that was no error.
    pub last_success: BTreeMap<usize, Moment>,
    /// What each client is at that has not ended.
    pub at_work: BTreeMap<usize, &'static str>,
    /// Masterships that began.
    pub elections: u64,
    /// Everything that happened, a line each. Empty unless asked for by [`Journal::tells`].
    pub story: Vec<String>,
    is_telling: bool,
    tolerates_losses: bool,
    is_stopping: bool,
    /// Clients at work on each host.
    on_host: BTreeMap<String, BTreeSet<usize>>,
    /// Names that came and went.
    pub lives: Vec<Life>,
    /// What directories showed.
    pub listings: Vec<Listing>,
    /// What handles were told.
    pub watches: Vec<Watch>,
    /// Who tried to open what an ACL guards.
    pub knocks: Vec<Knock>,
    /// Changes of the map, one after another.
    pub relocations: Vec<Relocation>,
}

/// The present moment. Only for code that runs on a simulated host.
pub fn now() -> Moment {
    let elapsed = turmoil::sim_elapsed().expect("called on a simulated host");
    Moment(u64::try_from(elapsed.as_millis()).expect("runs last minutes"))
}

impl Journal {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything so far.
    pub fn read(&self) -> Pages {
        self.pages().clone()
    }

    /// Tells all clients to finish what they are at and no more.
    pub fn stop(&self) {
        self.pages().is_stopping = true;
    }

    /// Whether clients should finish.
    pub fn is_stopping(&self) -> bool {
        self.pages().is_stopping
    }

    /// From now on a line is kept of everything that happens.
    pub fn tells(&self) {
        self.pages().is_telling = true;
    }

    /// From now on a session that is lost is no problem: somebody cut it off for longer than its lease.
    pub fn tolerate_losses(&self) {
        self.pages().tolerates_losses = true;
    }

    /// A line of the story. Only for code that runs on a simulated host.
    pub fn tell(&self, what: &str) {
        let at = turmoil::sim_elapsed().expect("called on a simulated host");
        self.tell_at(at, what);
    }

    /// A line of the story, from outside.
    pub fn tell_at(&self, at: Duration, what: &str) {
        let mut pages = self.pages();
        if pages.is_telling {
            pages.story.push(format!("{:>12.6} {what}", at.as_secs_f64()));
        }
    }

    /// A replica has become master.
    pub fn elected(&self) {
        self.pages().elections += 1;
    }

    /// A session was lost.
    pub fn lost(&self, what: String) {
        if self.pages().tolerates_losses {
            self.note("lost sessions");
            self.tell(&what);
        } else {
            self.problem(what);
        }
    }

    /// Something happened that may not happen.
    pub fn problem(&self, problem: String) {
        self.tell(&format!("PROBLEM: {problem}"));
        self.pages().problems.push(format!("{}: {problem}", now()));
    }

    /// Something happened that may happen.
    pub fn note(&self, what: impl Into<String>) {
        *self.pages().notes.entry(what.into()).or_default() += 1;
    }

    /// What a client is about to do, for reports of runs that do not end.
    pub fn is_at(&self, client: usize, what: &'static str) {
        self.pages().at_work.insert(client, what);
    }

    /// A client has finished.
    pub fn is_done(&self, client: usize) {
        self.pages().at_work.remove(&client);
    }

    /// A client got an answer.
    pub fn success(&self, client: usize) {
        self.pages().last_success.insert(client, now());
    }

    /// A client begins an operation; its number is for [`ended`](Self::ended).
    pub fn begun(&self, client: usize, file: &'static str, call: Call) -> usize {
        let mut pages = self.pages();
        pages.operations.push(Operation { client, file, call, begun: now(), end: None });
        pages.operations.len() - 1
    }

    /// The operation was answered.
    pub fn ended(&self, operation: usize, answer: Answer) {
        let mut pages = self.pages();
        let ended = &mut pages.operations[operation];
        ended.end = Some((now(), answer));
        let ended = ended.clone();
        drop(pages);
        self.tell(&ended.to_string());
    }

    /// Something was done to a name; how it ends is for [`life_ended`](Self::life_ended).
    pub fn life(&self, life: Life) -> usize {
        let mut pages = self.pages();
        pages.lives.push(life);
        pages.lives.len() - 1
    }

    /// Changes what is known of something that was done to a name.
    pub fn life_ended(&self, life: usize, change: impl FnOnce(&mut Life)) {
        let mut pages = self.pages();
        change(&mut pages.lives[life]);
        let ended = pages.lives[life].clone();
        drop(pages);
        self.tell(&format!("{ended:?}"));
    }

    /// A directory was read.
    pub fn listed(&self, listing: Listing) {
        self.tell(&format!("{listing:?}"));
        self.pages().listings.push(listing);
    }

    /// A client begins to listen to a file; the number is for [`told_of`](Self::told_of).
    pub fn watches(&self, client: usize, file: &'static str) -> usize {
        let mut pages = self.pages();
        pages.watches.push(Watch { client, file, begun: now(), told: Vec::new() });
        pages.watches.len() - 1
    }

    /// A handle was told something.
    pub fn told_of(&self, watch: usize, told: Told) {
        self.tell(&format!("watch {watch}: {told:?}"));
        self.pages().watches[watch].told.push((now(), told));
    }

    /// Somebody tried to open what an ACL guards.
    pub fn knocked(&self, knock: Knock) {
        self.tell(&format!("{knock:?}"));
        self.pages().knocks.push(knock);
    }

    /// The operator is about to change the map, and perhaps to take that back.
    pub fn relocates(&self, changing: PartitionMap, is_recalled: bool) {
        let change = changing.change().expect("it is changing").clone();
        self.tell(&format!("version {} of the map: {change:?}, recalled: {is_recalled}", changing.version));
        self.pages().relocations.push(Relocation { changing, begun: now(), is_recalled, ended: None });
    }

    /// The change that is not over, as far as the operator knows.
    pub fn relocation(&self) -> Option<Relocation> {
        self.pages().relocations.last().filter(|last| last.ended.is_none()).cloned()
    }

    /// That change is over.
    pub fn relocated(&self, outcome: Outcome) {
        self.tell(&format!("the change of the map has ended: {outcome:?}"));
        let mut pages = self.pages();
        let last = pages.relocations.last_mut().expect("one is under way");
        last.ended.get_or_insert((now(), outcome));
    }

    /// Whether the client still relies on what it holds.
    pub fn believes(&self, hold: usize) -> bool {
        self.pages().holds[hold].believed_until.is_none()
    }

    /// A client was told that it holds the lock.
    pub fn granted(&self, client: usize, mode: LockMode, generation: u64, position: Position) -> usize {
        let mut pages = self.pages();
        let end = HoldEnd::Open;
        let told = format!("client {client} holds the lock {mode:?}, generation {generation} at {position}");
        pages.holds.push(Hold {
            client,
            mode,
            generation,
            position,
            granted: now(),
            believed_until: None,
            end,
        });
        let hold = pages.holds.len() - 1;
        drop(pages);
        self.tell(&told);
        hold
    }

    /// A client is about to give the lock back.
    pub fn gives_back(&self, hold: usize) {
        self.pages().holds[hold].believed_until.get_or_insert_with(now);
    }

    /// A client has given the lock back.
    pub fn released(&self, hold: usize, position: Position) {
        self.tell(&format!("hold {hold} released at {position}"));
        self.pages().holds[hold].end = HoldEnd::Released(position);
    }

    /// A client's session is in jeopardy or over: it no longer relies on what it holds.
    pub fn doubts(&self, client: usize) {
        let mut pages = self.pages();
        for hold in pages.holds.iter_mut().filter(|hold| hold.client == client) {
            hold.believed_until.get_or_insert_with(now);
        }
        for life in pages.lives.iter_mut().filter(|life| life.client == client) {
            life.believed_until.get_or_insert_with(now);
        }
    }

    /// A client died. What it was not about to give back anyway is lost. How many locks are.
    pub fn died(&self, client: usize, at: Moment, lock_delay: Duration) -> usize {
        let mut pages = self.pages();
        pages.last_success.remove(&client);
        pages.at_work.remove(&client);
        for life in pages.lives.iter_mut().filter(|life| life.client == client) {
            life.believed_until.get_or_insert(at);
        }
        let mut lost = 0;
        for hold in pages.holds.iter_mut().filter(|hold| hold.client == client) {
            if hold.believed_until.is_none() {
                hold.believed_until = Some(at);
                hold.end = HoldEnd::Lost(at, lock_delay);
                lost += 1;
            }
        }
        lost
    }

    /// A client begins on that host.
    pub fn comes_to(&self, host: &str, client: usize) {
        self.tell(&format!("client {client} begins on {host}"));
        self.pages().on_host.entry(host.to_owned()).or_default().insert(client);
    }

    /// A host of clients died, with all that ran there.
    pub fn host_died(&self, host: &str, at: Moment, lock_delay: Duration) {
        let clients = self.pages().on_host.remove(host).unwrap_or_default();
        for client in clients {
            self.died(client, at, lock_delay);
        }
    }

    /// Who holds the lock now, as far as anybody knows.
    pub fn holder(&self) -> Option<usize> {
        let pages = self.pages();
        pages.holds.iter().find(|hold| hold.believed_until.is_none()).map(|hold| hold.client)
    }
}
