//! Proxies.

use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core as _;
use hasp_proto::stream::Role;
use hasp_proto::time::Time;
use hasp_router::relay::{Input, RelayCore, RelayCoreConfig};
use hasp_router::upstream::{Hosts, UpstreamConfig};

use super::memo::Given;
use super::node::NodeId;
use super::world::{World, map};

/// What a proxy caches, at most.
const CACHE_BYTES: usize = 1 << 16;

impl World {
    /// One that is about to start.
    pub(super) fn new_proxy(index: usize) -> RelayCore {
        let seed = [100 + u8::try_from(index).expect("few"); 32];
        let upstream =
            UpstreamConfig::tier(Hosts::Cells(map()), Role::Proxy, &NodeId::Proxy(index).address(), seed);
        let config = RelayCoreConfig {
            upstream,
            map: map(),
            terms: LeaseTerms::default(),
            cache_bytes: Some(CACHE_BYTES),
        };
        let core = RelayCore::new(Time::ZERO, config);
        assert!(core.poll_timeout().is_some(), "it begins by itself");
        core
    }

    /// Hands inputs to a proxy and carries out what it wants.
    pub(super) fn proxy_hears(&mut self, index: usize, given: Option<Given<Input>>) {
        let node = NodeId::Proxy(index);
        let now = self.local(node);
        let Some(proxy) = &mut self.proxies[index] else { return };
        let effects = self.memo.relay(proxy, now, given.into_iter().collect());
        self.carry_out(node, &effects);
    }

    /// It dies for good.
    pub(super) fn kill(&mut self, index: usize) {
        self.proxies[index] = None;
        self.break_all(NodeId::Proxy(index));
    }
}
