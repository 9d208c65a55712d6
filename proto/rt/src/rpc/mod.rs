//! Hasp's gRPC: connections, the services on them, and the session stream.
//!
//! It knows messages as items to be moved in order and batches to be written at once; what an item
//! means is decided by the machines. hyper's HTTP/2 is used directly on both ends, because a
//! router, a buffer or a hidden reconnect per connection is what 90,000 connections cannot carry.

use std::time::Duration;

use hasp_proto::limits::LEASE_MAX;

use crate::tasks::Tasks;

pub mod client;
pub mod codec;
pub mod health;
pub mod outboxes;
pub mod server;
pub mod session;
mod stalls;

pub use stubs::admin::{admin_client, admin_server};
pub use stubs::hasp::{hasp_client, hasp_server};

/// Generated clients and servers.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod stubs {
    pub mod hasp {
        tonic::include_proto!("hasp.v1");
    }
    pub mod admin {
        tonic::include_proto!("hasp.admin.v1");
    }
}

/// How much one connection may cost, and how it is kept alive.
///
/// Windows bound what a peer can make this process hold; they are not allocated ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Bytes that one stream may have under way unread.
    pub stream_window: u32,
    /// The same for all streams of a connection together. Never under 1 MiB: h2 ends a connection
    /// whose unread small frames cost more than half of it.
    pub connection_window: u32,
    /// Largest frame, and so what one stream may send before others get their turn.
    pub frame_bytes_max: u32,
    /// Largest set of headers taken in.
    pub header_bytes_max: u32,
    /// Bytes that one stream may queue to be sent.
    pub send_buffer_bytes: usize,
    /// Largest message taken in or sent.
    pub message_bytes_max: usize,
    /// Most streams on one connection.
    pub streams_max: u32,
    /// Most connections to one listener.
    pub connections_max: usize,
    /// How long a connection may be silent before it is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long the sign of life may take.
    pub keepalive_timeout: Duration,
    /// How long a peer may leave what it is sent before its connection is closed; it is found at the
    /// latest a quarter of that later. A session stream with something unsent soon takes nothing in,
    /// KeepAlives included, so after the longest lease no session is left that the closing could hurt.
    pub write_stall_max: Duration,
    /// How long an accepted connection may take to say that it speaks HTTP/2.
    pub handshake_timeout: Duration,
    /// Connections that are taken in and have not made their first call. Others wait in the kernel, which takes in few
    /// more and has the rest try again later: of thousands that come at once those who are begun with get to their
    /// end, and none of the others costs anything.
    pub greeting_at_once: usize,
    /// How long such a one counts, so that those who say nothing hold up nobody for long.
    pub greeting_max: Duration,
    /// How long open streams may go on after the server was told to stop.
    pub shutdown_grace: Duration,
}

impl Profile {
    /// Between a host and applications: many, each small, and none trusted.
    pub fn clients() -> Self {
        Self {
            stream_window: 64 << 10,
            connection_window: 1 << 20,
            frame_bytes_max: 16 << 10,
            header_bytes_max: 8 << 10,
            send_buffer_bytes: 64 << 10,
            message_bytes_max: 1 << 20,
            streams_max: 20_000,
            connections_max: 50_000,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            write_stall_max: LEASE_MAX,
            handshake_timeout: Duration::from_secs(5),
            greeting_at_once: 128,
            greeting_max: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(1),
        }
    }

    /// Between proxies, routers and cells: few, each busy.
    pub fn tier() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            send_buffer_bytes: 1 << 20,
            message_bytes_max: 4 << 20,
            connections_max: 4_096,
            // Few connections, for each of which thousands wait.
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            ..Self::clients()
        }
    }
}

/// Runs hyper's own tasks as named ones.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
    name: &'static str,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn(self.name, future);
    }
}

#[cfg(test)]
mod tests;
