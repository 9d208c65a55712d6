//! One replica of a cell: starts openraft over its disk and its peers, and is what the rest of the cell sees of Raft.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use hasp_rt::env::Env;
use hasp_rt::tasks::Tasks;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::VoteRequest;
use openraft::storage::RaftLogStorage;
use openraft::{Raft, RaftLogReader as _};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tokio::time::Instant;

use super::acks::Acks;
use super::applier::{Applied, Applier};
use super::config::ReplicaConfig;
use super::connect::Peers;
use super::error::{HandOverError, ProposeError, StartError};
use super::gate::{Gate, Standing};
use super::identity::{Home, Identity, Past};
use super::joining::Joining;
use super::log::DiskLog;
use super::machine::Machine;
use super::mastery::{HandingOver, Mastery, MasteryToken, MasteryWatch, lease_end};
use super::network::Network;
use super::service::{MESSAGE_BYTES_MAX, Service};
use super::status::ReplicaStatus;
use super::types::{
    CommittedLeaderId, MetricsReceiver, Payload, Responder, Runtime, ServerMetricsReceiver, Types,
};
use super::wire::{self, pb::raft_server::RaftServer};

/// Bytes one entry may have.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

const DRAIN: Duration = Duration::from_secs(5);

/// A running replica.
pub struct Replica<M: Machine> {
    raft: Raft<Types, Applier<M>>,
    applied: Applied<M>,
    service: Service<M>,
    metrics: MetricsReceiver,
    leadership: ServerMetricsReceiver,
    mastery: Arc<watch::Sender<Mastery>>,
    handing_over: Arc<HandingOver>,
    peers: Peers,
    acks: Arc<Acks>,
    /// The leader's lease, counted from the last quorum.
    lease: Duration,
    tasks: Tasks,
    log: Option<DiskLog>,
}

impl<M: Machine> Replica<M> {
    /// How many seconds appends to its log took to be on disk; `None` of a log that is not on one.
    pub fn flushes(&self) -> Option<Histogram> {
        self.log.as_ref().map(DiskLog::flushes)
    }

    /// Opens the data directory and starts to take part in the cell.
    ///
    /// It joins in the background: see [`super::joining`]. Mount [`Replica::service`] at once, or no cell is founded.
    ///
    /// # Errors
    /// When the directory belongs to another replica, is damaged or cannot be used.
    pub async fn start(config: ReplicaConfig, env: Env) -> Result<Self, StartError> {
        let (home, past) = open_home(&config, &env).await?;
        let log = DiskLog::open(&home.log_dir())?;
        let mut replica = Self::begin(config, env, home, past, log.clone()).await?;
        replica.log = Some(log);
        Ok(replica)
    }

    /// The same over another log, for simulations.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start_on<L>(config: ReplicaConfig, env: Env, log: L) -> Result<Self, StartError>
    where
        L: RaftLogStorage<Types>,
    {
        let (home, past) = open_home(&config, &env).await?;
        Self::begin(config, env, home, past, log).await
    }

    async fn begin<L>(
        config: ReplicaConfig,
        env: Env,
        home: Home,
        past: Past,
        mut log: L,
    ) -> Result<Self, StartError>
    where
        L: RaftLogStorage<Types>,
    {
        let identity = Identity { cell: config.cell.clone(), id: config.id };
        let standing = standing(&mut log, past).await.map_err(StartError::Log)?;
        if standing == Standing::Member && past == Past::None {
            return Err(StartError::Nameless { dir: config.dir, identity });
        }
        let gate = Arc::new(Gate::new(standing));
        let applier = Applier::<M>::open(env.disk.clone(), &home.snapshot_dir()).await?;
        let (applied, snapshots) = (applier.applied(), applier.snapshots());

        let env = Env { tasks: env.tasks.child(), ..env };
        let peers = Peers::new(&config.cell, config.id, &config.peers, &env);
        let acks = Arc::new(Acks::new(peers.iter().map(|(id, _)| id)));
        let network =
            Network::<M>::new(peers.clone(), env.disk.clone(), acks.clone(), config.timing.election_min);
        let raft_config = config.raft().validate().map_err(|error| StartError::Config(error.to_string()))?;
        let mut seeds = env.seeds.stream("raft");
        let starting = Raft::new(config.id, Arc::new(raft_config), network, log, applier);
        let raft = Runtime::scope(seeds.below(u64::MAX), starting).await;
        let raft = raft.map_err(|fatal| StartError::Raft(fatal.to_string()))?;

        let service = Service::new(
            identity,
            home.clone(),
            raft.clone(),
            gate.clone(),
            snapshots,
            seeds.below(u64::MAX),
        );
        let (mastery, _) = watch::channel(Mastery::Follower { leader: None });
        let replica = Self {
            metrics: raft.metrics(),
            leadership: raft.server_metrics(),
            raft: raft.clone(),
            applied,
            service,
            mastery: Arc::new(mastery),
            handing_over: Arc::default(),
            peers: peers.clone(),
            acks,
            lease: config.timing.election_max,
            tasks: env.tasks,
            log: None,
        };
        replica.spawn("replica-mastery", replica.mastery_watch(config.timing.heartbeat).run());
        replica.spawn("replica-votes", hold_votes(raft.clone(), gate.clone(), config.timing.vote_hold()));
        replica.spawn("replica-joining", Joining { config, home, gate, peers, raft }.run());
        Ok(replica)
    }

