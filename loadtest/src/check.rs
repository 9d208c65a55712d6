//! What must hold of everything the clients see, decided from what one process has seen.
//!
//! Pure. A *mark* is taken before an operation is sent and compared with what comes back: whatever
//! was complete before the operation began bounds what it may see, however many others are under
//! way. The floors are shared by all clients of a process, which is stronger than each client's own
//! view: after a write is complete, nobody may read anything older (P-LIN).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hasp_proto::node::Stat;
use hasp_proto::position::Position;
use serde::{Deserialize, Serialize};

/// Examples kept of each process's violations.
const EXAMPLES_MAX: usize = 8;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// Something older than a completed write or read was seen (P-LIN).
    StaleRead,
    /// A session saw its cell go back (P-MONO).
    PositionBack,
    /// A lock generation went back, or did not grow with an acquisition (P-SEQ).
    LockGenerationBack,
    /// Two clients held a lock exclusively at once (P-LOCK).
    TwoHolders,
    /// One content generation had two contents, or contents did not match their checksum.
    WrongContents,
    /// A write of an earlier holder came after its lock had been granted to another, although
    /// every write had a known outcome.
    LateWrite,
    /// A write that was acknowledged is not there (P-DUR), or took effect twice (P-ONCE).
    LostOrRepeatedWrite,
}

/// A broken promise, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which promise.
    pub kind: ViolationKind,
    /// For people.
    pub detail: String,
}

impl ViolationKind {
    /// The violation with its detail.
    pub fn because(self, detail: impl Into<String>) -> Violation {
        Violation { kind: self, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

/// How many promises were broken, and the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// All of them.
    pub count: u64,
    /// In the order found.
    pub examples: Vec<Violation>,
}

impl Violations {
    /// Adds one.
    pub fn add(&mut self, violation: Violation) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(violation);
        }
    }

    /// Adds those of another process.
    pub fn merge(&mut self, other: Violations) {
        self.count += other.count;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// What is known to be true of a file: nothing older may be seen any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFloor {
    content_generation: u64,
    /// Of that generation, once known.
    checksum: Option<u64>,
    lock_generation: u64,
}

/// The floor as it was before an operation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    content_generation: u64,
    lock_generation: u64,
}

impl FileFloor {
    /// To be taken before an operation is sent.
    pub const fn mark(&self) -> Mark {
        Mark { content_generation: self.content_generation, lock_generation: self.lock_generation }
    }

    /// A read that began at `mark` is complete and saw `stat`.
    ///
    /// # Errors
    /// What was broken.
    pub fn read(&mut self, mark: Mark, stat: &Stat) -> Result<(), Violation> {
        let (content, lock) = (stat.content_generation.0, stat.lock_generation.0);
        if content < mark.content_generation {
            let floor = mark.content_generation;
            return Err(ViolationKind::StaleRead
                .because(format!("content generation {content} read after {floor} was complete")));
        }
        self.lock_seen(mark, lock)?;
        self.content_seen(content, stat.checksum)
    }

    /// A write that began at `mark` is complete: its contents have `checksum`.
    ///
    /// # Errors
    /// What was broken.
    pub fn written(&mut self, mark: Mark, content: u64, checksum: u64) -> Result<(), Violation> {
        if content <= mark.content_generation {
            let floor = mark.content_generation;
            return Err(ViolationKind::StaleRead
                .because(format!("a write got content generation {content} after {floor} was complete")));
        }
        self.content_seen(content, checksum)
    }

    /// An exclusive acquisition that began at `mark` is complete: it turned the lock from free to
    /// held, so its generation is new.
    ///
    /// # Errors
    /// What was broken.
    pub fn acquired(&mut self, mark: Mark, lock: u64) -> Result<(), Violation> {
        if lock <= mark.lock_generation {
            let floor = mark.lock_generation;
            return Err(ViolationKind::LockGenerationBack
                .because(format!("acquired with lock generation {lock} after {floor} was seen")));
        }
        self.lock_seen(mark, lock)
    }

    fn lock_seen(&mut self, mark: Mark, lock: u64) -> Result<(), Violation> {
        if lock < mark.lock_generation {
            let floor = mark.lock_generation;
            return Err(ViolationKind::LockGenerationBack
                .because(format!("lock generation {lock} seen after {floor}")));
        }
        self.lock_generation = self.lock_generation.max(lock);
        Ok(())
    }

