//! Finds the peers that do not read what they are sent, and has their connections closed.
//!
//! HTTP/2 lets a peer leave a stream unread for ever while it goes on answering pings. So every
//! piece of a response is counted from when it is handed to HTTP/2 until flow control has let all
//! of it go. Time is counted in rounds of the listener: a piece knows only in which round it came,
//! so nothing is timed per message, per stream or per connection. What a piece says is not known
//! here, nor whether the bytes arrive: a peer that is gone is found by the pings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::server::Peer;

/// Whole rounds that a piece may wait.
const ROUNDS: u32 = 4;
/// Rounds told apart: those that a piece may wait, the one in which it came, and the present one.
const SLOTS: usize = ROUNDS as usize + 2;

/// The connections of one listener.
#[derive(Default)]
pub(super) struct Stalls {
    /// Connections closed because their peer did not read.
    count: Counter,
    last: AtomicU64,
    watched: Mutex<BTreeMap<u64, Connection>>,
}

struct Connection {
    unsent: Arc<Unsent>,
    peer: Peer,
}

/// A connection that is looked at until this is dropped.
pub(super) struct Watched {
    stalls: Arc<Stalls>,
    number: u64,
    unsent: Arc<Unsent>,
}

impl Stalls {
    /// Connections closed because their peer did not read, since the start.
    pub(super) fn count(&self) -> Counter {
        self.count.clone()
    }

    /// Looks at the connection of `peer` from now on, and closes it once the peer has stalled.
    pub(super) fn watch(self: &Arc<Self>, peer: Peer) -> Watched {
        let unsent = Arc::<Unsent>::default();
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.watched().insert(number, Connection { unsent: unsent.clone(), peer });
        Watched { stalls: self.clone(), number, unsent }
    }

    /// Goes round after round until `token` is cancelled. A peer is given up once it has left
    /// something for `stall_max`, and at the latest a quarter of that later.
    pub(super) async fn run(self: Arc<Self>, token: CancellationToken, stall_max: Duration) {
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(stall_max / ROUNDS) => self.begin_round(),
            }
        }
    }

    fn begin_round(&self) {
        self.watched().retain(|_, connection| {
            let is_stalled = connection.unsent.begin_round();
            if is_stalled {
                tracing::debug!(peer = %connection.peer.address, "peer does not read, closing its connection");
                self.count.inc();
                connection.peer.stop.cancel();
            }
            !is_stalled
        });
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// What is counted of this connection.
    pub(super) fn unsent(&self) -> &Arc<Unsent> {
        &self.unsent
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stalls.watched().remove(&self.number);
    }
}

/// How many pieces of one connection's responses wait in HTTP/2, by the round in which they came.
#[derive(Default)]
pub(super) struct Unsent {
    round: AtomicUsize,
    pieces: [AtomicU32; SLOTS],
}

impl Unsent {
    /// The same response, its pieces counted.
    pub(super) fn counting(self: &Arc<Self>, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let unsent = self.clone();
        Body::new(body.map_frame(move |frame| frame.map_data(|bytes| unsent.counted(bytes))))
    }

    fn counted(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let slot = self.round.load(Ordering::Relaxed) % SLOTS;
        self.pieces[slot].fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Piece { bytes, unsent: self.clone(), slot })
    }

    /// Whether a piece that came [`ROUNDS`] whole rounds ago, or before, still waits.
    fn begin_round(&self) -> bool {
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        // The slot that the next round will use again.
        self.pieces[(round + 1) % SLOTS].load(Ordering::Relaxed) > 0
    }
}

/// A piece of a response; dropped once flow control has let all of it go, or with its connection.
struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
    slot: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.pieces[self.slot].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(unsent: &Arc<Unsent>) -> Bytes {
        unsent.counted(Bytes::from_static(b"piece"))
    }

    /// Begins this many rounds, all without a stall.
    fn pass(unsent: &Unsent, rounds: u32) {
        for _ in 0..rounds {
            assert!(!unsent.begin_round());
        }
    }

    #[test]
    fn a_piece_may_wait_so_many_whole_rounds_and_no_longer() {
        let unsent = Arc::<Unsent>::default();
        // Whatever the round.
        for _ in 0..2 * SLOTS {
            let piece = piece(&unsent);
            pass(&unsent, ROUNDS);
            assert!(unsent.begin_round());
            drop(piece);
            pass(&unsent, 1);
        }
    }

    #[test]
    fn pieces_that_go_in_time_are_no_stall_however_many_follow() {
        let unsent = Arc::<Unsent>::default();
        let mut last = piece(&unsent);

        for _ in 0..100 {
            pass(&unsent, ROUNDS);
            last = piece(&unsent);
        }

        assert_eq!(last, b"piece"[..]);
    }

    #[test]
    fn a_part_of_a_piece_counts_until_it_is_gone() {
        let unsent = Arc::<Unsent>::default();
        let mut piece = piece(&unsent);
        let rest = piece.split_off(2);
        drop(piece);

        pass(&unsent, ROUNDS);

        assert!(unsent.begin_round());
        drop(rest);
        pass(&unsent, 1);
    }

    #[test]
    fn only_the_connection_that_stalls_is_stopped_and_counted_once() {
        let stalls = Arc::<Stalls>::default();
        let peer = || Peer { address: Arc::from(""), stop: CancellationToken::new() };
        let (slow, other) = (peer(), peer());
        let watched = stalls.watch(slow.clone());
        let _other = stalls.watch(other.clone());
        let _piece = piece(watched.unsent());

        for _ in 0..3 * SLOTS {
            stalls.begin_round();
        }

        assert!(slow.stop.is_cancelled() && !other.stop.is_cancelled());
        assert_eq!(stalls.count().get(), 1);
    }
}
