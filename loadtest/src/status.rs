//! Asking servers what they count, over the service that operators use.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_proto::wire::admin::v1::{StatusReply, StatusRequest, status_reply};
use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::{Connection, dial};

/// How long a server may take to be connected to, and to answer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What the load test wants to know of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// Of a replica.
    pub cell: Option<String>,
    /// Of a replica, as it says itself: `master`, `follower` and others. Of others their role.
    pub state: String,
    /// Of a replica: the mastership it knows.
    pub epoch: u64,
    /// Of a replica: commands applied.
    pub applied: u64,
    /// Sessions that it grants.
    pub sessions: u64,
    /// KeepAlives that it has received.
    pub keep_alives: u64,
    /// Of a proxy: the hosts with one of which it has its session; none if it has one with each cell.
    pub upstream: Vec<String>,
    /// Replicas of each cell, as its partition map says.
    pub cells: BTreeMap<String, Vec<String>>,
    /// The shortest prefix that each cell owns.
    pub prefixes: BTreeMap<String, String>,
}

impl ServerStatus {
    /// Whether it is the master of its cell.
    pub fn is_master(&self) -> bool {
        self.cell.is_some() && self.state == "master"
    }
}

impl TryFrom<StatusReply> for ServerStatus {
    type Error = anyhow::Error;

    fn try_from(reply: StatusReply) -> anyhow::Result<Self> {
        let map = reply.map.unwrap_or_default();
        let mut prefixes = BTreeMap::new();
        for rule in map.rules {
            let shortest = prefixes.entry(rule.cell).or_insert_with(|| rule.prefix.clone());
            if rule.prefix.len() < shortest.len() {
                *shortest = rule.prefix;
            }
        }
        let cells = map.cells.into_iter().map(|cell| (cell.cell, cell.replicas)).collect();
        match reply.server {
            Some(status_reply::Server::Replica(replica)) => Ok(Self {
                cell: Some(replica.cell),
                state: replica.state,
                epoch: replica.epoch,
                applied: replica.applied,
                sessions: replica.sessions,
                keep_alives: replica.keepalives_total,
                upstream: Vec::new(),
                cells,
                prefixes,
            }),
            Some(status_reply::Server::Host(host)) => Ok(Self {
                state: host.role,
                sessions: host.sessions,
                keep_alives: host.keepalives_total,
                upstream: host.upstream,
                cells,
                prefixes,
                ..Self::default()
            }),
            None => bail!("the server says neither that it is a replica nor what else"),
        }
    }
}

/// Asks servers, over one connection each that is kept.
pub struct StatusReader {
    env: Env,
    connections: BTreeMap<String, Connection>,
}

impl StatusReader {
    /// Connected to nobody yet.
    pub fn new(env: Env) -> Self {
        Self { env, connections: BTreeMap::new() }
    }

    /// Asks the server at `address`.
    ///
    /// # Errors
    /// It is not reached or does not answer in time.
    pub async fn ask(&mut self, address: &str) -> anyhow::Result<ServerStatus> {
        let connection = self.connection(address).await?;
        let mut admin = connection.admin();
        let asked = tokio::time::timeout(ASK_DEADLINE, admin.status(StatusRequest::default())).await;
        let reply = asked.with_context(|| format!("ask {address} for its status: no answer in time"))?;
        reply.with_context(|| format!("ask {address} for its status"))?.into_inner().try_into()
    }

    /// Asks all of these; those that do not answer are left out.
    pub async fn ask_all(&mut self, addresses: &[String]) -> BTreeMap<String, ServerStatus> {
        let mut answers = BTreeMap::new();
        for address in addresses {
            match self.ask(address).await {
                Ok(status) => {
                    answers.insert(address.clone(), status);
                }
                Err(error) => tracing::debug!(address, %error, "no status"),
            }
        }
        answers
    }

    async fn connection(&mut self, address: &str) -> anyhow::Result<Connection> {
        if let Some(open) = self.connections.get(address).filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let open = dial(&self.env, address, &Profile::clients(), ASK_DEADLINE).await?;
        self.connections.insert(address.to_owned(), open.clone());
        Ok(open)
    }
}
