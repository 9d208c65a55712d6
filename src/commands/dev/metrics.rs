//! What a whole system in one process shows to scrapers: one family per number, one line per server.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;

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
            let labels = |proxy: &hasp_proxy::Proxy| vec![("address", proxy.local_address().to_owned())];
            system.proxies.iter().map(|proxy| (labels(proxy), number(&proxy.status()))).collect()
        };
        let mut family = |name: &str, help: &str, lines: Lines| gauges(&mut encoder, name, help, &lines);
        family("cell_serving", "1 at the master", of_replicas(&|r| u64::from(r.state == "master")))?;
        family("cell_epoch", "Number of the mastership", of_replicas(&|r| r.epoch))?;
        family("cell_sessions", "Sessions with the master", of_replicas(&|r| r.sessions))?;
        family("cell_keepalives_received", "Since the start", of_replicas(&|r| r.keepalives_total))?;
        family("cell_applied_entries", "Index of the last log entry applied", of_replicas(&|r| r.applied))?;
        family("cell_nodes", "Files and directories", of_replicas(&|r| r.nodes))?;
        family("proxy_sessions", "Sessions of clients", of_proxies(&|p| p.sessions as u64))?;
        family(
            "proxy_upstream_sessions",
            "Sessions with cells",
            of_proxies(&|p| p.upstream_sessions as u64),
        )?;
        family("proxy_keepalives_received", "Since the start", of_proxies(&|p| p.keepalives))?;
        family("proxy_requests_received", "Since the start", of_proxies(&|p| p.requests))
    }
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, lines: &Lines) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in lines {
        let gauge =
            prometheus_client::metrics::gauge::ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        gauge.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
