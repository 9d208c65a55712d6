//! What the state answers, and what may be cached of it.

use std::time::Duration;

use hasp_proto::crossing::Root;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::EventMask;
use hasp_proto::handle::HandleBody;
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::limits::LISTING_BYTES_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, NodeKind, Stat};
use hasp_proto::request::{Open, Reply, Use};

use super::replies::opened;
use super::sequencers::{does_not_stand, sequencer};
use super::{Actor, same_instance};
use crate::state::{Access, Guard, HolderId, Node, State};

/// Something that the state answers.
#[derive(Clone, Debug)]
pub enum Read {
    Open(Opening),
    Contents(Name, Instance),
    Stat(Name, Instance),
    Children(Name, Instance),
    Sequencer(Name, HolderId),
    SequencerStands(Guard),
    Refresh(HandleBody),
    /// A directory, for the cell of its children.
    Root(Name),
    /// The file of an ACL, for a router.
    Acl(Name),
    /// The partition map, for a router.
    Map,
    /// A part of what moves to another cell.
    Parcel {
        version: u64,
        to: CellName,
        part: u64,
    },
    /// The children of a directory whose node another cell holds, which has these ACL names; none if no child was ever
    /// made here.
    RootChildren {
        name: Name,
        acls: AclNames,
        is_known: bool,
    },
}

/// An `Open` of a node that exists, or need not.
#[derive(Clone, Debug)]
pub struct Opening {
    pub name: Name,
    pub(super) r#use: Use,
    pub(super) lock_delay: Duration,
    pub(super) events: EventMask,
}