    fn mastery_watch(&self, retry: Duration) -> MasteryWatch<M> {
        MasteryWatch {
            raft: self.raft.clone(),
            sender: self.mastery.clone(),
            handing_over: self.handing_over.clone(),
            retry,
        }
    }

    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.token().clone();
        self.tasks.spawn(name, async move { stop.run_until_cancelled(work).await.unwrap_or_default() });
    }

    /// `hasp.raft.v1`, to be mounted where the peers expect it; only there are messages this large.
    pub fn service(&self) -> RaftServer<Service<M>> {
        RaftServer::new(self.service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Proposes an entry, under the mastery that the token stands for.
    ///
    /// The entry is queued when this returns, so entries are applied in the order of the calls; many may be under way.
    /// The future only waits for the outcomes, and may be dropped.
    ///
    /// # Errors
    /// [`ProposeError`] says whether the entry may still be applied.
    pub fn propose(
        &self,
        token: MasteryToken,
        entry: Bytes,
    ) -> impl Future<Output = Result<Vec<M::Outcome>, ProposeError>> + Send + 'static {
        let result = self.enqueue(token, entry);
        async move {
            // openraft drops the channel only when it stops; the entry may be on other disks by then.
            let written = result?.await.map_err(|_| ProposeError::Unknown)?;
            let written = written.map_err(ProposeError::from)?;
            Ok(written.data.take().expect("the applier replies with its own machine's outcomes"))
        }
    }

    fn enqueue(
        &self,
        token: MasteryToken,
        entry: Bytes,
    ) -> Result<tokio::sync::oneshot::Receiver<openraft::raft::ClientWriteResult<Types>>, ProposeError> {
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: entry.len() });
        }
        if self.handing_over.has_begun(token.term) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let (responder, result) = Responder::channel();
        let leader = CommittedLeaderId::new(token.term);
        let write = self.raft.write(Payload(entry)).with_leader(leader).responder(responder).into_future();
        // The queue has room but under gross overload, so the first poll puts the entry into it: that is what keeps the
        // order of calls without a task in between. A write that would have to wait is dropped, and not in the queue.
        match tokio::task::unconstrained(write).now_or_never() {
            None => Err(ProposeError::Overloaded),
            Some(Err(fatal)) => Err(ProposeError::Dead { reason: fatal.to_string() }),
            Some(Ok(())) => Ok(result),
        }
    }

    /// What this replica is, and every change of it.
    pub fn mastery(&self) -> watch::Receiver<Mastery> {
        self.mastery.subscribe()
    }

    /// Until when no other replica can have become leader: the send time of the last request that a quorum accepted,
    /// plus the longest election timeout. There is no margin in it for clocks of different rates.
    ///
    /// None unless this replica is [`Mastery::Leader`]; none from the moment a transfer begins.
    pub fn lease_end(&self) -> Option<Instant> {
        let Mastery::Leader { token } = *self.mastery.borrow() else { return None };
        if self.handing_over.has_begun(token.term) {
            return None;
        }
        lease_end(&self.leadership, &self.acks, token, self.lease)
    }

    /// Calls `f` with the applied state and its index. Short work only: entries wait meanwhile. A clone is O(1).
    pub fn read<R>(&self, f: impl FnOnce(&M, u64) -> R) -> R {
        self.applied.read(f)
    }

    /// Where the replica stands, for operators and tests.
    pub fn status(&self) -> ReplicaStatus {
        // Before the metrics are borrowed: who borrows them twice waits for ever for a writer who waits in between.
        let (applied, standing) = (self.applied.log_id(), self.service.standing());
        ReplicaStatus::new(&self.metrics.borrow_watched(), applied, standing)
    }

    /// The followers that could take over at once: they answer, and do not hold their vote after a start. The one that
    /// has most of the log first. To be asked while this replica still leads, so that no time is lost later.
    pub async fn willing_successors(&self) -> Vec<u64> {
        let patience = self.lease / 4;
        let asking = self.successors().into_iter().map(|id| async move {
            let control = &self.peers.get(id)?.control;
            // Never granted while there is a leader, and changes nothing: one that may not vote refuses to answer.
            let request = VoteRequest::new(self.metrics.borrow_watched().vote, None);
            let request = wire::put_vote_request(&request, control.addressed());
            let answer = control.call(patience, |mut client| async move { client.pre_vote(request).await });
            answer.await.is_ok().then_some(id)
        });
        join_all(asking).await.into_iter().flatten().collect()
    }

    /// Stops leading in favour of one of the followers: of these in their order, then of the others, the most caught-up
    /// first; or of whoever else is elected meanwhile. Returns who leads.
    ///
    /// Mastery is given up before this awaits anything; it does not come back in this term even if the transfer fails,
    /// and then some replica is elected after the usual time. Whoever takes over need not wait for this leader's lease,
    /// so nobody may rely on that lease any more when this is called.
    ///
    /// # Errors
    /// See [`HandOverError`].
    pub async fn hand_over(&self, willing: &[u64]) -> Result<u64, HandOverError> {
        let Mastery::Leader { token } = *self.mastery.borrow() else { return Err(HandOverError::NotLeader) };
        let mut successors = self.successors();
        successors.sort_by_key(|id| willing.iter().position(|other| other == id).unwrap_or(usize::MAX));
        if successors.is_empty() {
            return Err(HandOverError::NoFollower);
        }
        self.handing_over.begin(token.term);
        self.mastery.send_replace(Mastery::Follower { leader: None });

        // One that holds its vote after a start refuses, and one that is gone does not answer: then the next is asked.
        let patience = self.lease / 4;
        for to in &successors {
            let began = self.raft.trigger().transfer_leader(*to).await;
            began.map_err(|fatal| HandOverError::Dead { reason: fatal.to_string() })?;
            if let Some(leader) = self.leader_after(token, patience).await? {
                return Ok(leader);
            }
        }
        // Nobody has heard from this leader since, so an election is due when its lease would have ended.
        let rest = self.lease.saturating_sub(patience * u32::try_from(successors.len()).unwrap_or(u32::MAX));
        self.leader_after(token, rest.max(patience))
            .await?
            .ok_or(HandOverError::NotTaken { asked: successors })
    }

    /// Who leads after the mastery of `token`; `None` if this replica does not hear of one in time.
    async fn leader_after(
        &self,
        token: MasteryToken,
        patience: Duration,
    ) -> Result<Option<u64>, HandOverError> {
        let mut metrics = self.metrics.clone();
        let taken =
            metrics.wait_until(|metrics| metrics.vote.committed && metrics.vote.leader_id.term > token.term);
        match tokio::time::timeout(patience, taken).await {
            Ok(Ok(metrics)) => Ok(Some(metrics.vote.leader_id.voted_for)),
            Ok(Err(_stopped)) => Err(HandOverError::Dead { reason: "raft has stopped".to_owned() }),
            Err(_elapsed) => Ok(None),
        }
    }

    /// The other voters, the one that has most of the log first.
    fn successors(&self) -> Vec<u64> {
        let metrics = self.metrics.borrow_watched();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let progress = metrics.replication.iter().flatten();
        let followers = progress.filter(|(id, _)| **id != metrics.id && voters.contains(id));
        let mut followers: Vec<_> = followers.collect();
        followers.sort_by_key(|(id, matched)| (std::cmp::Reverse(**matched), **id));
        followers.into_iter().map(|(id, _)| *id).collect()
    }

    /// Stops taking part, and returns when the log is closed.
    pub async fn shutdown(self) {
        let Self { raft, service, tasks, log, .. } = self;
        tasks.cancel();
        // Before the wait for the tasks: streams to followers end only with openraft.
        if raft.shutdown().await.is_err() {
            tracing::warn!("raft ended in a panic");
        }
        if let Err(unfinished) = tasks.drain(DRAIN).await {
            tracing::warn!(%unfinished, "replica stops without them");
        }
        drop((raft, service));
        if let Some(log) = log {
            log.close().await;
        }
    }
}

