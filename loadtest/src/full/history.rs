//! What the clients of one run did and were told, and what must hold of it whatever went wrong meanwhile.
//!
//! Pure: it knows no network, no clock and no server. Order in time is order of simulated milliseconds, and only a
//! strictly earlier one counts: two hosts that act within one of them may have acted in either order.

mod access;
mod events;
mod locks;
mod places;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::position::Position;

pub use access::{Knock, check_access};
pub use events::{Told, Watch, check_events, delivered};
pub use locks::{Hold, HoldEnd, carried, check_guarded, check_holders, shared};
pub(super) use places::{Floors, is_earlier, may_follow};

/// Milliseconds of the simulated network since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    fn after(self, duration: Duration) -> Self {
        Self(self.0 + u64::try_from(duration.as_millis()).expect("runs last minutes"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A read or write of one file. A client begins one only after the one before has ended.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asks.
    pub client: usize,
    /// About what.
    pub file: &'static str,
    /// What is asked.
    pub call: Call,
    /// When.
    pub begun: Moment,
    /// `None` while nobody has answered.
    pub end: Option<(Moment, Answer)>,
}

/// What is asked of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Its contents.
    Read,
    /// To replace its contents.
    Write {
        /// No two writes of a run have the same.
        contents: String,
        /// Lock generation of the sequencer that must stand, if the write is guarded by one.
        guard: Option<u64>,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the file holds.
    Read {
        /// All of it.
        contents: String,
        /// Which.
        generation: u64,
        /// What the answer reflects.
        position: Position,
    },
    /// It was written.
    Written {
        /// That of the new contents.
        generation: u64,
        /// That of the contents replaced.
        previous: u64,
        /// Where the write took effect.
        position: Position,
    },
    /// The service says that it had no effect, and never will have.
    Refused,
    /// Whether it had an effect is not known.
    Unknown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was appended to is long.
        let last = |contents: &str| contents.rsplit(' ').next().unwrap_or_default().to_owned();
        let Self { client, file, begun, .. } = self;
        match &self.call {
            Call::Read => write!(f, "client {client} read {file}")?,
            Call::Write { contents, guard: None } => {
                write!(f, "client {client} wrote {} to {file}", last(contents))?
            }
            Call::Write { contents, guard: Some(guard) } => {
                write!(f, "client {client} wrote {} to {file} under {guard}", last(contents))?;
            }
        }
        match &self.end {
            Some((_, Answer::Read { contents, generation, position })) => {
                write!(
                    f,
                    ": {} of {} bytes, generation {generation} at {position}",
                    last(contents),
                    contents.len()
                )?;
            }
            Some((_, Answer::Written { generation, previous, position })) => {
                write!(f, ": generation {generation} after {previous} at {position}")?;
            }
            Some((_, Answer::Refused)) => write!(f, ": refused")?,
            Some((_, Answer::Unknown)) => write!(f, ": not known")?,
            None => write!(f, ": no answer")?,
        }
        write!(f, ", begun at {begun}")
    }
}

impl Operation {
    fn written(&self) -> Option<Written<'_>> {
        match (&self.call, &self.end) {
            (Call::Write { contents, .. }, Some((_, Answer::Written { generation, previous, position }))) => {
                Some(Written { contents, generation: *generation, previous: *previous, position })
            }
            _ => None,
        }
    }

    fn is_undecided(&self) -> bool {
        matches!(self.call, Call::Write { .. }) && matches!(self.end, None | Some((_, Answer::Unknown)))
    }

    /// The generation that its answer shows to exist, and where.
    fn seen(&self) -> Option<(u64, &Position)> {
        match &self.end.as_ref()?.1 {
            Answer::Read { generation, position, .. } | Answer::Written { generation, position, .. } => {
                Some((*generation, position))
            }
            Answer::Refused | Answer::Unknown => None,
        }
    }
}

struct Written<'a> {
    contents: &'a str,
    generation: u64,
    previous: u64,
    position: &'a Position,
}

/// A promise that the history shows to be broken.
pub type Broken = String;

