//! What must hold of what clients are told of a file's contents (P-EVENT).

use std::collections::BTreeMap;

use hasp_proto::position::Position;

use super::{Answer, Broken, Call, Moment, Operation};

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
/// done, and a read that begins afterwards shows it.
///
/// # Errors
/// What is broken.
pub fn check_events(history: &[Operation], watches: &[Watch]) -> Result<(), Broken> {
    for watch in watches {
        let of_file = || history.iter().filter(|operation| operation.file == watch.file);
        let written: Vec<(Moment, &Position)> = of_file()
            .filter_map(|operation| Some((operation.begun, operation.written()?.position)))
            .collect();
        let named = |why: String| format!("client {}, {}: {why}", watch.client, watch.file);
        check_gaps(watch, &written).map_err(named)?;
        let own: Vec<&Operation> = of_file().filter(|operation| operation.client == watch.client).collect();
        check_shown(watch, &own).map_err(named)?;
    }
    check_done(history, watches)
}

fn check_gaps(watch: &Watch, written: &[(Moment, &Position)]) -> Result<(), Broken> {
    if let Some((_, Told::Modified(first))) = watch.told.first()
        && let Some((_, missed)) =
            written.iter().find(|(begun, at)| *begun > watch.begun && at.is_before(first))
    {
        return Err(format!("was told of {first} at first, and not of {missed}"));
    }
    for pair in watch.told.windows(2) {
        let [(_, Told::Modified(one)), (_, Told::Modified(next))] = pair else { continue };
        if !one.is_before(next) {
            return Err(format!("was told of {next} after {one}"));
        }
        if let Some((_, missed)) = written.iter().find(|(_, at)| one.is_before(at) && at.is_before(next)) {
            return Err(format!("was told of {one} and {next}, and not of {missed}"));
        }
    }
    Ok(())
}

fn check_shown(watch: &Watch, own: &[&Operation]) -> Result<(), Broken> {
    for (told, event) in &watch.told {
        let Told::Modified(position) = event else { continue };
        for operation in own.iter().filter(|operation| operation.begun > *told) {
            if let Some((_, Answer::Read { position: shown, .. })) = &operation.end
                && shown.is_before(position)
            {
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
        let of_file = history.iter().filter(|operation| {
            let ended = operation.end.as_ref().is_some_and(|(at, _)| *at < until);
            operation.file == self.file && operation.begun > self.begun && ended
        });
        let written = of_file.filter_map(|operation| match (&operation.call, operation.written()) {
            (Call::Write { .. }, Some(written)) => Some((operation.begun, written.position)),
            _ => None,
        });
        let Some((begun, last)) = written.max_by_key(|(_, at)| (at.epoch, at.index)) else { return true };
        self.told.iter().any(|(at, event)| match event {
            Told::Modified(position) => !position.is_before(last),
            Told::Lost => *at > begun,
        })
    }
}
