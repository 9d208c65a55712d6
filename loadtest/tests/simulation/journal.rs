//! Where the clients of one run note what they ask and are told. All hosts of a run share it: it is not part of the
//! simulated world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hasp_proto::position::Position;

use crate::history::{Answer, Call, Hold, HoldEnd, Moment, Operation};

/// A clone is the same journal.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Pages>>);

/// All that was noted.
#[derive(Clone, Default)]
pub struct Pages {
    pub operations: Vec<Operation>,
    pub holds: Vec<Hold>,
    /// What no client may be told in any scenario that keeps its promises: lost sessions, refused calls.
    pub problems: Vec<String>,
    /// How often each thing happened that may happen.
    pub notes: BTreeMap<String, u64>,
    /// When each client had its last answer that was no error.
    pub last_success: BTreeMap<usize, Moment>,
    /// What each client is at that has not ended.
    pub at_work: BTreeMap<usize, &'static str>,
    is_stopping: bool,
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

    pub fn is_stopping(&self) -> bool {
        self.pages().is_stopping
    }

    pub fn problem(&self, problem: String) {
        self.pages().problems.push(format!("{}: {problem}", now()));
    }

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

    pub fn ended(&self, operation: usize, answer: Answer) {
        self.pages().operations[operation].end = Some((now(), answer));
    }

    /// A client was told that it holds the lock.
    pub fn granted(&self, client: usize, generation: u64, position: Position) -> usize {
        let mut pages = self.pages();
        let end = HoldEnd::Open;
        pages.holds.push(Hold { client, generation, position, granted: now(), believed_until: None, end });
        pages.holds.len() - 1
    }

    /// A client is about to give the lock back.
    pub fn gives_back(&self, hold: usize) {
        self.pages().holds[hold].believed_until.get_or_insert_with(now);
    }

    pub fn released(&self, hold: usize, position: Position) {
        self.pages().holds[hold].end = HoldEnd::Released(position);
    }

    /// A client's session is in jeopardy or over: it no longer relies on what it holds.
    pub fn doubts(&self, client: usize) {
        let mut pages = self.pages();
        for hold in pages.holds.iter_mut().filter(|hold| hold.client == client) {
            hold.believed_until.get_or_insert_with(now);
        }
    }

    /// A client died. What it was not about to give back anyway is lost. How many locks are.
    pub fn died(&self, client: usize, at: Moment, lock_delay: Duration) -> usize {
        let mut pages = self.pages();
        pages.last_success.remove(&client);
        pages.at_work.remove(&client);
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

    /// Who holds the lock now, as far as anybody knows.
    pub fn holder(&self) -> Option<usize> {
        let pages = self.pages();
        pages.holds.iter().find(|hold| hold.believed_until.is_none()).map(|hold| hold.client)
    }
}
