//! Which TCP connection a session's stream goes over: one of its own, or one shared with others.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::{Connection, dial};
use tokio::sync::OnceCell;

/// How sessions are put on connections. A clone is the same connections.
#[derive(Clone)]
pub struct Connections {
    pool: Arc<Pool>,
}

struct Pool {
    env: Env,
    profile: Profile,
    sessions_per_connection: usize,
    /// By address: the connections that have or may get room.
    shared: Mutex<BTreeMap<String, Vec<Arc<Shared>>>>,
}

/// A connection that is made when its first session needs it.
#[derive(Default)]
struct Shared {
    connection: OnceCell<Connection>,
    /// Counted under the pool's lock.
    sessions: Mutex<usize>,
}

/// A session's place on a connection. The connection is closed when the last one is dropped.
pub(super) struct Seat {
    pub(super) connection: Connection,
    _taken: Option<Taken>,
}

struct Taken {
    pool: Arc<Pool>,
    address: String,
    shared: Arc<Shared>,
}

impl Connections {
    /// A connection for every session, as real clients have.
    pub fn dedicated(env: &Env, profile: Profile) -> Self {
        Self::shared(env, profile, 1)
    }

    /// Up to `sessions_per_connection` sessions to one address share a connection: for load
    /// generators, which would run out of ports and memory otherwise.
    pub fn shared(env: &Env, profile: Profile, sessions_per_connection: usize) -> Self {
        let pool = Pool { env: env.clone(), profile, sessions_per_connection, shared: Mutex::default() };
        Self { pool: Arc::new(pool) }
    }

    pub(super) fn env(&self) -> &Env {
        &self.pool.env
    }

    pub(super) async fn take(&self, address: String, deadline: Duration) -> io::Result<Seat> {
        let pool = &self.pool;
        if pool.sessions_per_connection <= 1 {
            let connection = dial(&pool.env, &address, &pool.profile, deadline).await?;
            return Ok(Seat { connection, _taken: None });
        }
        let taken = pool.take(address);
        let dialing = || dial(&pool.env, &taken.address, &pool.profile, deadline);
        let connection = taken.shared.connection.get_or_try_init(dialing).await?.clone();
        Ok(Seat { connection, _taken: Some(taken) })
    }
}

impl Pool {
    fn take(self: &Arc<Self>, address: String) -> Taken {
        let mut all = self.lock();
        let connections = all.entry(address.clone()).or_default();
        connections.retain(|shared| !shared.is_closed());
        let with_room = connections.iter().find(|shared| *shared.sessions() < self.sessions_per_connection);
        let shared = with_room.cloned().unwrap_or_else(|| {
            let fresh = Arc::new(Shared::default());
            connections.push(fresh.clone());
            fresh
        });
        *shared.sessions() += 1;
        Taken { pool: self.clone(), address, shared }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Shared>>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.connection.get().is_some_and(Connection::is_closed)
    }

    fn sessions(&self) -> MutexGuard<'_, usize> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.pool.lock();
        let left = {
            let mut sessions = self.shared.sessions();
            *sessions -= 1;
            *sessions
        };
        if left == 0
            && let Some(connections) = all.get_mut(&self.address)
        {
            connections.retain(|shared| !Arc::ptr_eq(shared, &self.shared));
            if connections.is_empty() {
                all.remove(&self.address);
            }
        }
    }
}
