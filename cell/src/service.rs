//! One replica as a server: its listener, its session streams, its place in the Raft group.
//!
//! It moves bytes between connections, the [`MasterCore`] and the [`Replica`], and decides nothing.

mod load;
mod metrics;
mod pump;
mod sessions;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_rt::admin;
use hasp_rt::driver::Driver;
use hasp_rt::env::Env;
use hasp_rt::rpc::health::Health;
use hasp_rt::rpc::session::HaspService;
use hasp_rt::rpc::{Profile, outboxes, server};
use hasp_rt::transport::Listener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::master::{MasterConfig, MasterCore};
use crate::replica::{Replica, ReplicaConfig, StartError, Timing};
use crate::state::State;

use metrics::Commits;
use pump::{Leave, Pump};
use sessions::{Effects, MasterDriver, Sessions};
pub use status::Status;

/// How long a stopping replica waits for a successor and for its tasks.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What one replica is told when it starts.
#[derive(Clone, Debug)]
pub struct CellConfig {
    /// The cell's name; a key of the map's cells.
    pub cell: CellName,
    /// This replica: its place among the cell's addresses in the map, from 1.
    pub id: u64,
    /// `host:port` to listen on.
    pub listen: String,
    /// `host:port` of the operators' HTTP port, if there is to be one.
    pub admin: Option<String>,
    /// The data directory.
    pub dir: PathBuf,
    /// Which cell owns what, and where all replicas are.
    pub map: PartitionMap,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Log entries between snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot, for replicas that lag a little. One that lags more gets the snapshot.
    pub keep_after_snapshot: u64,
}

impl CellConfig {
    /// A configuration with default times.
    pub fn new(cell: CellName, id: u64, listen: &str, dir: PathBuf, map: PartitionMap) -> Self {
        Self {
            cell,
            id,
            listen: listen.to_owned(),
            admin: None,
            dir,
            map,
            timing: Timing::default(),
            snapshot_after: 20_000,
            keep_after_snapshot: 2_000,
        }
    }

    fn addresses(&self) -> Result<BTreeMap<u64, String>, CellError> {
        let replicas =
            self.map.cells.get(&self.cell).ok_or_else(|| CellError::UnknownCell(self.cell.clone()))?;
        let addresses: BTreeMap<u64, String> = (1..).zip(replicas.iter().cloned()).collect();
        if !addresses.contains_key(&self.id) {
            return Err(CellError::UnknownReplica {
                id: self.id,
                cell: self.cell.clone(),
                count: replicas.len(),
            });
        }
        Ok(addresses)
    }

    /// The replica's own part of the world.
    fn world(&self, env: &Env) -> Env {
        env.child(&format!("{}-{}", self.cell, self.id))
    }

    fn replica(&self) -> Result<ReplicaConfig, CellError> {
        Ok(ReplicaConfig {
            timing: self.timing,
            snapshot_after: self.snapshot_after,
            keep_after_snapshot: self.keep_after_snapshot,
            ..ReplicaConfig::new(self.cell.as_str(), self.id, self.addresses()?, self.dir.clone())
        })
    }
}

/// Why a replica could not start. An operator acts.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The map has no such cell.
    #[error("cell {0} is not among the cells of the map")]
    UnknownCell(CellName),
    /// The cell has fewer replicas.
    #[error("replica {id} of cell {cell}: the map lists {count} replicas, numbered from 1")]
    UnknownReplica {
        /// The replica.
        id: u64,
        /// The cell.
        cell: CellName,
        /// How many it has.
        count: usize,
    },
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data directory or the log is not usable.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A running replica.
pub struct CellServer {
    address: String,
    admin: Option<String>,
    replica: Arc<Replica<State>>,
    status: Status,
    health: Health,
    driver: Arc<MasterDriver>,
    dead: watch::Receiver<Option<String>>,
    leave: mpsc::Sender<Leave>,
    env: Env,
}

impl CellServer {
    /// Binds, opens the data directory, and starts to take part in the cell.
    ///
    /// # Errors
    /// See [`CellError`].
    pub async fn start(config: CellConfig, env: &Env) -> Result<Self, CellError> {
        config.addresses()?;
        let listener = listen(env, &config.listen).await?;
        Self::start_on(listener, config, env).await
    }

    /// The same on a listener that is bound already, whatever the configuration says of it.
    ///
    /// # Errors
    /// See [`CellError`].
    pub async fn start_on(
        listener: Box<dyn Listener>,
        config: CellConfig,
        env: &Env,
    ) -> Result<Self, CellError> {
        let env = config.world(env);
        let replica = Replica::start(config.replica()?, env.clone());
        Self::begin(listener, config, env, replica).await
    }

    /// The same over a Raft log in memory, whose disk may lose what it was not told to sync.
    ///
    /// # Errors
    /// See [`CellError`].
    #[cfg(any(test, feature = "sim"))]
    pub async fn start_on_log(
        listener: Box<dyn Listener>,
        config: CellConfig,
        env: &Env,
        log: crate::replica::memory_log::MemoryLog,
    ) -> Result<Self, CellError> {
        let env = config.world(env);
        let replica = Replica::start_on(config.replica()?, env.clone(), log);
        Self::begin(listener, config, env, replica).await
    }