async fn open_home(config: &ReplicaConfig, env: &Env) -> Result<(Home, Past), StartError> {
    if !config.peers.contains_key(&config.id) {
        return Err(StartError::Config(format!("replica {} is not among its cell's peers", config.id)));
    }
    let identity = Identity { cell: config.cell.clone(), id: config.id };
    Ok(Home::open(env.disk.clone(), &config.dir, identity).await?)
}

/// What the directory and the log together say of this replica.
async fn standing(log: &mut impl RaftLogStorage<Types>, past: Past) -> std::io::Result<Standing> {
    let has_entries = log.get_log_state().await?.last_log_id.is_some();
    let has_vote = log.get_log_reader().await.read_vote().await?.is_some();
    Ok(match past {
        Past::Rebuilding => Standing::Rebuilding { accepted: false },
        Past::None | Past::Member if has_entries || has_vote => Standing::Member,
        Past::Member => Standing::Founder,
        Past::None => Standing::Empty,
    })
}

/// Lets the replica stand for election once it may vote: never before what it promised earlier has run out.
async fn hold_votes<M: Machine>(raft: Raft<Types, Applier<M>>, gate: Arc<Gate>, hold: Duration) {
    let mut may_vote = gate.may_vote();
    let release = async {
        tokio::time::sleep(hold).await;
        gate.end_hold();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = may_vote.wait_for(|may_vote| *may_vote) => {}
        () = release => {}
    }
    raft.runtime_config().elect(true);
}