/// P-DUR, P-ONCE: every acknowledged write is a link of one chain, each generation the predecessor of the next, and each
/// at a later position than all before it in its cell, however often a write was asked again before it was answered. Where
/// a link is missing there must have been a write whose outcome nobody knows, and contents must belong to one generation.
///
/// # Errors
/// What is broken.
pub fn check_generations_chain(history: &[Operation]) -> Result<(), Broken> {
    for (file, operations) in by_file(history) {
        check_chain(&operations).map_err(|broken| format!("{file}: {broken}"))?;
        check_contents(&operations).map_err(|broken| format!("{file}: {broken}"))?;
    }
    Ok(())
}

fn check_chain(operations: &[&Operation]) -> Result<(), Broken> {
    let mut writes: Vec<Written<'_>> =
        operations.iter().filter_map(|operation| operation.written()).collect();
    writes.sort_by_key(|write| write.generation);
    let mut undecided = operations.iter().filter(|operation| operation.is_undecided()).count();
    for write in &writes {
        if write.previous >= write.generation {
            return Err(format!("generation {} replaced the later {}", write.generation, write.previous));
        }
    }
    for pair in writes.windows(2) {
        let [one, next] = pair else { unreachable!("windows of two") };
        if one.generation == next.generation {
            return Err(format!("two writes were acknowledged with generation {}", one.generation));
        }
        if next.previous < one.generation {
            return Err(format!(
                "generation {} replaced {}: the acknowledged {} was lost",
                next.generation, next.previous, one.generation
            ));
        }
        if next.previous > one.generation {
            undecided = undecided.checked_sub(1).ok_or_else(|| {
                let (from, to) = (one.generation, next.generation);
                format!(
                    "between generations {from} and {to} a write took effect that nobody asked for, or twice"
                )
            })?;
        }
    }
    check_links(&writes)
}

/// Later generations are later in the log of their cell, also of one that they have left and come back to.
fn check_links(writes: &[Written<'_>]) -> Result<(), Broken> {
    let mut floors = Floors::default();
    for write in writes {
        floors.rise(write.generation, write.position).map_err(|(from, at)| {
            let Written { generation, position, .. } = write;
            format!("generation {from} was written at {at}, and {generation} at {position}")
        })?;
    }
    Ok(())
}

/// Every read shows what was written once, and a refused write is never seen.
fn check_contents(operations: &[&Operation]) -> Result<(), Broken> {
    let mut generation_of: BTreeMap<&str, u64> = BTreeMap::new();
    let mut contents_of: BTreeMap<u64, &str> = BTreeMap::new();
    let writers: BTreeMap<&str, &Operation> = operations
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Write { contents, .. } => Some((contents.as_str(), *operation)),
            Call::Read => None,
        })
        .collect();
    for operation in operations {
        let (contents, generation) = match (&operation.end, operation.written()) {
            (_, Some(write)) => (write.contents, write.generation),
            (Some((_, Answer::Read { contents, generation, .. })), None) => (contents.as_str(), *generation),
            _ => continue,
        };
        if *generation_of.entry(contents).or_insert(generation) != generation {
            let other = generation_of[contents];
            return Err(format!("{contents:?} was written with generations {other} and {generation}"));
        }
        if *contents_of.entry(generation).or_insert(contents) != contents {
            return Err(format!(
                "generation {generation} is {:?} and {contents:?}",
                contents_of[&generation]
            ));
        }
        let writer = writers.get(contents);
        if writer.is_some_and(|writer| matches!(writer.end, Some((_, Answer::Refused)))) {
            return Err(format!("{contents:?}, whose write was refused, has generation {generation}"));
        }
        let seen = operation.end.as_ref().map(|(at, _)| *at);
        if writer.is_some_and(|writer| seen < Some(writer.begun)) {
            return Err(format!("{contents:?} was read before it was written"));
        }
    }
    Ok(())
}

