//! What must hold of who is let in and who is not (P-ACL).

use hasp_proto::position::Position;

use super::{Answer, Broken, Call, Moment, Operation};

/// Somebody has tried to open what an ACL guards.
#[derive(Clone, Debug)]
pub struct Knock {
    /// Who.
    pub client: usize,
    /// When.
    pub begun: Moment,
    /// When it was answered.
    pub ended: Moment,
    /// Whether it was opened.
    pub is_allowed: bool,
    /// What the answer reflects.
    pub position: Option<Position>,
}

/// P-ACL: what was opened was so while the ACL, a file of that name, may have let everybody in, and what was refused while it
/// may have let nobody in; but a cell that does not have the file and cannot be told refuses, too (`route-6`).
///
/// # Errors
/// What is broken.
pub fn check_access(
    history: &[Operation],
    knocks: &[Knock],
    acl: &str,
    is_elsewhere: bool,
) -> Result<(), Broken> {
    let writes: Vec<&Operation> = history
        .iter()
        .filter(|operation| operation.file == acl && matches!(operation.call, Call::Write { .. }))
        .filter(|operation| !matches!(operation.end, Some((_, Answer::Refused))))
        .collect();
    for knock in knocks.iter().filter(|knock| knock.is_allowed || !is_elsewhere) {
        // What was acknowledged before it began replaced all before that.
        let is_before = |write: &&&Operation| write.end.as_ref().is_some_and(|(at, _)| *at < knock.begun);
        let floor =
            writes.iter().filter(is_before).filter_map(|write| Some(write.written()?.generation)).max();
        let may_be = |write: &&&Operation| {
            let is_replaced = write.written().is_some_and(|written| Some(written.generation) < floor);
            write.begun <= knock.ended && !is_replaced
        };
        let mut possible = writes.iter().filter(may_be).map(|write| lets_in(write));
        // At first it is empty.
        let was_empty = floor.is_none() && !knock.is_allowed;
        if !was_empty && !possible.any(|lets_in| lets_in == knock.is_allowed) {
            return Err(format!("{knock:?}, and {acl} said otherwise all the time"));
        }
    }
    Ok(())
}

fn lets_in(write: &Operation) -> bool {
    matches!(&write.call, Call::Write { contents, .. } if contents.starts_with('*'))
}
