//! Finds every server that can be found from some addresses, and asks each what it knows of itself.
//!
//! The map in any reply names all replicas of all cells; replicas and proxies name the proxies that have a session with
//! them, and proxies those that they are behind: a round for each layer finds all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hasp_proto::wire::admin::v1::status_reply::Server;
use hasp_proto::wire::admin::v1::{HostStatus, StatusReply, StatusRequest};
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::dial;

use crate::context::Context;

/// Most servers that are asked: a bound, not a plan.
const SERVERS_MAX: usize = 4_096;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// By the address that was asked: the answer, or why there is none.
    pub answers: BTreeMap<String, Result<StatusReply, String>>,
    /// Replicas that some map names: address and cell.
    pub replicas: BTreeMap<String, String>,
    /// Addresses that proxies and routers advertise, or are reached at by those behind them.
    pub proxies: BTreeSet<String>,
}

impl Found {
    /// Whether anybody answered.
    pub fn any_answered(&self) -> bool {
        self.answers.values().any(Result::is_ok)
    }

    /// Why those that did not answer did not.
    pub fn reasons(&self) -> Vec<String> {
        self.answers.values().filter_map(|answer| answer.clone().err()).collect()
    }

    /// How many hosts there are on the way from each proxy and router to a cell, itself included, by the address that was
    /// asked: 1 if it has its sessions with the cells. Of those that are behind others, only if one of these answers.
    pub fn layers(&self) -> BTreeMap<&str, usize> {
        let mut layers = BTreeMap::<&str, usize>::new();
        loop {
            let next: Vec<_> = self
                .hosts()
                .filter(|(address, _)| !layers.contains_key(address))
                .filter_map(|(address, host)| {
                    let above = host.upstream.iter().filter_map(|above| layers.get(above.as_str())).min();
                    let above = if host.upstream.is_empty() { 0 } else { *above? };
                    Some((address, above + 1))
                })
                .collect();
            if next.is_empty() {
                return layers;
            }
            layers.extend(next);
        }
    }

    fn hosts(&self) -> impl Iterator<Item = (&str, &HostStatus)> {
        self.answers.iter().filter_map(|(address, answer)| match answer {
            Ok(StatusReply { server: Some(Server::Host(host)), .. }) => Some((address.as_str(), host)),
            _ => None,
        })
    }

    /// Takes an answer in; gives the addresses that it names.
    fn take(&mut self, address: String, answer: Result<StatusReply, String>) -> Vec<String> {
        let mut named = Vec::new();
        if let Ok(reply) = &answer {
            for cell in reply.map.iter().flat_map(|map| &map.cells) {
                for replica in &cell.replicas {
                    self.replicas.insert(replica.clone(), cell.cell.clone());
                    named.push(replica.clone());
                }
            }
            let (above, below) = match &reply.server {
                Some(Server::Replica(replica)) => (&[][..], &replica.proxies[..]),
                Some(Server::Host(host)) => (&host.upstream[..], &host.proxies[..]),
                None => (&[][..], &[][..]),
            };
            self.proxies.extend(above.iter().chain(below).cloned());
            named.extend(above.iter().chain(below).cloned());
        }
        self.answers.insert(address, answer);
        named
    }
}

/// Asks the servers at `addresses`, those that they name, and so on; each this, and within `timeout`.
pub async fn gather(ctx: &Context, addresses: &[String], timeout: Duration, request: StatusRequest) -> Found {
    let mut found = Found::default();
    let mut asked = BTreeSet::new();
    let mut asking = FuturesUnordered::new();
    let mut named = addresses.to_vec();
    loop {
        for address in named.drain(..) {
            if asked.len() < SERVERS_MAX && asked.insert(address.clone()) {
                asking.push(async move {
                    let answer = ask(ctx, &address, timeout, request).await;
                    (address, answer)
                });
            }
        }
        let Some((address, answer)) = asking.next().await else { return found };
        named = found.take(address, answer);
    }
}

async fn ask(
    ctx: &Context,
    address: &str,
    timeout: Duration,
    request: StatusRequest,
) -> Result<StatusReply, String> {
    let asking = async {
        let connection = dial(&ctx.env, address, &Profile::clients(), timeout).await;
        let mut admin = connection.map_err(|error| error.to_string())?.admin();
        let reply = admin.status(request).await;
        reply.map_err(|status| format!("{address}: {}", status.message()))
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(format!("{address}: no answer in time")),
    }
}
