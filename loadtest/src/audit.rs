//! Checks that need more than one client: who holds a lock, and whether others see a write.
//!
//! They run beside the load at a low rate, so that there is something to check however small the
//! load is, and their times are not in the report.
//!
//! Whether a lock has one holder is decided in two ways. Within a process, a client marks the lock
//! as its own from the grant until just before it gives it back. Between processes, a holder reads
//! the lock's file, replaces its entry on condition that nothing changed meanwhile, waits, and reads
//! it again: any other entry in between was made by somebody who held the lock too.

use std::time::Duration;

use hasp_client::{ErrorCode, Generation, Handle, LockMode, OpenOptions};
use hasp_proto::time::Time;

use crate::check::{Entry, Violation, ViolationKind};
use crate::fleet::{Fleet, LoadClient, SharedLock};
use crate::ops::{self, Failed, text};

/// How often a worker checks; seldom enough not to weigh in what a KeepAlive seems to cost.
const EVERY: Duration = Duration::from_secs(2);
/// How long a lock is held after the entry was made.
const HOLD: Duration = Duration::from_millis(5);
/// How long one step may take: a fail-over and a lock-delay fit in.
const DEADLINE: Duration = Duration::from_secs(90);

/// Checks again and again until the fleet is to end.
pub async fn rounds(fleet: &Fleet) {
    for round in 0_usize.. {
        if fleet.is_ending() {
            return;
        }
        let (locks, write) = (contend(fleet, round), write_and_read_back(fleet, round));
        tokio::join!(
            within_deadline(fleet, "lock check", locks),
            within_deadline(fleet, "write check", write)
        );
        tokio::time::sleep(EVERY).await;
    }
}

async fn within_deadline(fleet: &Fleet, what: &str, step: impl Future<Output = Result<(), Failed>>) {
    let failed = match tokio::time::timeout(DEADLINE, step).await {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "no answer in time".to_owned(),
    };
    let mut findings = fleet.tally().findings();
    findings.checks.errors += 1;
    findings.ops.note_failure(format!("{what}: {failed}"));
}

/// Two clients of this worker, and two of every other, want one lock at about the same time.
async fn contend(fleet: &Fleet, round: usize) -> Result<(), Failed> {
    let tree = &fleet.job().tree;
    let (cell, lock) = (round % tree.cells(), round / tree.cells() % tree.locks());
    let clients = fleet.clients();
    let (one, other) = (&clients[round * 2 % clients.len()], &clients[(round * 2 + 1) % clients.len()]);
    if one.number == other.number {
        return hold_exclusively(fleet, one, cell, lock).await.map(drop);
    }
    let (first, second) =
        tokio::join!(hold_exclusively(fleet, one, cell, lock), hold_exclusively(fleet, other, cell, lock));
    first.and(second).map(drop)
}

/// A client writes its file, and then another one that shares it must see that write.
async fn write_and_read_back(fleet: &Fleet, round: usize) -> Result<(), Failed> {
    let tree = &fleet.job().tree;
    let clients = fleet.clients();
    let writer = &clients[round % clients.len()];
    let place = tree.file_of(writer.number, round % tree.cells());
    let shares = |reader: &&LoadClient| {
        reader.number != writer.number && tree.file_of(reader.number, place.cell) == place
    };
    let reader = clients.iter().rev().find(shares).unwrap_or(writer);
    ops::set_contents(fleet, writer, place, round as u64).await?;
    ops::get_contents_and_stat(fleet, reader, place).await?;
    fleet.tally().findings().checks.writes_read_back += 1;
    Ok(())
}

/// How an exclusive acquisition went.
pub struct Held {
    /// When it was granted.
    pub acquired: Time,
    /// How long opening the lock's file took before.
    pub opening: Duration,
}

