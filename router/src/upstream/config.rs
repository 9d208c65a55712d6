//! Who holds sessions, where, and how.

use std::time::Duration;

use hasp_proto::limits::{GRACE, REQUESTS_IN_FLIGHT_PER_TIER};
use hasp_proto::partition::PartitionMap;
use hasp_proto::stream::Role;

use crate::ring::HostList;

/// As whom a proxy or router acts when it asks for itself.
const TIER_PRINCIPAL: &str = "tier";

/// Where sessions are held.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// At one of these proxies or routers: one session, and the host finds the cells. Which address
    /// is tried first follows from the session's id. The end of an application's session is final, unless
    /// it was made to rest; a relay's is followed by another.
    One(HostList),
    /// At each cell of the map; requests are routed here. A session that expires is followed by
    /// another.
    Cells(PartitionMap),
}

impl Hosts {
    /// Any of these.
    pub fn one(addresses: impl Into<HostList>) -> Self {
        Self::One(addresses.into())
    }
}

/// When sessions begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// All from the start, and again as soon as one has expired: for proxies and routers.
    AtOnce,
    /// Each when something is asked of it: for applications.
    AtFirstUse,
}

/// Who holds sessions, and how.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Where.
    pub hosts: Hosts,
    /// When they begin.
    pub begin: Begin,
    /// What the holder is.
    pub role: Role,
    /// As whom it acts.
    pub principal: String,
    /// Where its own clients reach it; empty for applications.
    pub advertise: String,
    /// How long a session in jeopardy looks for its host.
    pub grace: Duration,
    /// Secret, never used twice: session keys are derived from it.
    pub seed: [u8; 32],
    /// Spreads the pauses between attempts of many holders.
    pub jitter: u64,
    /// Requests that may wait at one session; more are answered with `RateLimited`, so that a cell
    /// that does not answer fills its own share and no other's (`route-7`).
    pub waiting_max: usize,
}

impl UpstreamConfig {
    /// An application's, with default times.
    pub fn application(hosts: Hosts, principal: &str, seed: [u8; 32]) -> Self {
        Self {
            hosts,
            begin: Begin::AtFirstUse,
            role: Role::Client,
            principal: principal.to_owned(),
            advertise: String::new(),
            grace: GRACE,
            jitter: u64::from_be_bytes(seed[..8].try_into().expect("8 of 32 bytes")),
            seed,
            waiting_max: REQUESTS_IN_FLIGHT_PER_TIER,
        }
    }

    /// A proxy's or router's, with default times: sessions at all cells of the map, or one at a host that has those.
    pub fn tier(hosts: Hosts, role: Role, advertise: &str, seed: [u8; 32]) -> Self {
        let sessions = match &hosts {
            Hosts::One(_) => 1,
            Hosts::Cells(map) => map.cells.len().max(1),
        };
        Self {
            begin: Begin::AtOnce,
            role,
            advertise: advertise.to_owned(),
            waiting_max: REQUESTS_IN_FLIGHT_PER_TIER / sessions,
            ..Self::application(hosts, TIER_PRINCIPAL, seed)
        }
    }
}
