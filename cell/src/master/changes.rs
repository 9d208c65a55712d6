//! What a command changes of what may be cached (`cache-2`): decided by names alone, so that it holds
//! whatever the state will be when the command is applied.

use hasp_proto::crossing::{CrossOp, Root};
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::name::Name;

use crate::state::{Command, State, Write};

/// The items that are to be invalidated before the command is proposed.
pub(super) fn of(state: &State, command: &Command) -> Vec<Item> {
    match command {
        Command::ClientWrite(write) => of_write(state, &write.write),
        Command::Reap { name, .. } => of_deletion(state, name),
        Command::Cross(CrossOp::ReapRoot { name, .. }) => of_deletion(state, name),
        Command::Cross(CrossOp::Finish { .. } | CrossOp::GiveUp { .. }) => of_map(state),
        // Listings of a directory that is about to go, or whose ACL names have changed.
        Command::Cross(CrossOp::Seal { name, .. } | CrossOp::UpdateRoot(Root { name, .. })) => {
            vec![item(name, ItemKind::Listing)]
        }
        // Locks that come free by these keep their generation, and nodes that nobody has open any more
        // go by a command of their own.
        Command::MasterEpoch { .. }
        | Command::CreateSession(_)
        | Command::Cross(_)
        | Command::EndSession { .. }
        | Command::EndClient { .. }
        | Command::Settle(_)
        | Command::ClaimClient { .. }
        | Command::EndLockDelay { .. }
        | Command::OrphanEnd { .. }
        | Command::Forget { .. }
        | Command::RaiseLeaseMax(_)
        | Command::TakeChecksum
        | Command::CompareChecksum { .. } => Vec::new(),
    }
}

/// The file of the map.
fn of_map(state: &State) -> Vec<Item> {
    let Some(name) = state.map_file() else { return Vec::new() };
    [item(name, ItemKind::Data)].into_iter().chain(parents_listing(name)).collect()
}

/// Whether what this item says is about to be another cell's word.
pub(super) fn is_leaving(state: &State, item: &Item) -> bool {
    let map = state.map();
    match item.kind {
        ItemKind::Listing => map.moves_children(&item.name),
        ItemKind::Data | ItemKind::Lock | ItemKind::Absence => map.moves(&item.name),
        ItemKind::Acl => false,
    }
}

fn of_write(state: &State, write: &Write) -> Vec<Item> {
    match write {
        Write::Create(create) => {
            let mut items = vec![item(&create.name, ItemKind::Absence)];
            items.extend(parents_listing(&create.name));
            items
        }
        Write::SetContents { holder, .. } => {
            let mut items = vec![item(&holder.name, ItemKind::Data)];
            items.extend(parents_listing(&holder.name));
            items.extend(decisions(state, &holder.name));
            items
        }
        Write::SetAcl { holder, .. } => {
            let mut items = vec![item(&holder.name, ItemKind::Data), item(&holder.name, ItemKind::Listing)];
            items.extend(parents_listing(&holder.name));
            items
        }
        Write::Delete { holder } => of_deletion(state, &holder.name),
        // Whether it turns the lock from free to held is not known before.
        Write::Acquire { holder, .. } => vec![item(&holder.name, ItemKind::Lock)],
        Write::Release { .. } | Write::CloseHandle { .. } | Write::OpenEphemeral { .. } => Vec::new(),
    }
}

fn of_deletion(state: &State, name: &Name) -> Vec<Item> {
    let mut items: Vec<Item> =
        [ItemKind::Data, ItemKind::Lock, ItemKind::Listing].map(|kind| item(name, kind)).into();
    items.extend(parents_listing(name));
    items.extend(decisions(state, name));
    items
}

fn item(name: &Name, kind: ItemKind) -> Item {
    Item::new(name.clone(), kind)
}

fn parents_listing(name: &Name) -> Option<Item> {
    Some(Item::new(name.parent()?, ItemKind::Listing))
}

/// The decisions that a file makes, if it is an ACL.
fn decisions(state: &State, name: &Name) -> Option<Item> {
    (state.acl_file(name.component()).as_ref() == Some(name)).then(|| item(name, ItemKind::Acl))
}