/// P-LIN, P-MONO: whatever begins after something has ended sees that or newer, whichever clients did the two; what is at
/// a later position of the same cell is newer; and a client, which does one thing after another, never sees an earlier position, and
/// writes at a later one.
///
/// # Errors
/// What is broken.
pub fn check_read_your_writes(history: &[Operation]) -> Result<(), Broken> {
    for (file, operations) in by_file(history) {
        check_order(&operations).map_err(|broken| format!("{file}: {broken}"))?;
        check_places(&operations).map_err(|broken| format!("{file}: {broken}"))?;
    }
    check_positions(history)
}

fn check_order(operations: &[&Operation]) -> Result<(), Broken> {
    let mut begun = operations.to_vec();
    begun.sort_by_key(|operation| operation.begun);
    let mut ended: Vec<(Moment, u64, usize)> = operations
        .iter()
        .filter_map(|operation| Some((operation.end.as_ref()?.0, operation.seen()?.0, operation.client)))
        .collect();
    ended.sort();
    let mut ended = ended.into_iter().peekable();
    let mut floor = (0, Moment(0), 0);
    for operation in begun {
        while let Some((at, generation, client)) = ended.next_if(|(at, ..)| *at < operation.begun) {
            if generation > floor.0 {
                floor = (generation, at, client);
            }
        }
        let Some((seen, _)) = operation.seen() else { continue };
        let is_write = operation.written().is_some();
        if seen < floor.0 || (is_write && seen == floor.0) {
            let (generation, at, client) = floor;
            return Err(format!(
                "client {} began at {} and was answered generation {seen} ({}), after client {client} was answered {generation} at {at}",
                operation.client,
                operation.begun,
                if is_write { "written" } else { "read" },
            ));
        }
    }
    Ok(())
}

/// A read at a position shows no less than what was seen at that or an earlier one, and a write makes more.
fn check_places(operations: &[&Operation]) -> Result<(), Broken> {
    let mut seen: Vec<(&Position, u64, bool)> = operations
        .iter()
        .filter_map(|operation| {
            operation.seen().map(|(generation, at)| (at, generation, operation.call == Call::Read))
        })
        .collect();
    // Of what is at one position the write comes first: the reads there show it.
    seen.sort_by_key(|(at, generation, is_read)| {
        (at.cell.as_str(), at.epoch, at.index, *is_read, *generation)
    });
    let mut floors: BTreeMap<&CellName, u64> = BTreeMap::new();
    for (at, generation, is_read) in seen {
        let floor = floors.entry(&at.cell).or_default();
        if generation < *floor || (!is_read && generation == *floor) {
            let what = if is_read { "read" } else { "written" };
            return Err(format!("generation {generation} {what} at {at}, and {floor} was there before"));
        }
        *floor = generation.max(*floor);
    }
    Ok(())
}

fn check_positions(history: &[Operation]) -> Result<(), Broken> {
    let mut floors: BTreeMap<(usize, &str), &Position> = BTreeMap::new();
    let mut operations: Vec<&Operation> = history.iter().collect();
    operations.sort_by_key(|operation| operation.begun);
    for operation in operations {
        let Some((_, position)) = operation.seen() else { continue };
        let Some(floor) = floors.insert((operation.client, position.cell.as_str()), position) else {
            continue;
        };
        let client = operation.client;
        match operation.call {
            Call::Read if position.is_before(floor) => {
                return Err(format!("client {client} read at {position} after it had seen {floor}"));
            }
            Call::Write { .. } if !floor.is_before(position) => {
                return Err(format!("client {client} wrote at {position} after it had seen {floor}"));
            }
            Call::Read | Call::Write { .. } => {}
        }
    }
    Ok(())
}

fn by_file(history: &[Operation]) -> BTreeMap<&'static str, Vec<&Operation>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in history {
        files.entry(operation.file).or_default().push(operation);
    }
    files
}

