//! What a replica tells its operators: over gRPC, as metrics, as readiness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::rate::Rate;
use hasp_proto::wire::admin::v1;
use hasp_rt::clock::Clock;
use hasp_rt::rpc::admin_server::Admin;
use hasp_rt::telemetry::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tonic::{Request, Response};

use super::CellConfig;
use super::sessions::MasterDriver;
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
    metrics: Metrics,
    gauges: Gauges,
}

struct Gauges {
    serving: Gauge,
    epoch: Gauge,
    sessions: Gauge,
    keep_alives: Gauge,
    requests: Gauge,
    applied: Gauge,
    nodes: Gauge,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.register(name, help, Gauge::default());
        Self {
            serving: gauge("cell_serving", "1 while this replica is the master"),
            epoch: gauge("cell_epoch", "Number of the mastership"),
            sessions: gauge("cell_sessions", "Sessions with the master"),
            keep_alives: gauge("cell_keepalives_received", "KeepAlives received since the start"),
            requests: gauge("cell_requests_received", "Requests received since the start"),
            applied: gauge("cell_applied_entries", "Index of the last log entry applied"),
            nodes: gauge("cell_nodes", "Files and directories"),
        }
    }
}

impl Status {
    pub(super) fn new(
        config: &CellConfig,
        address: String,
        driver: Arc<MasterDriver>,
        replica: Arc<Replica<State>>,
        dead: watch::Receiver<Option<String>>,
    ) -> Self {
        let metrics = Metrics::new();
        let gauges = Gauges::new(&metrics);
        let inner = Inner {
            cell: config.cell.clone(),
            id: config.id,
            address,
            driver,
            replica,
            dead,
            keep_alives: Mutex::new(Rate::over(WINDOW)),
            metrics,
            gauges,
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
    pub(super) async fn sample(self, clock: Arc<dyn Clock>) {
        loop {
            self.sample_once(&*clock);
            clock.sleep(Duration::from_secs(1)).await;
        }
    }

    fn sample_once(&self, clock: &dyn Clock) {
        let Inner { driver, replica, keep_alives, gauges, .. } = &*self.inner;
        let (is_serving, epoch, sessions, stats) = driver
            .inspect(|master| (master.is_serving(), master.epoch(), master.session_count(), master.stats()));
        keep_alives.lock().unwrap_or_else(PoisonError::into_inner).sample(clock.now(), stats.keepalives);
        let (nodes, applied) = replica.read(|state, applied| (state.node_count(), applied));
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&gauges.serving, u64::from(is_serving));
        set(&gauges.epoch, epoch.0);
        set(&gauges.sessions, sessions as u64);
        set(&gauges.keep_alives, stats.keepalives);
        set(&gauges.requests, stats.requests);
        set(&gauges.applied, applied);
        set(&gauges.nodes, nodes as u64);
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
            }
        })
    }
}

#[tonic::async_trait]
impl Admin for Status {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, tonic::Status> {
        let map = self.inner.driver.inspect(|master| hasp_proto::convert::map_to_wire(&master.map()));
        let server = Some(v1::status_reply::Server::Replica(self.report()));
        Ok(Response::new(v1::StatusReply { map: Some(map), server }))
    }
}
