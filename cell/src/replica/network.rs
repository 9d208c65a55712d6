//! What openraft sends, over the links to the peers.
//!
//! Entries travel on one bidirectional stream per follower, many batches in flight; heartbeats, votes and transfers are
//! short calls on another connection; snapshots have a third. Every call has a deadline, the stream one for each answer.

mod appending;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use hasp_rt::disk::Disk;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::Instant;

use super::acks::Acks;
use super::applier::SnapshotFile;
use super::connect::{Link, Peer, Peers};
use super::machine::Machine;
use super::types::{Snapshot, Types, Vote};
use super::wire;

/// openraft's view of the network of one replica.
pub struct Network<M> {
    peers: Peers,
    disk: Arc<dyn Disk>,
    /// Where it is noted what the followers accepted.
    acks: Arc<Acks>,
    /// How long a follower may leave a batch unanswered before its stream is given up.
    stall: Duration,
    _machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Network<M> {
    /// A network that gives a stalled follower `stall`.
    pub fn new(peers: Peers, disk: Arc<dyn Disk>, acks: Arc<Acks>, stall: Duration) -> Self {
        Self { peers, disk, acks, stall, _machine: std::marker::PhantomData }
    }

    fn connection(&self, target: u64, appends: Appends) -> Connection<M> {
        Connection {
            peer: self.peers.get(target).cloned(),
            disk: self.disk.clone(),
            acks: self.acks.clone(),
            appends,
            stall: self.stall,
            target,
            _machine: std::marker::PhantomData,
        }
    }
}

impl<M: Machine> RaftNetworkFactory<Types> for Network<M> {
    type Network = Connection<M>;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Connection<M> {
        self.connection(target, Appends::Streamed)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &BasicNode) -> Connection<M> {
        self.connection(target, Appends::OneByOne)
    }
}

/// How a connection sends AppendEntries.
#[derive(Debug, Clone, Copy)]
enum Appends {
    Streamed,
    OneByOne,
}

/// The way to one peer.
pub struct Connection<M> {
    peer: Option<Peer>,
    disk: Arc<dyn Disk>,
    acks: Arc<Acks>,
    appends: Appends,
    stall: Duration,
    target: u64,
    _machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Connection<M> {
    fn peer(&self) -> Result<&Peer, Unreachable<Types>> {
        let missing =
            || Unreachable::from_string(format!("replica {} is not in the configuration", self.target));
        self.peer.as_ref().ok_or_else(missing)
    }
}

type RpcError = RPCError<Types>;

#[allow(clippy::disallowed_methods, reason = "openraft counts leases in tokio's time")]
fn now() -> Instant {
    Instant::now()
}

fn rpc_error(link: &Link, action: RPCTypes, timeout: Duration, status: &tonic::Status) -> RpcError {
    match status.code() {
        tonic::Code::DeadlineExceeded => {
            RPCError::Timeout(Timeout { action, id: link.own_id(), target: link.target(), timeout })
        }
        _ => RPCError::Unreachable(Unreachable::from_string(format!(
            "replica {}: {:?}: {}",
            link.target(),
            status.code(),
            status.message()
        ))),
    }
}

fn malformed(missing: wire::Missing) -> RpcError {
    RPCError::Network(NetworkError::new(&missing))
}

impl<M: Machine> RaftNetworkV2<Types> for Connection<M> {
    type SnapshotData = SnapshotFile<M>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let link = &self.peer()?.control;
        let (term, sent) = (request.vote.leader_id.term, now());
        let request = wire::put_append(request, Some(link.addressed()));
        let answer =
            link.call(option.soft_ttl(), |mut client| async move { client.append(request).await }).await;
        let answer =
            answer.map_err(|status| rpc_error(link, RPCTypes::AppendEntries, option.soft_ttl(), &status))?;
        let result = wire::get_append_result(answer).map_err(malformed)?;
        if result.is_ok() {
            self.acks.accepted(self.target, term, sent);
        }
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        match self.appends {
            Appends::OneByOne => stream_append_sequential(self, input, option),
            Appends::Streamed => Box::pin(async move {
                let link = self.peer()?.appends.clone();
                appending::pipelined(link, self.acks.clone(), self.stall, input).await
            }),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let link = &self.peer()?.control;
        let request = wire::put_vote_request(&request, link.addressed());
        let answer =
            link.call(option.soft_ttl(), |mut client| async move { client.vote(request).await }).await;
        let answer = answer.map_err(|status| rpc_error(link, RPCTypes::Vote, option.soft_ttl(), &status))?;
        wire::get_vote_response(answer).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let link = &self.peer()?.control;
        let request = wire::put_vote_request(&request, link.addressed());
        let answer =
            link.call(option.soft_ttl(), |mut client| async move { client.pre_vote(request).await }).await;
        let answer = answer.map_err(|status| rpc_error(link, RPCTypes::Vote, option.soft_ttl(), &status))?;
        wire::get_vote_response(answer).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotFile<M>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let link = &self.peer()?.snapshots;
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sending::send_snapshot(link, &*self.disk, vote, &snapshot.meta, &snapshot.snapshot.path) => answer,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let link = &self.peer()?.control;
        let request = wire::put_transfer(&request, link.addressed());
        let answer = link
            .call(option.soft_ttl(), |mut client| async move { client.transfer_leader(request).await })
            .await;
        let answer =
            answer.map_err(|status| rpc_error(link, RPCTypes::TransferLeader, option.soft_ttl(), &status))?;
        match answer.refusal.is_empty() {
            true => Ok(Ok(())),
            // openraft only logs why: the others elect once the transfer comes to nothing.
            false => Err(RPCError::Network(NetworkError::from_string(answer.refusal))),
        }
    }
}
