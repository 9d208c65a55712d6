//! What cells need to know of one another.

use std::time::Duration;

use hasp_proto::crossing::{Anchor, Chore, CrossOp, Evidence, Membership, Need, Root, SealTicket, Vouch};
use hasp_proto::event::EventMask;
use hasp_proto::id::{CellName, Epoch, Generation, Instance, RequestNumber};
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::position::Position;
use hasp_proto::request::Reply;
use hasp_proto::time::Time;

const TICKET: SealTicket = SealTicket(12);
const INSTANCE: Instance = Instance(4);

/// A directory of cell a, whose children are cell b's.
fn name() -> Name {
    Name::parse("/ls/dev/b").expect("good")
}

fn root() -> Root {
    let as_of = Position { cell: CellName::new("a"), epoch: Epoch(2), index: 9 };
    Root { name: name(), instance: INSTANCE, acls: AclNames::default(), acl_generation: Generation(6), as_of }
}

fn anchor() -> Anchor {
    Anchor { epoch: Epoch(1), at: Time::from_millis(3) }
}

fn vouch() -> Vouch {
    Vouch { anchor: anchor(), lasts: Duration::from_secs(9) }
}

/// Everything that can be said of other cells.
pub fn evidence() -> Evidence {
    Evidence {
        memberships: vec![Membership { acl: "ops".into(), is_member: true }],
        vouch: Some(vouch()),
        root: Some(root()),
        seal: Some(TICKET),
    }
}

/// Everything that routers ask.
pub fn ops() -> Vec<CrossOp> {
    let (name, instance, ticket) = (name(), INSTANCE, TICKET);
    vec![
        CrossOp::DescribeRoot(name.clone()),
        CrossOp::ReadAcl("ops".into()),
        CrossOp::Seal { name: name.clone(), instance },
        CrossOp::VoidSeals { name: name.clone(), instance, below: ticket },
        CrossOp::Unseal { name: name.clone(), instance, ticket },
        CrossOp::UpdateRoot(root()),
        CrossOp::DropRoot { name: name.clone(), instance, as_of: root().as_of },
        CrossOp::ListRoot { name: name.clone(), instance },
        CrossOp::WatchRoot {
            name: name.clone(),
            instance,
            opened_by: RequestNumber(3),
            events: EventMask::ALL,
        },
        CrossOp::ReapRoot { name: name.clone(), instance, ticket },
        CrossOp::Propagated { name, instance, acl_generation: Generation(6) },
        CrossOp::Chores,
        CrossOp::Vouch(Some(vouch())),
        CrossOp::Vouch(None),
    ]
}

/// Everything that cells say to them.
pub fn replies() -> Vec<Reply> {
    let (name, instance, ticket) = (name(), INSTANCE, TICKET);
    let needs = [
        Need::Acl("ops".into()),
        Need::Root(name.clone()),
        Need::Unseal { name: name.clone(), instance, ticket },
        Need::Seal { name: name.clone(), instance },
    ];
    let chores = vec![
        Chore::End { name: name.clone(), instance },
        Chore::Unseal { name: name.clone(), instance, ticket },
        Chore::Propagate { name, instance },
    ];
    needs
        .map(|need| Reply::Needs(need, anchor()))
        .into_iter()
        .chain([Reply::Root(root()), Reply::Sealed(ticket), Reply::Anchored(anchor()), Reply::Chores(chores)])
        .collect()
}
