//! Connections to the other replicas.
//!
//! Three links lead to each peer, each a connection of its own, so that a snapshot or a burst of entries never delays a
//! heartbeat. A link is rebuilt after a call on it misses its deadline: a segment lost on the way may have wedged the
//! connection for good.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::{Connection, dial};
use tokio::sync::Mutex;
use tonic::{Response, Status};

use super::service::MESSAGE_BYTES_MAX;
use super::wire::pb;
use super::wire::pb::raft_client::RaftClient;

/// How replicas keep connections to one another; also for the listener that their service is mounted on.
pub fn profile() -> Profile {
    Profile {
        stream_window: 4 << 20,
        connection_window: 8 << 20,
        frame_bytes_max: 64 << 10,
        send_buffer_bytes: 4 << 20,
        message_bytes_max: MESSAGE_BYTES_MAX,
        keepalive_interval: Duration::from_secs(1),
        keepalive_timeout: Duration::from_secs(1),
        ..Profile::tier()
    }
}

/// A client of one peer.
pub type Client = RaftClient<Connection>;

/// One connection to one peer, made when it is first needed.
pub struct Link {
    env: Env,
    addressed: pb::Addressed,
    address: String,
    connection: Mutex<Option<Connection>>,
}

impl Link {
    /// Whom a call on this link is for, and from.
    pub fn addressed(&self) -> pb::Addressed {
        self.addressed.clone()
    }

    /// Where the peer is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The peer's id.
    pub fn target(&self) -> u64 {
        self.addressed.to
    }

    /// This replica's id.
    pub fn own_id(&self) -> u64 {
        self.addressed.from
    }

    /// Makes a call, connecting first if need be, and awaits it for `deadline` at most. The connection is abandoned
    /// when that is missed.
    ///
    /// # Errors
    /// What the call returned, `Unavailable` without a connection, or `DeadlineExceeded`.
    pub async fn call<T, F>(&self, deadline: Duration, call: impl FnOnce(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answered = tokio::time::timeout(deadline, async {
            let client =
                self.client(deadline).await.map_err(|error| Status::unavailable(error.to_string()))?;
            call(client).await
        });
        match answered.await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_elapsed) => {
                self.abandon().await;
                Err(Status::deadline_exceeded(format!("no answer from {} in {deadline:?}", self.address)))
            }
        }
    }

    /// Gives up the connection: the next call makes another.
    pub async fn abandon(&self) {
        self.connection.lock().await.take();
    }

    async fn client(&self, deadline: Duration) -> io::Result<Client> {
        let mut connection = self.connection.lock().await;
        let open = match connection.take().filter(|connection| !connection.is_closed()) {
            Some(open) => open,
            None => dial(&self.env, &self.address, &profile(), deadline).await?,
        };
        *connection = Some(open.clone());
        Ok(RaftClient::new(open).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// The links to one peer.
#[derive(Clone)]
pub struct Peer {
    /// Votes, heartbeats and everything else that is short and must not wait.
    pub control: Arc<Link>,
    /// The append stream.
    pub appends: Arc<Link>,
    /// Snapshots.
    pub snapshots: Arc<Link>,
}

/// The links to all peers, by id; this replica is not among them.
#[derive(Clone)]
pub struct Peers(Arc<BTreeMap<u64, Peer>>);

impl Peers {
    /// Links for replica `id` of `cell`; nothing is connected yet.
    pub fn new(cell: &str, id: u64, addresses: &BTreeMap<u64, String>, env: &Env) -> Self {
        let others = addresses.iter().filter(|(peer, _)| **peer != id);
        let links = others.map(|(peer, address)| {
            let link = || {
                Arc::new(Link {
                    env: env.clone(),
                    addressed: pb::Addressed { cell: cell.to_owned(), to: *peer, from: id },
                    address: address.clone(),
                    connection: Mutex::new(None),
                })
            };
            (*peer, Peer { control: link(), appends: link(), snapshots: link() })
        });
        Self(Arc::new(links.collect()))
    }

    /// The links to replica `id`, if the configuration names it.
    pub fn get(&self, id: u64) -> Option<&Peer> {
        self.0.get(&id)
    }

    /// All peers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Peer)> {
        self.0.iter().map(|(id, peer)| (*id, peer))
    }
}
