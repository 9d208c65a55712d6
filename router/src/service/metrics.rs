//! What a relay shows to scrapers, looked up when one asks.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Relay;

/// The numbers of one relay.
pub(super) struct RelayMetrics(pub(super) Weak<Relay>);

impl fmt::Debug for RelayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayMetrics")
    }
}

impl Collector for RelayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(relay) = self.0.upgrade() else { return Ok(()) };
        let status = relay.status();
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("sessions", "Sessions of clients that stand", status.sessions)?;
        gauge("upstream_sessions", "Sessions with cells that stand", status.upstream_sessions)?;
        gauge("requests_in_flight", "Requests passed on and not answered", status.requests_in_flight)?;
        gauge("reads_shared", "Reads that wait for one that others asked", status.reads_shared)?;
        gauge("cache_bytes", "Bytes cached, about", status.cache_bytes)?;
        gauge("cache_registrations", "Items that clients may cache, for each client", status.registrations)?;
        gauge("cache_rounds", "Invalidations that cells told and that wait for clients", status.rounds)?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter("keepalives", "KeepAlives received from clients", status.keepalives)?;
        counter("upstream_keepalives", "KeepAlives sent to cells", status.upstream_keepalives)?;
        counter("requests", "Requests received from clients", status.requests)?;
        counter("cache_hits", "Requests answered from the cache", status.hits)?;
        counter("sessions_expired", "Sessions of clients whose lease ran out", status.sessions_expired)?;
        counter(
            "outbox_overflows",
            "Connections closed because too much waited for the client",
            relay.overflows(),
        )
    }
}
