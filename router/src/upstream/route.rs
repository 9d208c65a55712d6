//! Which cell a request belongs to (`route-1`): by the name that is opened, or that its handle is of; the listing of a directory by who holds its children. What belongs nowhere is answered here.

use hasp_proto::crossing::CrossOp;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::Op;

/// The namespace that stands for the one configured at the first hop (design §4.1).
const LOCAL: &str = "local";

/// The cell that `op` has to go to. Rewrites `/ls/local/...` to the map's namespace.
pub(super) fn by_map(map: &PartitionMap, op: &mut Op) -> Result<CellName, Error> {
    if let Op::Open(open) = op {
        open.name = globalized(map, &open.name)?;
        let owner = map.owner(&open.name);
        return owner.cloned().ok_or_else(|| other_namespace(map, &open.name));
    }
    if let Op::Cross(CrossOp::ListRoot { name, .. }) = op {
        return map.children_owner(name).cloned().ok_or_else(|| other_namespace(map, name));
    }
    if let Op::CheckSequencer(sequencer) = op {
        let body = sequencer
            .claimed_body()
            .map_err(|error| ErrorCode::SequencerInvalid.because(error.to_string()))?;
        // Its node may have moved since (`move-3`).
        let owner = map.owner(&body.name).filter(|_| map.cells.contains_key(&body.cell));
        return owner.cloned().ok_or_else(|| {
            let detail = format!("a sequencer of cell {}, which is not served here", body.cell);
            ErrorCode::SequencerInvalid.because(detail)
        });
    }
    let Some(handle) = op.handle() else {
        let detail = format!("{} is not for any one cell", op.name());
        return Err(ErrorCode::InvalidArgument.because(detail));
    };
    let body = claimed(handle)?;
    let owner = map.owner(&body.name).filter(|_| map.cells.contains_key(&body.cell));
    owner.cloned().ok_or_else(|| {
        ErrorCode::StaleHandle.because(format!("no cell {} serves {}", body.cell, map.namespace))
    })
}

/// The cell that would answer it, as far as the map says.
pub(super) fn owner(map: &PartitionMap, op: &Op) -> Option<CellName> {
    match op {
        Op::Open(open) => map.owner(&globalized(map, &open.name).ok()?).cloned(),
        Op::Cross(CrossOp::ListRoot { name, .. }) => map.children_owner(name).cloned(),
        Op::CheckSequencer(sequencer) => map.owner(&sequencer.claimed_body().ok()?.name).cloned(),
        _ => map.owner(&op.handle()?.claimed_body()?.name).cloned(),
    }
}

/// What a handle says of itself.
pub(super) fn claimed(handle: &HandleToken) -> Result<HandleBody, Error> {
    handle.claimed_body().ok_or_else(|| ErrorCode::StaleHandle.because("not a handle"))
}

/// The name in the map's namespace, if it is given in the one that stands for it.
pub(super) fn globalized(map: &PartitionMap, name: &Name) -> Result<Name, Error> {
    if name.namespace() != LOCAL || map.namespace == LOCAL {
        return Ok(name.clone());
    }
    let below = name.as_str().strip_prefix("/ls/local").unwrap_or_default();
    Ok(Name::parse(&format!("/ls/{}{below}", map.namespace))?)
}

fn other_namespace(map: &PartitionMap, name: &Name) -> Error {
    let detail = format!("{name} is not in namespace {}, the only one served here", map.namespace);
    ErrorCode::NotFound.because(detail)
}
