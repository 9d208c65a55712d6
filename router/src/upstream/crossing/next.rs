//! What a cell's answer means for its request: whether it is the final one, and what comes before that if it is not.

use hasp_proto::crossing::{Anchor, CrossOp, Need, Root};
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::CellName;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, Op, Reply};

use super::super::Asked;
use super::{Progress, failed};

/// What an answer means for its request.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// It is the final one.
    Deliver(Answer),
    /// The cell needs something.
    Get(Need, Anchor),
    /// It was only we who did not want it any more.
    AskAnew,
    /// First the other cell has to hear that the directory is gone.
    Drop(CellName, CrossOp, Answer),
    /// First the other cell has to hear of the directory's ACL names.
    Update(CellName, Root, Answer),
    /// First it has to be sure that no other cell has the directory's children.
    Settle(Answer),
    /// First the other cell has to tell the client of the directory's children.
    Watch(CellName, CrossOp, Answer),
    /// First the seal is undone.
    Undo(Answer),
}

impl Asked {
    /// What a cell's answer means for it. The map is sure if its home cell has not let another one in before the answer came.
    pub(super) fn next(&self, map: &PartitionMap, is_sure: bool, answer: Answer) -> Next {
        if self.ask.on_behalf.is_none() {
            return match answer.result {
                Ok(Reply::Needs(..)) => {
                    Next::Deliver(failed("this needs a proxy or router between the cells"))
                }
                _ => Next::Deliver(answer),
            };
        }
        let Progress { is_cancelled, is_revoked, sealed, .. } = &self.progress;
        match (&self.ask.op, &answer.result) {
            (_, Ok(Reply::Needs(need, anchor))) => Next::Get(need.clone(), *anchor),
            (_, Err(error)) if error.code == ErrorCode::Cancelled && *is_revoked && !is_cancelled => {
                Next::AskAnew
            }
            // Without a position nothing is known of what was done: the seal may have been used.
            (_, Err(_)) if sealed.is_some() && answer.position.is_some() => Next::Undo(answer),
            (Op::Delete(handle), Ok(Reply::Deleted)) => match (split(map, handle), answer.position.clone()) {
                (Some((HandleBody { name, instance, .. }, children)), Some(as_of)) => {
                    Next::Drop(children, CrossOp::DropRoot { name, instance, as_of }, answer)
                }
                _ => Next::Deliver(answer),
            },
            (Op::SetAcl { handle, acls, .. }, Ok(Reply::AclSet { acl_generation })) => {
                match (split(map, handle), answer.position.clone()) {
                    // It may have been done just after the children had gone to a cell that we do not know of.
                    (None, _) if is_of_directory(handle) && !is_sure => Next::Settle(answer),
                    (None, _) => Next::Deliver(answer),
                    (Some(_), None) => Next::Deliver(failed("the cell does not say as of when the ACLs are")),
                    (Some((HandleBody { name, instance, .. }, children)), Some(as_of)) => {
                        let (acls, acl_generation) = (acls.clone(), *acl_generation);
                        let root = Root { name, instance, acls, acl_generation, as_of };
                        Next::Update(children, root, answer)
                    }
                }
            }
            (Op::Open(_), Ok(Reply::Opened { handle, .. })) | (Op::Refresh(handle), Ok(Reply::Stat(_))) => {
                match watched(map, handle).filter(|_| self.progress.watched_at.is_none()) {
                    Some((children, op)) => Next::Watch(children, op, answer),
                    None => Next::Deliver(answer),
                }
            }
            (Op::Close(handle), Ok(Reply::Closed)) => match watched(map, handle) {
                Some((children, CrossOp::WatchRoot { name, instance, opened_by, .. })) => {
                    let op = CrossOp::WatchRoot { name, instance, opened_by, events: EventMask::NONE };
                    Next::Drop(children, op, answer)
                }
                _ => Next::Deliver(answer),
            },
            _ => Next::Deliver(answer),
        }
    }
}

/// Which cell tells of the children, if the handle is of a split directory and is to be told of them.
fn watched(map: &PartitionMap, handle: &HandleToken) -> Option<(CellName, CrossOp)> {
    let (body, children) = split(map, handle)?;
    let HandleBody { name, instance, opened_by, events, .. } = body;
    let events = events.of_children();
    (!events.is_empty()).then_some((children, CrossOp::WatchRoot { name, instance, opened_by, events }))
}

fn is_of_directory(handle: &HandleToken) -> bool {
    handle.claimed_body().is_some_and(|body| body.kind == NodeKind::Directory)
}

/// What a handle says of itself, and which cell holds the children, if it is of a split directory.
fn split(map: &PartitionMap, handle: &HandleToken) -> Option<(HandleBody, CellName)> {
    let body = handle.claimed_body().filter(|body| body.kind == NodeKind::Directory)?;
    let children =
        map.children_owner(&body.name).filter(|children| map.owner(&body.name) != Some(children))?;
    let children = children.clone();
    Some((body, children))
}
