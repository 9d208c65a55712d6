//! A proxy: one host in front of the cells for many clients, so that the masters see its few sessions
//! instead of theirs (design §2).
//!
//! It holds no state of the service and decides nothing itself: what it does for its clients, and what it
//! caches for them, is [`hasp_router::relay`]'s.

use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proto::stream::Role;
use hasp_router::relay::RelayStatus;
use hasp_router::service::{RelayConfig, RelayServer, StartError};
use hasp_rt::env::Env;
use hasp_rt::tasks::Unfinished;

/// What a proxy is and where.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where it listens, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where its clients reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// Which cell owns which names, and where the cells are.
    pub map: PartitionMap,
    /// Proxies or routers that stand before the cells, if it is to be behind those.
    pub upstream: Vec<String>,
    /// Where it shows operators' tools what it does, if anywhere.
    pub admin: Option<String>,
    /// What it grants to its clients.
    pub terms: LeaseTerms,
}

/// A proxy that runs. It goes on if this is dropped; it ends with the tasks of its world.
pub struct Proxy {
    relay: RelayServer,
}

impl Proxy {
    /// Starts to listen and to look for the cells. Clients are refused until one of them is found.
    ///
    /// # Errors
    /// An address is taken or not ours.
    pub async fn start(config: ProxyConfig, env: &Env) -> Result<Self, StartError> {
        let ProxyConfig { listen, advertise, map, upstream, admin, terms } = config;
        let config = RelayConfig { role: Role::Proxy, listen, advertise, map, upstream, admin, terms };
        Ok(Self { relay: RelayServer::start(config, env).await? })
    }

    /// Where it listens, with the real port.
    pub fn local_address(&self) -> &str {
        self.relay.local_address()
    }

    /// Where operators' HTTP port is, with the real port.
    pub fn admin_address(&self) -> Option<&str> {
        self.relay.admin_address()
    }

    /// Counts at this moment.
    pub fn status(&self) -> RelayStatus {
        self.relay.status()
    }

    /// Completes once each cell has welcomed it, or it was told to stop.
    pub async fn ready(&self) {
        self.relay.ready().await;
    }

    /// Sends the clients elsewhere, ends the sessions with the cells, stops.
    ///
    /// # Errors
    /// The tasks that did not end.
    pub async fn shutdown(self) -> Result<(), Unfinished> {
        self.relay.shutdown().await
    }
}