/// The tokens that compare-and-swap appended to a file, as its last contents show them: every acknowledged one is there
/// once, in the order of generations, and no refused one is.
///
/// # Errors
/// What is broken.
pub fn check_appended(history: &[Operation], file: &str, last: &str) -> Result<(), Broken> {
    let found: Vec<&str> = last.split_whitespace().collect();
    let mut places = BTreeMap::new();
    for (place, token) in found.iter().enumerate() {
        if places.insert(*token, place).is_some() {
            return Err(format!("{file}: {token} was appended twice"));
        }
    }
    let mut acknowledged = BTreeMap::new();
    for operation in history.iter().filter(|operation| operation.file == file) {
        let Call::Write { contents, .. } = &operation.call else { continue };
        let Some(token) = contents.split_whitespace().last() else { continue };
        match (&operation.end, places.get(token)) {
            (Some((_, Answer::Written { generation, .. })), Some(place)) => {
                acknowledged.insert(*generation, (*place, token));
            }
            (Some((_, Answer::Written { .. })), None) => return Err(format!("{file}: {token} was lost")),
            (Some((_, Answer::Refused)), Some(_)) => {
                return Err(format!("{file}: {token} is there, and its write was refused"));
            }
            _ => {}
        }
    }
    if !acknowledged.values().is_sorted() {
        return Err(format!("{file}: not in the order of generations: {acknowledged:?}"));
    }
    Ok(())
}

/// All that is known of one value of a file: from the first end to the last beginning among its write and reads.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: Option<Moment>,
    last_begin: Moment,
    is_seen: bool,
}

impl Zone {
    /// It was current for some time, and not only at some moment.
    fn runs_forward(&self) -> bool {
        self.first_end.is_some_and(|end| end < self.last_begin)
    }
}

/// P-LIN without positions and generations: the reads and writes of each file can be put into one order that agrees with
/// true time. No two zones that run forward overlap, and none that runs backward lies within one that runs forward
/// (Gibbons and Korach, 1997): nothing is searched, so nothing is given up.
///
/// # Errors
/// What is broken.
pub fn check_zones(history: &[Operation]) -> Result<(), Broken> {
    for (file, operations) in by_file(history) {
        check_zones_of(&operations).map_err(|broken| format!("{file}: {broken}"))?;
    }
    Ok(())
}

fn check_zones_of(operations: &[&Operation]) -> Result<(), Broken> {
    // What a file holds at first nobody writes.
    let first = Zone { first_end: Some(Moment(0)), last_begin: Moment(0), is_seen: true };
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::from([("", first)]);
    for operation in operations {
        if let Call::Write { contents, .. } = &operation.call {
            let end = operation.written().and(operation.end.as_ref()).map(|(at, _)| *at);
            let zone = Zone { first_end: end, last_begin: operation.begun, is_seen: end.is_some() };
            zones.insert(contents, zone);
        }
    }
    for operation in operations {
        let Some((at, Answer::Read { contents, .. })) = &operation.end else { continue };
        let zone = zones.get_mut(contents.as_str());
        let zone = zone.ok_or_else(|| format!("shows {contents:?}, which nobody wrote"))?;
        zone.first_end = Some(zone.first_end.map_or(*at, |end| end.min(*at)));
        zone.last_begin = zone.last_begin.max(operation.begun);
        zone.is_seen = true;
    }
    zones.retain(|_, zone| zone.is_seen);
    let mut forward: Vec<_> = zones.iter().filter(|(_, zone)| zone.runs_forward()).collect();
    forward.sort_by_key(|(_, zone)| zone.first_end);
    for pair in forward.windows(2) {
        let [(one, before), (other, after)] = pair else { unreachable!("windows of two") };
        if after.first_end < Some(before.last_begin) {
            return Err(format!("{one:?} and {other:?} were both current before {}", before.last_begin));
        }
    }
    for (contents, zone) in zones.iter().filter(|(_, zone)| !zone.runs_forward()) {
        // Forward zones follow one another: only the last that begins before this one ends can hold it.
        let around = forward.partition_point(|(_, other)| other.first_end < Some(zone.last_begin));
        if let Some((other, around)) = forward[..around].last()
            && zone.first_end < Some(around.last_begin)
        {
            return Err(format!("all of {contents:?} happened while {other:?} was current"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
