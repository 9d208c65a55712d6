//! What a replica tells its operators: over gRPC, as metrics, as readiness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::rate::Rate;
use hasp_proto::wire::admin::v1;
use hasp_rt::clock::Clock;
use hasp_rt::rpc::admin_server::Admin;
use hasp_rt::telemetry::Metrics;
use tokio::sync::watch;
use tonic::{Request, Response};

use super::sessions::MasterDriver;
use super::{CellConfig, load};
use crate::replica::{Replica, Standing};
use crate::state::State;

/// What rates are averaged over.
const WINDOW: Duration = Duration::from_secs(10);

/// A view of one replica. Cheap to clone.
#[derive(Clone)]
pub struct Status {
    inner: Arc<Inner>,
}

struct Inner {
    cell: CellName,
    id: u64,
    address: String,
    driver: Arc<MasterDriver>,
    replica: Arc<Replica<State>>,
    dead: watch::Receiver<Option<String>>,
    keep_alives: Mutex<Rate>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Status {
    pub(super) fn new(
        config: &CellConfig,
        address: String,
        driver: Arc<MasterDriver>,
        replica: Arc<Replica<State>>,
        dead: watch::Receiver<Option<String>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let inner = Inner {
            cell: config.cell.clone(),
            id: config.id,
            address,
            driver,
            replica,
            dead,
            keep_alives: Mutex::new(Rate::over(WINDOW)),
            clock,
            metrics: Metrics::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.inner.metrics.clone()
    }

    /// Whether the cell has a master that this replica knows: itself, serving, or another.
    pub fn is_ready(&self) -> bool {
        self.inner.driver.inspect(|master| {
            master.is_serving() || (!master.is_beginning() && master.master_address().is_some())
        })
    }

    /// Whether this replica is the master and serves.
    pub fn is_master(&self) -> bool {
        self.inner.driver.inspect(crate::master::MasterCore::is_serving)
    }

    /// The index of the last entry applied, and the checksum of the state there. Walks everything.
    #[cfg(any(test, feature = "sim"))]
    pub fn digest(&self) -> (u64, u64) {
        self.inner.replica.read(|state, applied| (applied, state.checksum()))
    }

    /// Samples the counters once a second.
    pub(super) async fn sample(self) {
        let clock = self.inner.clock.clone();
        loop {
            self.sample_once(&*clock);
            clock.sleep(Duration::from_secs(1)).await;
        }
    }

    fn sample_once(&self, clock: &dyn Clock) {
        let Inner { driver, keep_alives, .. } = &*self.inner;
        let received = driver.inspect(|master| master.stats().keepalives);
        keep_alives.lock().unwrap_or_else(PoisonError::into_inner).sample(clock.now(), received);
    }

    /// Everything, at this moment.
    pub fn report(&self) -> v1::ReplicaStatus {
        let Inner { cell, id, address, driver, replica, dead, keep_alives, .. } = &*self.inner;
        let raft = replica.status();
        let (nodes, epoch) = replica.read(|state, _| (state.node_count(), state.epoch()));
        let keepalives_per_s = keep_alives.lock().unwrap_or_else(PoisonError::into_inner).per_second();
        driver.inspect(|master| {
            let state = if dead.borrow().is_some() {
                "dead"
            } else if master.is_serving() {
                "master"
            } else if master.is_beginning() {
                "candidate"
            } else if matches!(raft.standing, Standing::Rebuilding { .. }) {
                "rebuilding"
            } else {
                "follower"
            };
            v1::ReplicaStatus {
                cell: cell.to_string(),
                id: *id,
                address: address.clone(),
                state: state.to_owned(),
                master: master.master_address().unwrap_or_default(),
                epoch: epoch.0,
                applied: raft.applied.map_or(0, |applied| applied.index),
                sessions: master.session_count() as u64,
                keepalives_total: master.stats().keepalives,
                keepalives_per_s: if master.is_serving() { keepalives_per_s } else { 0.0 },
                nodes: nodes as u64,
                proxies: master.tier_addresses(),
                load: None,
            }
        })
    }

    /// What load the cell bears, if this replica is its master.
    async fn load(&self) -> Option<v1::Load> {
        let Inner { driver, replica, clock, .. } = &*self.inner;
        let now = clock.now();
        let asked = driver.inspect(|master| master.is_serving().then(|| (master.load(now), master.map())));
        let (measured, map) = asked?;
        // Of what changes meanwhile nothing is seen, and nobody waits for the walk.
        let state = replica.read(|state, _| state.clone());
        Some(load::report(&state, &map, measured).await)
    }
}

#[tonic::async_trait]
impl Admin for Status {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, tonic::Status> {
        let map = self.inner.driver.inspect(|master| hasp_proto::convert::map_to_wire(&master.map()));
        let load = if request.get_ref().load { self.load().await } else { None };
        let report = v1::ReplicaStatus { load, ..self.report() };
        let server = Some(v1::status_reply::Server::Replica(report));
        Ok(Response::new(v1::StatusReply { map: Some(map), server }))
    }
}
