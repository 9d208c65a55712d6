//! What a replica shows to scrapers, looked up when one asks, and how long its log takes.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hasp_rt::telemetry::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;

use super::sessions::MasterDriver;
use crate::master::MasterCore;
use crate::replica::Replica;
use crate::state::State;

/// What became of the entries that this replica proposed. A clone counts for the same.
#[derive(Clone)]
pub(super) struct Commits {
    under_way: Gauge,
    committed: Counter,
    took: Histogram,
}

impl Commits {
    /// So many entries are proposed and not applied.
    pub(super) fn under_way(&self, entries: usize) {
        self.under_way.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// One was committed and applied, that long after it was proposed.
    pub(super) fn committed(&self, took: Duration) {
        self.committed.inc();
        self.took.observe(took.as_secs_f64());
    }
}

impl Default for Commits {
    fn default() -> Self {
        // From a tenth of a millisecond to a few seconds.
        let took = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        Self { under_way: Gauge::default(), committed: Counter::default(), took }
    }
}

/// Has the numbers of a replica shown.
pub(super) fn register(
    metrics: &Metrics,
    driver: &Arc<MasterDriver>,
    replica: &Arc<Replica<State>>,
    commits: &Commits,
) {
    let help = "Log entries proposed by this replica and not applied";
    metrics.register("cell_proposals_in_flight", help, commits.under_way.clone());
    let help = "Log entries proposed by this replica, committed and applied";
    metrics.register("cell_commits", help, commits.committed.clone());
    let help = "From when an entry was proposed to when it was committed and applied";
    metrics.register_in(Unit::Seconds, "cell_commit", help, commits.took.clone());
    if let Some(flushes) = replica.flushes() {
        let help = "From when entries were handed to the log to when they were on disk";
        metrics.register_in(Unit::Seconds, "cell_fsync", help, flushes);
    }
    let shown = CellMetrics { driver: Arc::downgrade(driver), replica: Arc::downgrade(replica) };
    metrics.register_collector(Box::new(shown));
}

/// The numbers of one replica.
struct CellMetrics {
    driver: Weak<MasterDriver>,
    replica: Weak<Replica<State>>,
}

impl fmt::Debug for CellMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CellMetrics")
    }
}

impl Collector for CellMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (Some(driver), Some(replica)) = (self.driver.upgrade(), self.replica.upgrade()) else {
            return Ok(());
        };
        let master = driver.inspect(MasterCore::status);
        let (nodes, applied) = replica.read(|state, applied| (state.node_count(), applied));
        let outboxes = driver.effects().outboxes();
        let (items, bytes) = outboxes.high_water();

        let mut gauge = |name: &str, unit: Option<&Unit>, help: &str, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
        };
        gauge("cell_serving", None, "1 while this replica is the master", u64::from(master.is_serving))?;
        gauge("cell_epoch", None, "Number of the mastership", master.epoch.0)?;
        gauge("cell_sessions", None, "Sessions with the master", master.sessions as u64)?;
        gauge("cell_lock_waits", None, "Requests that wait for locks", master.lock_waits as u64)?;
        let help = "Invalidations that wait for those who cache";
        gauge("cell_invalidation_rounds_open", None, help, master.rounds as u64)?;
        gauge("cell_applied_index", None, "Index of the last log entry applied", applied)?;
        gauge("cell_nodes", None, "Files and directories", nodes as u64)?;
        let help = "Most items that ever waited for one session";
        gauge("cell_outbox_high_water_items", None, help, items as u64)?;
        let help = "Most that ever waited for one session";
        gauge("cell_outbox_high_water", Some(&Unit::Bytes), help, bytes as u64)?;

        let mut counter = |name: &str, help: &str, value: u64| {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)
        };
        counter("cell_keepalives", "KeepAlives received", master.stats.keepalives)?;
        counter("cell_requests", "Requests received", master.stats.requests)?;
        counter("cell_sessions_expired", "Sessions whose lease ran out", master.stats.expired)?;
        counter("cell_invalidation_rounds", "Invalidations begun", master.rounds_begun)?;
        let help = "Connections closed because too much waited for the peer";
        counter("cell_outbox_overflows", help, outboxes.overflows())
    }
}
