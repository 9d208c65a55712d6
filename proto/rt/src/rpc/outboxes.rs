//! The outboxes of a host's session streams, by connection: where its machine's items go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::{Full, Limits, Outbox};
use hasp_proto::limits::{OUTBOX_BYTES_CLIENT, OUTBOX_BYTES_TIER, OUTBOX_ITEMS};
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::Down;
use hasp_proto::wire::v1;

/// What one outbox may hold: as much as a proxy or router needs. Clients get less, see [`Outboxes::send`].
pub const LIMITS: Limits = Limits { items_max: OUTBOX_ITEMS, bytes_max: OUTBOX_BYTES_TIER };

/// All connections that stand.
#[derive(Default)]
pub struct Outboxes {
    last: AtomicU64,
    overflows: AtomicU64,
    items_high: AtomicUsize,
    bytes_high: AtomicUsize,
    connected: Mutex<BTreeMap<ConnectionId, Peer>>,
}

struct Peer {
    outbox: Arc<Outbox<v1::Down>>,
    /// What may wait to be read by it.
    bytes_max: usize,
}

impl Outboxes {
    /// Takes a connection in, under a number that was never used.
    pub fn add(&self, outbox: Arc<Outbox<v1::Down>>) -> ConnectionId {
        let connection = ConnectionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.connected().insert(connection, Peer { outbox, bytes_max: OUTBOX_BYTES_CLIENT });
        connection
    }

    /// The connection is gone.
    pub fn remove(&self, connection: ConnectionId) {
        self.connected().remove(&connection);
    }

    /// It speaks for a proxy or router, which reads for many.
    pub fn is_tier(&self, connection: ConnectionId) {
        if let Some(peer) = self.connected().get_mut(&connection) {
            peer.bytes_max = OUTBOX_BYTES_TIER;
        }
    }

    /// Queues an item. A client that does not read loses its connection, and nothing else.
    pub fn send(&self, connection: ConnectionId, down: Down) {
        let connected = self.connected();
        let Some(Peer { outbox, bytes_max }) = connected.get(&connection) else { return };
        let weight = down.weight();
        let (items, bytes) = outbox.waiting();
        raise(&self.items_high, items + 1);
        raise(&self.bytes_high, bytes + weight);
        let is_full = weight + bytes > *bytes_max;
        let pushed = if is_full { Err(Full::Bytes) } else { outbox.push(v1::Down::from(down), weight) };
        match pushed {
            Ok(()) | Err(Full::Closed) => {}
            Err(full @ (Full::Items | Full::Bytes)) => {
                tracing::debug!(connection = connection.0, %full, "client does not read, closing its connection");
                self.overflows.fetch_add(1, Ordering::Relaxed);
                outbox.abandon();
            }
        }
    }

    /// Ends the connection after what is queued.
    pub fn close(&self, connection: ConnectionId) {
        if let Some(peer) = self.connected().get(&connection) {
            peer.outbox.close();
        }
    }

    /// Connections closed because too much waited for their client, since the start.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// The most items and the most bytes that ever waited for one connection.
    pub fn high_water(&self) -> (usize, usize) {
        (self.items_high.load(Ordering::Relaxed), self.bytes_high.load(Ordering::Relaxed))
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Peer>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(high: &AtomicUsize, level: usize) {
    // Looked at first: it is read by all and rarely written.
    if level > high.load(Ordering::Relaxed) {
        high.fetch_max(level, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::error::ErrorCode;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn outbox(outboxes: &Outboxes) -> (ConnectionId, Arc<Outbox<v1::Down>>, CancellationToken) {
        let stop = CancellationToken::new();
        let outbox = Arc::new(Outbox::on(stop.clone(), LIMITS));
        (outboxes.add(outbox.clone()), outbox, stop)
    }

    fn large() -> Down {
        Down::Refused(ErrorCode::Unavailable.because("x".repeat(1 << 20)))
    }

    #[test]
    fn a_client_that_does_not_read_loses_its_connection_and_nobody_elses() {
        let outboxes = Outboxes::default();
        let (slow, slow_outbox, slow_stop) = outbox(&outboxes);
        let (other, other_outbox, other_stop) = outbox(&outboxes);

        for _ in 0..8 {
            outboxes.send(slow, large());
        }
        outboxes.send(other, large());

        assert!(slow_outbox.is_closed() && slow_outbox.bytes() == 0, "nothing is kept for it");
        assert!(slow_stop.is_cancelled(), "its connection is closed, whatever HTTP/2 still holds");
        assert_eq!(outboxes.overflows(), 1);
        let (items, bytes) = outboxes.high_water();
        assert_eq!(items, bytes >> 20, "of a mebibyte each, and a little");
        assert!(items >= 4, "{items}");
        assert!(!other_outbox.is_closed() && !other_stop.is_cancelled());
    }

    #[test]
    fn a_proxy_may_leave_more_unread_than_a_client() {
        let outboxes = Outboxes::default();
        let (proxy, proxy_outbox, stop) = outbox(&outboxes);
        outboxes.is_tier(proxy);

        for _ in 0..8 {
            outboxes.send(proxy, large());
        }

        assert!(!proxy_outbox.is_closed() && !stop.is_cancelled());
        assert_eq!(outboxes.overflows(), 0);
    }
}