    async fn begin(
        listener: Box<dyn Listener>,
        config: CellConfig,
        env: Env,
        replica: impl Future<Output = Result<Replica<State>, StartError>>,
    ) -> Result<Self, CellError> {
        let addresses = config.addresses()?;
        let address = listener.local_address();
        let admin_listener = match &config.admin {
            Some(address) => Some(listen(&env, address).await?),
            None => None,
        };
        let replica = Arc::new(replica.await?);

        let (proposals, proposed) = mpsc::unbounded_channel();
        let core = master_core(&config, addresses, &env);
        let driver = Arc::new(Driver::new(core, Effects::new(proposals), env.clock.clone()));
        let (dead, is_dead) = watch::channel(None);
        let (leave, left) = mpsc::channel(1);
        let commits = Commits::default();
        let pump = Pump::new(
            replica.clone(),
            driver.clone(),
            config.timing,
            env.clock.clone(),
            commits.clone(),
            dead,
        );
        let sessions = Arc::new(Sessions::new(driver.clone(), pump.lease_view()));
        let status = Status::new(
            &config,
            address.clone(),
            driver.clone(),
            replica.clone(),
            is_dead.clone(),
            env.clock.clone(),
        );
        metrics::register(&status.metrics(), &driver, &replica, &commits);

        let token = env.tasks.token().clone();
        env.tasks.spawn("cell-timers", {
            let driver = driver.clone();
            async move { driver.run_timers(token).await }
        });
        let token = env.tasks.token().clone();
        env.tasks.spawn("cell-pump", async move {
            token.run_until_cancelled(pump.run(proposed, left)).await.unwrap_or(())
        });
        let token = env.tasks.token().clone();
        env.tasks.spawn("cell-rates", {
            let sampling = status.clone().sample();
            async move { token.run_until_cancelled(sampling).await.unwrap_or(()) }
        });

        let profile = Profile { connections_max: 50_000, ..Profile::tier() };
        let ready = status.clone();
        let health = Health::new(&env.tasks, move || ready.is_ready());
        let dispatch = server::Dispatch::new()
            .with_health(&health)
            .with(HaspService::server(sessions, outboxes::LIMITS, &profile))
            .with(hasp_rt::rpc::admin_server::AdminServer::new(status.clone()))
            .with(replica.service());
        let stalls = server::serve(&env.tasks, listener, dispatch, profile);
        let help = "Connections closed because the peer took nothing more";
        status.metrics().register("cell_write_stalls", help, stalls);

        let admin = admin_listener.map(|listener| {
            let address = listener.local_address();
            let health = health.clone();
            admin::serve(&env.tasks, listener, status.metrics(), move || health.is_serving());
            address
        });
        Ok(Self { address, admin, replica, status, health, driver, dead: is_dead, leave, env })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where operators' HTTP port is.
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// What it tells its operators.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Completes once the cell has a master that serves, as far as this replica knows.
    pub async fn ready(&self) {
        while !self.status.is_ready() {
            self.env.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Completes with the reason when the replica has to go out of service (P-STOP).
    pub async fn dead(&self) -> String {
        let mut dead = self.dead.clone();
        match dead.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the replica has stopped".to_owned(),
        }
    }

    async fn hand_over(&self) {
        let willing = self.replica.willing_successors().await;
        let (done, is_done) = oneshot::channel();
        if self.leave.send(Leave { willing, done }).await.is_err() {
            return; // The replica is dead.
        }
        let clock = &self.env.clock;
        tokio::select! {
            _done_or_dead = is_done => {}
            () = clock.sleep(STOP_PATIENCE) => tracing::warn!("stops without having handed over"),
        }
    }

    /// Hands mastership over if it has it, then stops: what was proposed comes to its end, another replica takes over,
    /// and clients are told where it is. Takes a few milliseconds, and some seconds at most.
    pub async fn shutdown(self) {
        self.health.stop();
        self.hand_over().await;
        if let Err(unfinished) = self.env.tasks.drain(STOP_PATIENCE).await {
            tracing::warn!(%unfinished, "stops without them");
        }
        drop((self.status, self.health, self.driver));
        match Arc::try_unwrap(self.replica) {
            Ok(replica) => replica.shutdown().await,
            Err(_) => tracing::warn!("the replica is still in use; its log is closed with the process"),
        }
    }
}

async fn listen(env: &Env, address: &str) -> Result<Box<dyn Listener>, CellError> {
    let listening = env.transport.listen(address).await;
    listening.map_err(|source| CellError::Listen { address: address.to_owned(), source })
}

fn master_core(config: &CellConfig, addresses: BTreeMap<u64, String>, env: &Env) -> MasterCore {
    let mut seeds = env.seeds.stream("handle-key");
    let handle_key = [seeds.random_16(), seeds.random_16()].concat();
    let master = MasterConfig {
        cell: config.cell.clone(),
        replica: config.id,
        addresses,
        map: config.map.clone(),
        handle_key: handle_key.into(),
        terms: LeaseTerms::default(),
    };
    MasterCore::new(master, config.timing.election_max)
}

#[cfg(test)]
mod tests;
