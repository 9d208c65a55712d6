//! What a whole system in one process shows to scrapers: one family per number, one line per server.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::System;

/// The numbers of a system, looked up when somebody asks.
pub struct SystemMetrics(Weak<System>);

impl SystemMetrics {
    /// Of this system, for as long as it runs.
    pub fn of(system: &Arc<System>) -> Self {
        Self(Arc::downgrade(system))
    }
}

impl fmt::Debug for SystemMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemMetrics")
    }
}

/// One number of each server: which server, how much.
type Lines = Vec<(Vec<(&'static str, String)>, u64)>;

impl Collector for SystemMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(system) = self.0.upgrade() else { return Ok(()) };
        let replicas: Vec<_> = system.cells.iter().map(|cell| cell.status().report()).collect();
        let of_replicas = |number: &dyn Fn(&hasp_proto::wire::admin::v1::ReplicaStatus) -> u64| -> Lines {
            let labels = |r: &hasp_proto::wire::admin::v1::ReplicaStatus| {
                vec![("cell", r.cell.clone()), ("replica", r.id.to_string())]
            };
            replicas.iter().map(|replica| (labels(replica), number(replica))).collect()
        };
        let of_proxies = |number: &dyn Fn(&hasp_router::relay::RelayStatus) -> u64| -> Lines {
            let lower = if system.upper_proxies.is_empty() { 1 } else { 2 };
            let of = |proxies: &[hasp_proxy::Proxy], layer: u32| -> Lines {
                let labels = |proxy: &hasp_proxy::Proxy| {
                    vec![("address", proxy.local_address().to_owned()), ("layer", layer.to_string())]
                };
                proxies.iter().map(|proxy| (labels(proxy), number(&proxy.status()))).collect()
            };
            let mut lines = of(&system.upper_proxies, 1);
            lines.extend(of(&system.proxies, lower));
            lines
        };
        let mut gauge = |name: &str, help: &str, lines: Lines| {
            family(&mut encoder, MetricType::Gauge, name, help, &lines)
        };
        gauge("cell_serving", "1 at the master", of_replicas(&|r| u64::from(r.state == "master")))?;
        gauge("cell_epoch", "Number of the mastership", of_replicas(&|r| r.epoch))?;
        gauge("cell_sessions", "Sessions with the master", of_replicas(&|r| r.sessions))?;
        gauge("cell_applied_index", "Index of the last log entry applied", of_replicas(&|r| r.applied))?;
        gauge("cell_nodes", "Files and directories", of_replicas(&|r| r.nodes))?;
        gauge("proxy_sessions", "Sessions of clients", of_proxies(&|p| p.sessions as u64))?;
        gauge("proxy_upstream_sessions", "Sessions with cells", of_proxies(&|p| p.upstream_sessions as u64))?;
        let mut counter = |name: &str, help: &str, lines: Lines| {
            family(&mut encoder, MetricType::Counter, name, help, &lines)
        };
        counter("cell_keepalives", "KeepAlives received", of_replicas(&|r| r.keepalives_total))?;
        counter("proxy_keepalives", "KeepAlives received", of_proxies(&|p| p.keepalives))?;
        counter("proxy_requests", "Requests received", of_proxies(&|p| p.requests))
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &str,
    help: &str,
    lines: &Lines,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in lines {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let line = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(*value).encode(line)?,
            _ => ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(line)?,
        }
    }
    Ok(())
}
