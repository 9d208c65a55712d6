//! What a relay shows to scrapers, looked up when one asks.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hasp_proto::time::Time;
use hasp_rt::telemetry::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;

use super::Relay;
use crate::relay::{RelayCore, RelayStatus};

/// How long a fan-out takes: from half a millisecond to half a minute and more.
pub(super) fn fan_out_times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 17))
}

/// Has the numbers of a relay shown.
pub(super) fn register(metrics: &Metrics, relay: &Arc<Relay>) {
    let fan_out = relay.driver.effects().fan_out.clone();
    let help = "From when a cell took back what is cached to when it was told that no copy is left";
    metrics.register_in(Unit::Seconds, "invalidation_fan_out", help, fan_out);
    metrics.register_collector(Box::new(RelayMetrics(Arc::downgrade(relay))));
}

/// The numbers of one relay.
struct RelayMetrics(Weak<Relay>);

impl fmt::Debug for RelayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayMetrics")
    }
}

impl Collector for RelayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(relay) = self.0.upgrade() else { return Ok(()) };
        let status = relay.status();
        gauges(&mut encoder, &relay, &status)?;
        counters(&mut encoder, &relay, &status)?;
        leases(&mut encoder, &relay)
    }
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, relay: &Relay, status: &RelayStatus) -> fmt::Result {
    let mut gauge = |name: &str, unit: Option<&Unit>, help: &str, value: usize| {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    };
    gauge("sessions", None, "Sessions of clients that stand", status.sessions)?;
    gauge("upstream_sessions", None, "Sessions with cells that stand", status.upstream_sessions)?;
    gauge("requests_in_flight", None, "Requests passed on and not answered", status.requests_in_flight)?;
    gauge("reads_shared", None, "Reads that wait for one that others asked", status.reads_shared)?;
    gauge("cache", Some(&Unit::Bytes), "What is cached, about", status.cache_bytes)?;
    let help = "Items that clients may cache, for each client";
    gauge("cache_registrations", None, help, status.registrations)?;
    let help = "Invalidations that cells told and that wait for clients";
    gauge("cache_rounds", None, help, status.rounds)?;
    let (items, bytes) = relay.clients().high_water();
    gauge("outbox_high_water_items", None, "Most items that ever waited for one client", items)?;
    let help = "Most that ever waited for one client";
    gauge("outbox_high_water", Some(&Unit::Bytes), help, bytes)
}

fn counters(encoder: &mut DescriptorEncoder<'_>, relay: &Relay, status: &RelayStatus) -> fmt::Result {
    let mut counter = |name: &str, help: &str, value: u64| {
        ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    };
    counter("keepalives", "KeepAlives received from clients", status.keepalives)?;
    counter("upstream_keepalives", "KeepAlives sent to cells", status.upstream_keepalives)?;
    counter("requests", "Requests received from clients", status.requests)?;
    counter("cache_hits", "Requests answered from the cache", status.hits)?;
    counter("cache_misses", "Reads that the cache could not answer", status.misses)?;
    counter("cache_invalidations", "Items that cells took back", status.invalidations)?;
    let help = "Invalidations received from cells, of any number of items";
    counter("upstream_invalidations", help, status.upstream_invalidations)?;
    counter("cache_evictions", "Names that had to make room in the cache", status.evictions)?;
    counter("sessions_expired", "Sessions of clients whose lease ran out", status.sessions_expired)?;
    let help = "Sessions of clients that a cell had ended";
    counter("sessions_expelled", help, status.sessions_expelled)?;
    let help = "Sessions of clients that came from another host";
    counter("sessions_taken_over", help, status.sessions_taken_over)?;
    let help = "Connections closed because too much waited for the client";
    counter("outbox_overflows", help, relay.overflows())
}

/// What is left of the leases at each cell; nothing of those where no session stands.
fn leases(encoder: &mut DescriptorEncoder<'_>, relay: &Relay) -> fmt::Result {
    let now = relay.clock.now();
    let ends = relay.driver.inspect(RelayCore::lease_ends);
    let mut family = |name: &str, help: &str, end: fn(&hasp_proto::lease::LeaseEnds) -> Time| {
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ends.iter().try_for_each(|(cell, ends)| {
            let left: Duration = end(ends).saturating_since(now);
            ConstGauge::new(left.as_secs_f64()).encode(family.encode_family(&[("cell", cell.as_str())])?)
        })
    };
    family("upstream_session_lease", "What is left of the session lease at a cell", |ends| ends.session)?;
    family("upstream_cache_lease", "What is left of the cache lease at a cell", |ends| ends.cache)
}