/// Acquires a shared lock, checks that nobody else holds it, and gives it back.
pub async fn hold_exclusively(
    fleet: &Fleet,
    client: &LoadClient,
    cell: usize,
    lock: usize,
) -> Result<Held, Failed> {
    let clock = &fleet.env().clock;
    let began = clock.now();
    let name = fleet.job().tree.lock_name(cell, lock);
    let handle = client.client.open(name, OpenOptions::write()).await.map_err(text)?.handle;
    let opening = clock.now().saturating_since(began);
    let lock = fleet.lock(cell, lock);
    let marks = fleet.lock_marks(client, lock);
    let acquired = handle.acquire(LockMode::Exclusive).await.map_err(text)?;
    let held = Held { acquired: clock.now(), opening };
    fleet.check_acquired(client, lock, &marks, &acquired);
    let belief = Belief::of(fleet, lock, client);
    let entered = make_entry(fleet, client, &handle, acquired.lock_generation).await;
    drop(belief);
    handle.release().await.map_err(text)?;
    handle.close().await.map_err(text)?;
    entered.map(|()| held)
}

/// Makes the holder's entry in the lock's file and checks that it stands alone.
async fn make_entry(
    fleet: &Fleet,
    client: &LoadClient,
    handle: &Handle,
    lock_generation: Generation,
) -> Result<(), Failed> {
    let (found, generation) = read_entry(fleet, handle).await?;
    let holder = format!("client {}", client.number);
    let mine = match found.next(lock_generation.0, &holder) {
        Ok(mine) => mine,
        Err(violation) => {
            fleet.tally().note(Err(violation));
            return Ok(());
        }
    };
    match handle.set_contents(mine.contents(), Some(generation)).await {
        Ok(_) => {}
        Err(error) if error.code == ErrorCode::GenerationMismatch => {
            let (found, _) = read_entry(fleet, handle).await?;
            note_disturbed(fleet, mine.disturbed(&found));
            return Ok(());
        }
        Err(error) => {
            ops::note_unknown(fleet, &error);
            return Err(text(error));
        }
    }
    tokio::time::sleep(HOLD).await;
    let (found, _) = read_entry(fleet, handle).await?;
    if found != mine {
        note_disturbed(fleet, mine.disturbed(&found));
        return Ok(());
    }
    fleet.tally().findings().checks.exclusive_entries += 1;
    Ok(())
}

async fn read_entry(fleet: &Fleet, handle: &Handle) -> Result<(Entry, Generation), Failed> {
    let read = handle.get_contents_and_stat().await.map_err(text)?;
    let entry = Entry::parse(&read.contents).unwrap_or_else(|| {
        let why = format!("{} holds no entry of a holder", handle.name());
        fleet.tally().note(Err(ViolationKind::WrongContents.because(why)));
        Entry::default()
    });
    Ok((entry, read.stat.content_generation))
}

fn note_disturbed(fleet: &Fleet, violation: Violation) {
    if violation.kind == ViolationKind::LateWrite {
        fleet.tally().findings().late_writes.add(violation);
    } else {
        fleet.tally().note(Err(violation));
    }
}

/// That a client holds a lock: from its making until it is dropped, however the operation ends.
struct Belief<'a> {
    lock: &'a SharedLock,
    client: usize,
}

impl<'a> Belief<'a> {
    fn of(fleet: &Fleet, lock: &'a SharedLock, client: &LoadClient) -> Self {
        if let Err(other) = lock.holder.enter(client.number) {
            let is_doubtful = fleet
                .clients()
                .iter()
                .find(|client| client.number == other)
                .is_none_or(LoadClient::is_doubtful);
            if !is_doubtful {
                let why = format!("client {} was granted a lock that client {other} holds", client.number);
                fleet.tally().note(Err(ViolationKind::TwoHolders.because(why)));
            }
        }
        Self { lock, client: client.number }
    }
}

impl Drop for Belief<'_> {
    fn drop(&mut self) {
        self.lock.holder.leave(self.client);
    }
}
