//! What openraft sends, over the links to the peers.
//!
//! Entries travel on one bidirectional stream per follower, many batches in flight; heartbeats, votes and transfers are
//! short calls on another connection; snapshots have a third. Every call has a deadline, the stream one for each answer.

mod sending;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use hasp_rt::disk::Disk;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use super::applier::SnapshotFile;
use super::connect::{Link, Peer, Peers};
use super::machine::Machine;
use super::types::{Snapshot, Types, Vote};
use super::wire;

/// openraft's view of the network of one replica.
pub struct Network<M> {
    peers: Peers,
    disk: Arc<dyn Disk>,
    /// How long a follower may leave a batch unanswered before its stream is given up.
    stall: Duration,
    _machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Network<M> {
    /// A network that gives a stalled follower `stall`.
    pub fn new(peers: Peers, disk: Arc<dyn Disk>, stall: Duration) -> Self {
        Self { peers, disk, stall, _machine: std::marker::PhantomData }
    }

    fn connection(&self, target: u64, appends: Appends) -> Connection<M> {
        Connection {
            peer: self.peers.get(target).cloned(),
            disk: self.disk.clone(),
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
        let request = wire::put_append(request, Some(link.addressed()));
        let answer =
            link.call(option.soft_ttl(), |mut client| async move { client.append(request).await }).await;
        let answer =
            answer.map_err(|status| rpc_error(link, RPCTypes::AppendEntries, option.soft_ttl(), &status))?;
        Ok(wire::get_append_result(answer).map_err(malformed)?.into())
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
                let stall = self.stall;
                pipelined(self.peer()?.appends.clone(), stall, input).await
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

/// Sends all of `input` on one stream and returns the answers, which come in the order of the requests.
async fn pipelined<'s, S>(
    link: Arc<Link>,
    stall: Duration,
    mut input: S,
) -> Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    // openraft waits out its backoff inside the input. To connect before the first request is there would be to try a
    // dead peer again and again without a pause.
    let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let mut addressed = Some(link.addressed());
    let requests = stream::iter([first]).chain(input).map(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        wire::put_append(request, addressed.take())
    });
    let answers = link.call(stall, |mut client| async move { client.append_stream(requests).await }).await;
    let answers = answers.map_err(|status| rpc_error(&link, RPCTypes::AppendEntries, stall, &status))?;

    let answering = Answering { link, answers, sent, received: 0, stall };
    Ok(Box::pin(stream::unfold(Some(answering), |state| async move {
        let mut answering = state?;
        match answering.next().await? {
            Ok(Ok(matching)) => Some((Ok(Ok(matching)), Some(answering))),
            last => Some((last, None)),
        }
    })))
}

/// The answering half of an append stream.
struct Answering {
    link: Arc<Link>,
    answers: tonic::Streaming<wire::pb::AppendResponse>,
    sent: Arc<AtomicU64>,
    received: u64,
    stall: Duration,
}

impl Answering {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RpcError>> {
        loop {
            let waiting_since_before = self.sent.load(Ordering::Relaxed) > self.received;
            match tokio::time::timeout(self.stall, self.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    self.received += 1;
                    return Some(wire::get_append_result(answer).map_err(malformed));
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => {
                    self.link.abandon().await;
                    return Some(Err(rpc_error(&self.link, RPCTypes::AppendEntries, self.stall, &status)));
                }
                // Silence is an error only when a request was in flight for all of it.
                Err(_elapsed) if waiting_since_before => {
                    self.link.abandon().await;
                    let status = tonic::Status::deadline_exceeded("append stream stalled");
                    return Some(Err(rpc_error(&self.link, RPCTypes::AppendEntries, self.stall, &status)));
                }
                Err(_elapsed) => {}
            }
        }
    }
}
