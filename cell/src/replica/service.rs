//! Answers the other replicas: `hasp.raft.v1`.
//!
//! Every call is checked twice before openraft sees it: that it is meant for this replica of this cell, and that the
//! gate lets it through.

mod receiving;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt as _, stream};
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Raft, ReadPolicy};
use tonic::{Request, Response, Status, Streaming};

use super::applier::{Applier, Snapshots};
use super::gate::{Gate, Standing};
use super::identity::{Home, Identity};
use super::machine::Machine;
use super::types::{Runtime, Types};
use super::wire::{self, pb};

/// Bytes a message may have: one batch, or one entry that is larger, with room for its frame.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// One replica's side of `hasp.raft.v1`.
pub struct Service<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Service<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<M: Machine> {
    identity: Identity,
    home: Home,
    raft: Raft<Types, Applier<M>>,
    gate: Arc<Gate>,
    snapshots: Snapshots,
    /// One snapshot comes in at a time.
    incoming: tokio::sync::Mutex<()>,
    seed: AtomicU64,
}

impl<M: Machine> Service<M> {
    pub(super) fn new(
        identity: Identity,
        home: Home,
        raft: Raft<Types, Applier<M>>,
        gate: Arc<Gate>,
        snapshots: Snapshots,
        seed: u64,
    ) -> Self {
        let inner = Inner {
            identity,
            home,
            raft,
            gate,
            snapshots,
            incoming: tokio::sync::Mutex::new(()),
            seed: AtomicU64::new(seed),
        };
        Self(Arc::new(inner))
    }
}

impl<M: Machine> Service<M> {
    /// What this replica is to its cell.
    pub fn standing(&self) -> Standing {
        self.0.standing()
    }
}

/// Whether a replica has an entry or a vote.
pub(super) fn is_initialised<M: Machine>(raft: &Raft<Types, Applier<M>>) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.last_log_index.is_some() || metrics.vote.leader_id.term > 0
}

/// What openraft refuses with when it has stopped.
fn stopped(fatal: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {fatal}"))
}

impl<M: Machine> Inner<M> {
    /// Checks that the call is meant for this replica, and returns who calls.
    fn check(&self, addressed: Option<pb::Addressed>) -> Result<u64, Status> {
        let addressed = addressed.ok_or(wire::Missing("its address"))?;
        let Identity { cell, id } = &self.identity;
        if addressed.cell != *cell || addressed.to != *id {
            return Err(Status::failed_precondition(format!(
                "meant for replica {} of cell {:?}; this is {}",
                addressed.to, addressed.cell, self.identity
            )));
        }
        Ok(addressed.from)
    }

    /// A replica that was founded becomes a member with its first entry or vote.
    fn standing(&self) -> Standing {
        match self.gate.standing() {
            Standing::Founder if is_initialised(&self.raft) => {
                self.gate.become_member();
                Standing::Member
            }
            other => other,
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<M: Machine> pb::raft_server::Raft for Service<M> {
    type AppendStreamStream = Answers<pb::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let inner = &self.0;
        let mut requests = request.into_inner();
        let Some(mut first) = requests.message().await? else {
            return Ok(Response::new(stream::empty().boxed()));
        };
        inner.check(first.addressed.take())?;
        inner.gate.check_entries()?;

        // A broken stream, or a request that makes no sense, ends the input: openraft answers what it has, and the
        // leader begins another.
        let all = stream::iter([Ok(first)])
            .chain(requests)
            .map(|request| request.ok().and_then(|request| wire::get_append(request).ok()))
            .take_while(|request| std::future::ready(request.is_some()))
            .filter_map(std::future::ready);
        let seed = inner.seed.fetch_add(1, Ordering::Relaxed);
        let answers = Runtime::scope(seed, async { inner.raft.stream_append(all) }).await;
        let answers = answers.map(|answer| answer.map(wire::put_append_result).map_err(stopped));
        Ok(Response::new(answers.boxed()))
    }

    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let mut request = request.into_inner();
        self.0.check(request.addressed.take())?;
        self.0.gate.check_entries()?;
        let request = wire::get_append(request)?;
        let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let answer = self.0.raft.append_entries(request).await.map_err(stopped)?;
        let result = answer.into_stream_result(previous, last.or(previous));
        Ok(Response::new(wire::put_append_result(result)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let mut request = request.into_inner();
        self.0.check(request.addressed.take())?;
        self.0.gate.check_votes()?;
        let answer = self.0.raft.vote(wire::get_vote_request(request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::put_vote_response(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let mut request = request.into_inner();
        self.0.check(request.addressed.take())?;
        self.0.gate.check_votes()?;
        let answer = self.0.raft.pre_vote(wire::get_vote_request(request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::put_vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let mut request = request.into_inner();
        self.0.check(request.addressed.take())?;
        self.0.gate.check_votes()?;
        let request = wire::get_transfer(request)?;
        let answer = self.0.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refusal = answer.err().map(|refusal| refusal.to_string()).unwrap_or_default();
        Ok(Response::new(pb::TransferLeaderResponse { refusal }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let inner = &self.0;
        let mut chunks = request.into_inner();
        let header = receiving::header(&mut chunks).await?;
        inner.check(header.addressed.clone())?;
        inner.gate.check_entries()?;
        let _one_at_a_time =
            inner.incoming.try_lock().map_err(|_| Status::aborted("another snapshot is coming in"))?;

        let vote = wire::get_vote(header.vote)?;
        let snapshot = receiving::receive(&inner.snapshots, header, chunks).await?;
        let answer = inner.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::put_vote(&answer.vote)) }))
    }

    async fn identify(
        &self,
        _request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        // Answered whoever is meant: the caller compares, and can then say who is there instead.
        let Identity { cell, id } = self.0.identity.clone();
        let vote = self.0.raft.metrics().borrow_watched().vote;
        Ok(Response::new(pb::IdentifyResponse {
            cell,
            id,
            standing: pb::Standing::from(self.0.standing()).into(),
            vote: Some(wire::put_vote(&vote)),
        }))
    }

    async fn found(&self, request: Request<pb::FoundRequest>) -> Result<Response<pb::FoundResponse>, Status> {
        let inner = &self.0;
        inner.check(request.into_inner().addressed)?;
        let _one_at_a_time = inner.gate.joining.lock().await;
        if inner.standing() == Standing::Empty {
            inner.home.claim().await.map_err(|error| Status::internal(error.to_string()))?;
            inner.gate.found();
        }
        Ok(Response::new(pb::FoundResponse { standing: pb::Standing::from(inner.standing()).into() }))
    }

    async fn rejoin(
        &self,
        request: Request<pb::RejoinRequest>,
    ) -> Result<Response<pb::RejoinResponse>, Status> {
        let raft = &self.0.raft;
        let caller = self.0.check(request.into_inner().addressed)?;
        let not_leader = || Ok(Response::new(pb::RejoinResponse { leader: false, committed: None }));
        // With a quorum's word, so that a leader deposed without knowing it does not name too low an index.
        let Ok((confirmed, _)) = raft.get_read_log_id(ReadPolicy::ReadIndex).await else {
            return not_leader();
        };
        // The caller's log may be shorter than what it once acknowledged; openraft would take that for corruption.
        match raft.trigger().allow_next_revert(&caller, true).await.map_err(stopped)? {
            Ok(()) => {}
            Err(_not_leader_or_not_a_member) => return not_leader(),
        }
        let committed = Some(wire::put_log_id(confirmed.log_id()));
        Ok(Response::new(pb::RejoinResponse { leader: true, committed }))
    }
}
