//! What must hold of the lock that clients contend for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use hasp_proto::node::LockMode;
use hasp_proto::position::Position;

use super::{Broken, Call, Moment, Operation, is_earlier, may_follow};

/// One acquisition of the run's lock.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Who holds it.
    pub client: usize,
    /// How it is held.
    pub mode: LockMode,
    /// Of the lock.
    pub generation: u64,
    /// Of the answer.
    pub position: Position,
    /// When the client was told.
    pub granted: Moment,
    /// Until then the holder was right to believe that it held the lock: it had not begun to give it back, and its
    /// session was under a lease. `None`: to the end of the run.
    pub believed_until: Option<Moment>,
    /// How it ended.
    pub end: HoldEnd,
}

/// How a hold ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// Still held, or how it ended was not told.
    Open,
    /// Given back.
    Released(Position),
    /// The holder died then, with this lock-delay.
    Lost(Moment, Duration),
}

/// P-LOCK, P-SEQ, P-DELAY: those who hold one lock at a time share it under one generation, or one of them has it alone. What
/// has different generations follows one another, by position in each cell and by what the holders believe, and who follows
/// one that died waits out its lock-delay.
///
/// # Errors
/// What is broken.
pub fn check_holders(holds: &[Hold]) -> Result<(), Broken> {
    let mut acquisitions: BTreeMap<u64, Vec<&Hold>> = BTreeMap::new();
    for hold in holds {
        acquisitions.entry(hold.generation).or_default().push(hold);
    }
    for holders in acquisitions.values() {
        if let [one, next, ..] = holders[..]
            && holders.iter().any(|hold| hold.mode == LockMode::Exclusive)
        {
            return Err(broken(one, next, "one generation for two acquisitions"));
        }
        for hold in holders {
            check_end(hold)?;
        }
    }
    let mut before: Vec<&Hold> = Vec::new();
    for holders in acquisitions.values() {
        for next in holders {
            // The last first. Those before it may be of the same cell where it is not, and lock-delays of those who
            // shared it may run for longer than others hold on.
            before.iter().rev().try_for_each(|one| check_follows(one, next))?;
            before.iter().rev().try_for_each(|one| check_delay(one, next))?;
        }
        before.extend(holders);
    }
    Ok(())
}

/// How often somebody was given the lock while others had it.
pub fn shared(holds: &[Hold]) -> usize {
    let generations: BTreeSet<u64> = holds.iter().map(|hold| hold.generation).collect();
    holds.len() - generations.len()
}

/// How often somebody gave the lock back in another cell than that which had granted it.
pub fn carried(holds: &[Hold]) -> usize {
    let is_carried =
        |hold: &&Hold| matches!(&hold.end, HoldEnd::Released(at) if at.cell != hold.position.cell);
    holds.iter().filter(is_carried).count()
}

fn broken(one: &Hold, next: &Hold, why: impl fmt::Display) -> Broken {
    let name = |hold: &Hold| format!("client {} with generation {}", hold.client, hold.generation);
    format!("{}, then {}: {why}", name(one), name(next))
}

fn check_end(hold: &Hold) -> Result<(), Broken> {
    match &hold.end {
        HoldEnd::Released(position) if !may_follow(&hold.position, position) => {
            let (client, generation) = (hold.client, hold.generation);
            Err(format!(
                "client {client} with generation {generation}: acquired at {}, and released at {position}",
                hold.position
            ))
        }
        HoldEnd::Open | HoldEnd::Released(_) | HoldEnd::Lost(..) => Ok(()),
    }
}

fn check_follows(one: &Hold, next: &Hold) -> Result<(), Broken> {
    if !may_follow(&one.position, &next.position) {
        return Err(broken(one, next, format!("acquired at {} and {}", one.position, next.position)));
    }
    if one.believed_until.is_none_or(|until| until > next.granted) {
        let until = one.believed_until.map_or("the end".into(), |until| until.to_string());
        return Err(broken(one, next, format!("held until {until}, granted at {}", next.granted)));
    }
    match &one.end {
        HoldEnd::Released(position) if !may_follow(position, &next.position) => {
            Err(broken(one, next, format!("released at {position}, acquired at {}", next.position)))
        }
        HoldEnd::Open | HoldEnd::Released(_) | HoldEnd::Lost(..) => Ok(()),
    }
}

fn check_delay(one: &Hold, next: &Hold) -> Result<(), Broken> {
    match &one.end {
        HoldEnd::Lost(at, delay) if next.granted < at.after(*delay) => Err(broken(
            one,
            next,
            format!("lost at {at} with a lock-delay of {delay:?}, granted at {}", next.granted),
        )),
        HoldEnd::Open | HoldEnd::Released(_) | HoldEnd::Lost(..) => Ok(()),
    }
}

/// P-SEQ: nothing was written under a sequencer once a newer acquisition stood, nor before its own did: by position in one
/// cell, and wherever the lock went, by when they were granted.
///
/// # Errors
/// What is broken.
pub fn check_guarded(history: &[Operation], holds: &[Hold]) -> Result<(), Broken> {
    for operation in history {
        let (Call::Write { guard: Some(guard), .. }, Some(written)) = (&operation.call, operation.written())
        else {
            continue;
        };
        // Who shares a lock writes after the first that has it.
        let own = || holds.iter().filter(|hold| hold.generation == *guard);
        let is_early = own().all(|hold| is_earlier(written.position, &hold.position));
        let first = own().min_by_key(|hold| (hold.position.epoch, hold.position.index));
        let early = first.filter(|_| is_early);
        let is_over = |hold: &&Hold| {
            let stood = is_earlier(&hold.position, written.position) || hold.granted < operation.begun;
            hold.generation > *guard && stood
        };
        if let Some(hold) = early.or_else(|| holds.iter().find(is_over)) {
            return Err(format!(
                "{operation}: generation {} was acquired at {}",
                hold.generation, hold.position
            ));
        }
    }
    Ok(())
}