impl Opening {
    pub(super) fn of(open: &Open) -> Self {
        let Open { name, r#use, lock_delay, events, .. } = open;
        Self { name: name.clone(), r#use: *r#use, lock_delay: *lock_delay, events: *events }
    }
}

/// What came of a read, and what may be cached of it.
#[derive(Clone, Debug)]
pub struct Answered {
    pub result: Result<Reply, Error>,
    pub cachable: Option<Cachable>,
}

/// What an answer shows of a node.
#[derive(Clone, Debug)]
pub struct Cachable {
    pub name: Name,
    pub kinds: ItemKinds,
    /// The ACL that let it be read.
    pub acl: Option<String>,
}

impl From<Result<Reply, Error>> for Answered {
    fn from(result: Result<Reply, Error>) -> Self {
        Self { result, cachable: None }
    }
}

impl Read {
    /// The answer, from the state as it is.
    pub fn answer(self, state: &State, actor: &Actor) -> Answered {
        match self {
            Self::Open(opening) => {
                let Some(node) = state.node(&opening.name) else {
                    let error = ErrorCode::NotFound.because(opening.name.to_string());
                    let kinds = ItemKinds::of([ItemKind::Absence]);
                    let cachable = Some(Cachable { name: opening.name, kinds, acl: None });
                    return Answered { result: Err(error), cachable };
                };
                let may_read = state.check_access(&opening.name, actor.who(), Access::Read).is_ok();
                let cachable = may_read.then(|| of_node(&opening.name, node));
                Answered { result: Ok(opened(state, actor, opening, node.stat(), false)), cachable }
            }
            Self::Contents(name, instance) => read_node(state, &name, instance, |node| {
                Ok(Reply::Contents { contents: node.contents.clone(), stat: node.stat() })
            }),
            Self::Stat(name, instance) => {
                read_node(state, &name, instance, |node| Ok(Reply::Stat(node.stat())))
            }
            Self::Refresh(body) => {
                read_node(state, &body.name, body.instance, |node| Ok(Reply::Stat(node.stat())))
            }
            Self::Children(name, instance) => listing(state, name, instance),
            Self::Root(name) => described(state, name).into(),
            Self::Acl(file) => file_of(state, file),
            Self::Map => match state.map_file().cloned() {
                Some(file) => file_of(state, file),
                None => Err(ErrorCode::Unavailable.because("the cell has not begun")).into(),
            },
            Self::Parcel { version, to, part } => {
                let exported = state.export(version, &to, part);
                exported.map(|(data, parts)| Reply::Parcel { data, parts }).into()
            }
            Self::RootChildren { name, acls, is_known } => root_listing(state, name, acls, is_known),
            Self::Sequencer(name, holder) => sequencer(state, &name, holder).into(),
            Self::SequencerStands(guard) => if state.sequencer_stands(&guard) {
                Ok(Reply::SequencerStands)
            } else {
                Err(does_not_stand(&guard))
            }
            .into(),
        }
    }
}

fn of_node(name: &Name, node: &Node) -> Cachable {
    let kinds = ItemKinds::of([ItemKind::Data, ItemKind::Lock]);
    Cachable { name: name.clone(), kinds, acl: Some(node.acls.read.clone()) }
}

fn read_node(
    state: &State,
    name: &Name,
    instance: Instance,
    read: impl FnOnce(&Node) -> Result<Reply, Error>,
) -> Answered {
    match same_instance(state, name, instance) {
        Ok(node) => Answered { result: read(node), cachable: Some(of_node(name, node)) },
        Err(error) => Err(error).into(),
    }
}

fn listing(state: &State, name: Name, instance: Instance) -> Answered {
    let directory = match same_instance(state, &name, instance) {
        Ok(node) => node,
        Err(error) => return Err(error).into(),
    };
    let acls = (*directory.acls).clone();
    listed(name.clone(), children(state, &name), acls)
}

fn children(state: &State, directory: &Name) -> Vec<Child> {
    let child = |(name, node): (&Name, &Node)| Child {
        component: name.component().to_owned(),
        stat: Stat { lock_generation: Generation(0), ..node.stat() },
    };
    state.children(directory).map(child).collect()
}

fn listed(name: Name, children: Vec<Child>, acls: AclNames) -> Answered {
    let acl = Some(acls.read.clone());
    match check_listing(&name, Reply::Children { children, acls }) {
        Ok(reply) => {
            let kinds = ItemKinds::of([ItemKind::Listing]);
            Answered { result: Ok(reply), cachable: Some(Cachable { name, kinds, acl }) }
        }
        Err(error) => Err(error).into(),
    }
}

/// Of a directory of which nothing is known here there is nothing that could be invalidated either.
fn root_listing(state: &State, name: Name, acls: AclNames, is_known: bool) -> Answered {
    if is_known {
        let children = children(state, &name);
        return listed(name, children, acls);
    }
    Ok(Reply::Children { children: Vec::new(), acls }).into()
}

fn described(state: &State, name: Name) -> Result<Reply, Error> {
    let node = state.node(&name).ok_or_else(|| ErrorCode::NotFound.because(name.to_string()))?;
    if node.kind == NodeKind::File {
        return Err(ErrorCode::NotADirectory.because(format!("{name} is a file")));
    }
    let (instance, acls, acl_generation) = (node.instance, (*node.acls).clone(), node.acl_generation);
    Ok(Reply::Root(Root { name, instance, acls, acl_generation, as_of: state.position() }))
}

/// Routers read ACLs and the map whoever may: they are trusted with them (`route-5`).
fn file_of(state: &State, file: Name) -> Answered {
    let (result, kind) = match state.node(&file) {
        Some(node) => {
            (Ok(Reply::Contents { contents: node.contents.clone(), stat: node.stat() }), ItemKind::Data)
        }
        None => (Err(ErrorCode::NotFound.because(file.to_string())), ItemKind::Absence),
    };
    let kinds = ItemKinds::of([kind]);
    Answered { result, cachable: Some(Cachable { name: file, kinds, acl: None }) }
}

/// A listing must fit into one message.
fn check_listing(name: &Name, listing: Reply) -> Result<Reply, Error> {
    let bytes = listing.weight();
    if bytes > LISTING_BYTES_MAX {
        let detail =
            format!("the listing of {name} has about {bytes} bytes, the limit is {LISTING_BYTES_MAX}");
        return Err(ErrorCode::TooLarge.because(detail));
    }
    Ok(listing)
}