    fn content_seen(&mut self, content: u64, checksum: u64) -> Result<(), Violation> {
        if content > self.content_generation {
            (self.content_generation, self.checksum) = (content, Some(checksum));
        }
        match self.checksum {
            Some(known) if content == self.content_generation && known != checksum => {
                Err(ViolationKind::WrongContents.because(format!(
                    "content generation {content} has checksum {checksum:016x}, and had {known:016x}"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// How far one session has seen each cell: at most one position of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFloor(Vec<Position>);

impl SessionFloor {
    /// To be taken before an operation is sent.
    pub fn mark(&self) -> SessionFloor {
        self.clone()
    }

    /// An operation that began at `mark` is complete and reflects `position`.
    ///
    /// # Errors
    /// The session's cell went back.
    pub fn seen(&mut self, mark: &SessionFloor, position: &Position) -> Result<(), Violation> {
        if let Some(floor) = mark.0.iter().find(|floor| floor.cell == position.cell)
            && position.is_before(floor)
        {
            return Err(ViolationKind::PositionBack.because(format!("{position} seen after {floor}")));
        }
        match self.0.iter_mut().find(|highest| highest.cell == position.cell) {
            Some(highest) if highest.is_before(position) => *highest = position.clone(),
            Some(_) => {}
            None => self.0.push(position.clone()),
        }
        Ok(())
    }
}

/// Who holds one lock exclusively, as far as this process's clients believe.
#[derive(Debug, Default)]
pub struct Holder(AtomicU64);

impl Holder {
    /// `client` (from 0) was granted the lock.
    ///
    /// # Errors
    /// The client that held it before and has not begun to give it back.
    pub fn enter(&self, client: usize) -> Result<(), usize> {
        match self.0.swap(client as u64 + 1, Ordering::AcqRel) {
            0 => Ok(()),
            other => Err(other as usize - 1),
        }
    }

    /// `client` is about to give the lock back, or no longer believes that it holds it.
    pub fn leave(&self, client: usize) {
        // Another's entry stays: it was reported when it was made.
        let _ = self.0.compare_exchange(client as u64 + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// What each exclusive holder writes into the lock's file while it holds it, seen by all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Of its acquisition.
    pub lock_generation: u64,
    /// Which client of which process.
    pub holder: String,
    /// Entries made so far, this one included.
    pub entries: u64,
}

impl Entry {
    /// Reads a lock file; an empty or fresh one is the entry before the first.
    pub fn parse(contents: &[u8]) -> Option<Entry> {
        if contents.is_empty() {
            return Some(Entry::default());
        }
        let mut fields = std::str::from_utf8(contents).ok()?.trim_end().splitn(3, ' ');
        let lock_generation = fields.next()?.parse().ok()?;
        let entries = fields.next()?.parse().ok()?;
        Some(Entry { lock_generation, entries, holder: fields.next()?.to_owned() })
    }

    /// The contents of the lock file with this entry.
    pub fn contents(&self) -> String {
        format!("{} {} {}\n", self.lock_generation, self.entries, self.holder)
    }

    /// The entry that a new holder makes after it found this one.
    ///
    /// # Errors
    /// This one was made by a later acquisition: somebody else holds the lock at the same time.
    pub fn next(&self, lock_generation: u64, holder: &str) -> Result<Entry, Violation> {
        if self.lock_generation >= lock_generation {
            return Err(ViolationKind::TwoHolders.because(format!(
                "{holder}, who holds the lock with generation {lock_generation}, found the entry of {} with {}",
                self.holder, self.lock_generation
            )));
        }
        Ok(Entry { lock_generation, holder: holder.to_owned(), entries: self.entries + 1 })
    }

    /// While the lock is held, its file was found to be `found` instead of this entry, the holder's.
    ///
    /// A later acquisition in it proves a second holder. The holder's own means that its write took
    /// effect although it was refused, or twice. An earlier one is a write that arrived late: that is
    /// no fault if its writer never learned what became of it.
    pub fn disturbed(&self, found: &Entry) -> Violation {
        let kind = match found.lock_generation.cmp(&self.lock_generation) {
            std::cmp::Ordering::Greater => ViolationKind::TwoHolders,
            std::cmp::Ordering::Equal => ViolationKind::LostOrRepeatedWrite,
            std::cmp::Ordering::Less => ViolationKind::LateWrite,
        };
        kind.because(format!(
            "while {} held the lock with generation {}, {} wrote with {}",
            self.holder, self.lock_generation, found.holder, found.lock_generation
        ))
    }
}

#[cfg(test)]
mod tests;
