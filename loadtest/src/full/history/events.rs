//! What must hold of what clients are told of a file's contents (P-EVENT).

use std::collections::BTreeMap;

use hasp_proto::position::Position;

use super::{Answer, Broken, Moment, Operation, Written, is_earlier};

/// What one handle was told, in its order.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Whose it is.
    pub client: usize,
    /// Of which file.
    pub file: &'static str,
    /// From when on it listens.
    pub begun: Moment,
    /// What, and when.
    pub told: Vec<(Moment, Told)>,
}

/// What a handle is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The file was written, there.
    Modified(Position),
    /// Something may have been missed.
    Lost,
}

/// P-EVENT: of what is told without a loss in between each is told once, in order, and none is left out; what is told was
/// done, and a read that begins afterwards shows it. Whoever is told of something in another cell heard before that something
/// may be missing (`move-4`).
///
/// # Errors
/// What is broken.
pub fn check_events(history: &[Operation], watches: &[Watch]) -> Result<(), Broken> {
    for watch in watches {
        let of_file: Vec<&Operation> =
            history.iter().filter(|operation| operation.file == watch.file).collect();
        let writes = Writes::of(&of_file);
        let named = |why: String| format!("client {}, {}: {why}", watch.client, watch.file);
        check_first(watch, &writes).map_err(named)?;
        check_gaps(watch, &writes).map_err(named)?;
        let own: Vec<&Operation> =
            of_file.into_iter().filter(|operation| operation.client == watch.client).collect();
        check_shown(watch, &own, &writes).map_err(named)?;
    }
    check_done(history, watches)
}

/// The acknowledged writes of a file, and when each was asked for. In one cell positions say which of two was first, in
/// several their generations, as far as they are known.
struct Writes<'a>(Vec<(Moment, Written<'a>)>);

impl<'a> Writes<'a> {
    fn of(operations: &[&'a Operation]) -> Self {
        let written = operations.iter().filter_map(|operation| Some((operation.begun, operation.written()?)));
        Self(written.collect())
    }

    /// Of the write at that position, if it was acknowledged.
    fn generation(&self, position: &Position) -> Option<u64> {
        let mut written = self.0.iter().map(|(_, written)| written);
        Some(written.find(|written| written.position == position)?.generation)
    }

    fn is_earlier(&self, one: &Position, other: &Position) -> bool {
        let generations = || self.generation(one).zip(self.generation(other));
        is_earlier(one, other)
            || one.cell != other.cell && generations().is_some_and(|(one, other)| one < other)
    }
}

fn check_first(watch: &Watch, writes: &Writes<'_>) -> Result<(), Broken> {
    let Some((_, Told::Modified(first))) = watch.told.first() else { return Ok(()) };
    let is_missed = |begun: Moment, at| begun > watch.begun && writes.is_earlier(at, first);
    match writes.0.iter().find(|(begun, written)| is_missed(*begun, written.position)) {
        Some((_, missed)) => Err(format!("was told of {first} at first, and not of {}", missed.position)),
        None => Ok(()),
    }
}

fn check_gaps(watch: &Watch, writes: &Writes<'_>) -> Result<(), Broken> {
    for pair in watch.told.windows(2) {
        let [(_, Told::Modified(one)), (_, Told::Modified(next))] = pair else { continue };
        if one.cell != next.cell {
            return Err(format!(
                "was told of {next} after {one}, and not that the file has moved in between"
            ));
        }
        if !one.is_before(next) {
            return Err(format!("was told of {next} after {one}"));
        }
        let between = |at| is_earlier(one, at) && is_earlier(at, next);
        if let Some((_, missed)) = writes.0.iter().find(|(_, written)| between(written.position)) {
            return Err(format!("was told of {one} and {next}, and not of {}", missed.position));
        }
    }
    Ok(())
}

fn check_shown(watch: &Watch, own: &[&Operation], writes: &Writes<'_>) -> Result<(), Broken> {
    for (told, event) in &watch.told {
        let Told::Modified(position) = event else { continue };
        let written = writes.generation(position);
        for operation in own.iter().filter(|operation| operation.begun > *told) {
            let Some((_, Answer::Read { position: shown, generation, .. })) = &operation.end else {
                continue;
            };
            if is_earlier(shown, position) || Some(*generation) < written {
                return Err(format!("was told of {position} at {told}, then {operation}"));
            }
        }
    }
    Ok(())
}

/// Whatever is told was acknowledged to whoever wrote it, or is one of the writes of which nobody knows.
fn check_done(history: &[Operation], watches: &[Watch]) -> Result<(), Broken> {
    let mut unknown: BTreeMap<&str, Vec<&Position>> = BTreeMap::new();
    for watch in watches {
        for (_, event) in &watch.told {
            let Told::Modified(position) = event else { continue };
            let acknowledged = history.iter().any(|operation| {
                operation.file == watch.file
                    && operation.written().is_some_and(|written| written.position == position)
            });
            let unknown = unknown.entry(watch.file).or_default();
            if !acknowledged && !unknown.contains(&position) {
                unknown.push(position);
            }
        }
    }
    for (file, positions) in unknown {
        let of_file = |operation: &&Operation| operation.file == file && operation.is_undecided();
        let undecided = history.iter().filter(of_file).count();
        if positions.len() > undecided {
            let count = positions.len();
            return Err(format!(
                "{file}: events of {count} writes that nobody asked for, such as {}",
                positions[0]
            ));
        }
    }
    Ok(())
}

/// Events that were told.
pub fn delivered(watches: &[Watch]) -> usize {
    let modified =
        |watch: &Watch| watch.told.iter().filter(|(_, event)| matches!(event, Told::Modified(_))).count();
    watches.iter().map(modified).sum()
}

impl Watch {
    /// Whether the last write that was acknowledged before `until`, of those since it listens, was told or said to be lost.
    pub fn is_up_to_date(&self, history: &[Operation], until: Moment) -> bool {
        let of_file: Vec<&Operation> =
            history.iter().filter(|operation| operation.file == self.file).collect();
        let writes = Writes::of(&of_file);
        let of_late = of_file.iter().filter(|operation| {
            let ended = operation.end.as_ref().is_some_and(|(at, _)| *at < until);
            operation.begun > self.begun && ended
        });
        let written = of_late.filter_map(|operation| Some((operation.begun, operation.written()?)));
        let newest = written.max_by_key(|(_, written)| written.generation);
        let Some((begun, Written { position: last, .. })) = newest else { return true };
        self.told.iter().any(|(at, event)| match event {
            // Of what nobody was told in this cell nobody knows whether it is as new.
            Told::Modified(position) if position.cell != last.cell => writes.is_earlier(last, position),
            Told::Modified(position) => !position.is_before(last),
            Told::Lost => *at > begun,
        })
    }
}
