//! Conversions between openraft's types and `hasp.raft.v1`.
//!
//! The same `Entry` message is what the log stores of memberships, so its field numbers are a disk format too.

use std::collections::{BTreeMap, BTreeSet};

use openraft::BasicNode;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest};
use openraft::raft::{VoteRequest, VoteResponse};

use super::types::{
    Entry, EntryPayload, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Types, Vote, log_id,
};

/// The generated messages and services.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod pb {
    tonic::include_proto!("hasp.raft.v1");
}

/// A message from a peer lacked what it must carry.
#[derive(Debug, thiserror::Error)]
#[error("message from a replica lacks {0}")]
pub struct Missing(pub &'static str);

impl From<Missing> for tonic::Status {
    fn from(missing: Missing) -> Self {
        tonic::Status::invalid_argument(missing.to_string())
    }
}

pub fn put_log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub fn get_log_id(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub fn put_vote(vote: &Vote) -> pb::RaftVote {
    pb::RaftVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub fn get_vote(vote: Option<pb::RaftVote>) -> Result<Vote, Missing> {
    let vote = vote.ok_or(Missing("its vote"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node),
        false => Vote::new(vote.term, vote.node),
    })
}

pub fn put_membership(membership: &Membership) -> pb::Membership {
    let voters = membership.get_joint_config().iter();
    let members = membership.nodes();
    pb::Membership {
        voters: voters.map(|ids| pb::MemberSet { ids: ids.iter().copied().collect() }).collect(),
        members: members.map(|(id, node)| pb::Member { id: *id, address: node.addr.clone() }).collect(),
    }
}

pub fn get_membership(membership: pb::Membership) -> Result<Membership, Missing> {
    let voters: Vec<BTreeSet<u64>> =
        membership.voters.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, BasicNode> =
        membership.members.into_iter().map(|member| (member.id, BasicNode::new(member.address))).collect();
    Membership::new(voters, members).map_err(|_| Missing("a voter's address"))
}

pub fn put_entry(entry: Entry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Payload(bytes)) => Some(pb::entry::Payload::Command(bytes)),
        EntryPayload::Membership(membership) => {
            Some(pb::entry::Payload::Membership(put_membership(&membership)))
        }
    };
    pb::Entry { term: entry.log_id.leader_id.term, index: entry.log_id.index, payload }
}

pub fn get_entry(entry: pb::Entry) -> Result<Entry, Missing> {
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(pb::entry::Payload::Command(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(pb::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(get_membership(membership)?)
        }
    };
    Ok(Entry { log_id: log_id(entry.term, entry.index), payload })
}

pub fn put_append(
    request: AppendEntriesRequest<Types>,
    addressed: Option<pb::Addressed>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        addressed,
        vote: Some(put_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(put_log_id),
        leader_commit: request.leader_commit.as_ref().map(put_log_id),
        entries: request.entries.into_iter().map(put_entry).collect(),
    }
}

pub fn get_append(request: pb::AppendRequest) -> Result<AppendEntriesRequest<Types>, Missing> {
    let request = AppendEntriesRequest {
        vote: get_vote(request.vote)?,
        prev_log_id: request.previous.map(get_log_id),
        leader_commit: request.leader_commit.map(get_log_id),
        entries: request.entries.into_iter().map(get_entry).collect::<Result<_, _>>()?,
    };
    // openraft asserts it in debug builds only, and would put a hole into the log.
    if has_hole(&request) { Err(Missing("an entry before the next")) } else { Ok(request) }
}

/// Whether its entries do not follow one another, or not what they are said to follow.
pub fn has_hole(request: &AppendEntriesRequest<Types>) -> bool {
    let first = request.prev_log_id.map_or(0, |previous| previous.index + 1);
    (first..).zip(&request.entries).any(|(index, entry)| entry.log_id.index != index)
}

pub fn put_append_result(result: StreamAppendResult<Types>) -> pb::AppendResponse {
    use pb::append_response::Result as Answer;
    let answer = match result {
        Ok(matching) => Answer::Matching(pb::Matching { log_id: matching.as_ref().map(put_log_id) }),
        Err(StreamAppendError::Conflict(id)) => Answer::Conflict(put_log_id(&id)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(put_vote(&vote)),
    };
    pb::AppendResponse { result: Some(answer) }
}

pub fn get_append_result(response: pb::AppendResponse) -> Result<StreamAppendResult<Types>, Missing> {
    use pb::append_response::Result as Answer;
    Ok(match response.result.ok_or(Missing("its result"))? {
        Answer::Matching(matching) => Ok(matching.log_id.map(get_log_id)),
        Answer::Conflict(id) => Err(StreamAppendError::Conflict(get_log_id(id))),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(get_vote(Some(vote))?)),
    })
}

pub fn put_vote_request(request: &VoteRequest<Types>, addressed: pb::Addressed) -> pb::VoteRequest {
    pb::VoteRequest {
        addressed: Some(addressed),
        vote: Some(put_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(put_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn get_vote_request(request: pb::VoteRequest) -> Result<VoteRequest<Types>, Missing> {
    let mut converted = VoteRequest::new(get_vote(request.vote)?, request.last_log.map(get_log_id));
    converted.leadership_transfer = request.leadership_transfer;
    Ok(converted)
}

pub fn put_vote_response(response: &VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(put_vote(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(put_log_id),
    }
}

pub fn get_vote_response(response: pb::VoteResponse) -> Result<VoteResponse<Types>, Missing> {
    let vote = get_vote(response.vote)?;
    Ok(VoteResponse::new(vote, response.last_log.map(get_log_id), response.granted))
}

pub fn put_transfer(
    request: &TransferLeaderRequest<Types>,
    addressed: pb::Addressed,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        addressed: Some(addressed),
        from_leader: Some(put_vote(request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().map(put_log_id),
    }
}

pub fn get_transfer(request: pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<Types>, Missing> {
    Ok(TransferLeaderRequest::new(
        get_vote(request.from_leader)?,
        request.to,
        request.last_log.map(get_log_id),
    ))
}

pub fn put_snapshot_meta(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log: meta.last_log_id.as_ref().map(put_log_id),
        membership_log: meta.last_membership.log_id().as_ref().map(put_log_id),
        membership: Some(put_membership(meta.last_membership.membership())),
    }
}

pub fn get_snapshot_meta(meta: pb::SnapshotMeta) -> Result<SnapshotMeta, Missing> {
    let membership = get_membership(meta.membership.ok_or(Missing("a snapshot's membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log.map(get_log_id),
        last_membership: StoredMembership::new(meta.membership_log.map(get_log_id), membership),
    })
}
