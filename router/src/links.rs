//! Carries out what an [`UpstreamCore`](crate::upstream::UpstreamCore) wants done with connections:
//! dials, sends, closes, and brings back what happens. Moves items and decides nothing.
//!
//! A link costs one task. What it carries upwards waits in an outbox; a host that does not read it
//! loses the connection.

mod pool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hasp_proto::client::PATIENCE_MAX;
use hasp_proto::limits::{OUTBOX_BYTES_TIER, OUTBOX_ITEMS};
use hasp_proto::stream::{Down, Up};
use hasp_proto::wire::v1;
use hasp_rt::outbox::{Full, Limits, Outbox};
use hasp_rt::rpc::session::SessionLink;
use tokio::sync::oneshot;

use crate::upstream::LinkId;
pub use pool::Connections;
use pool::Seat;

/// How long a connection, and then the stream on it, may take to stand: as long as any machine waits for them.
const OPEN_DEADLINE: Duration = PATIENCE_MAX;
/// Bytes of an item besides what [`Op::weight`](hasp_proto::request::Op::weight) counts.
const ITEM_BYTES: usize = 64;
/// Bytes of the client that a request is asked for.
const ON_BEHALF_BYTES: usize = 96;

/// Who is told what happens to links. Called from tasks, never from within [`Links`]' own methods.
pub trait LinkEvents: Send + Sync + 'static {
    /// The connection stands: what is sent from now on goes out with the stream that is opened on it.
    fn connected(&self, link: LinkId);

    /// Items came, in order; never none.
    fn received(&self, link: LinkId, items: Vec<Down>);

    /// The stream could not be opened, or is gone. The last that is said of the link.
    fn disconnected(&self, link: LinkId);
}

/// The open links of one holder of sessions.
pub struct Links {
    connections: Connections,
    events: Weak<dyn LinkEvents>,
    /// A handful: one per cell.
    open: Mutex<Vec<Open>>,
}

struct Open {
    link: LinkId,
    outbox: Arc<Outbox<v1::Up>>,
    /// Ends the link's task: with a word if that should be reported, dropped if not.
    stop: oneshot::Sender<Overflow>,
}

/// The host does not read what it is sent.
struct Overflow;

impl Links {
    /// No links yet. `events` is told of those to come, while it lives.
    pub fn new(connections: Connections, events: Weak<dyn LinkEvents>) -> Self {
        Self { connections, events, open: Mutex::default() }
    }

    /// Opens a link; its fate is told to the events.
    pub fn connect(&self, link: LinkId, address: String) {
        let limits = Limits { items_max: OUTBOX_ITEMS, bytes_max: OUTBOX_BYTES_TIER };
        let outbox = Arc::new(Outbox::new(limits));
        let (stop, stopped) = oneshot::channel();
        let mut open = self.open();
        // A session has one link at a time: an older one is gone, or given up.
        open.retain(|older| older.link.cell != link.cell);
        open.push(Open { link: link.clone(), outbox: outbox.clone(), stop });
        drop(open);
        let running = run(self.connections.clone(), address, outbox, link, self.events.clone(), stopped);
        self.connections.env().tasks.spawn("link", running);
    }

    /// Sends an item; dropped if the link is gone, which the events are told of anyway.
    pub fn send(&self, link: &LinkId, up: Up) {
        let weight = weight(&up);
        let mut open = self.open();
        let Some(index) = open.iter().position(|open| open.link == *link) else { return };
        match open[index].outbox.push(v1::Up::from(up), weight) {
            Ok(()) | Err(Full::Closed) => {}
            Err(full @ (Full::Items | Full::Bytes)) => {
                tracing::debug!(?link, %full, "host does not read, closing its connection");
                // Nobody to tell means that the link has ended by itself.
                let _ = open.swap_remove(index).stop.send(Overflow);
            }
        }
    }

    /// Closes a link. Nothing more is told of it, but for what is under way.
    pub fn disconnect(&self, link: &LinkId) {
        self.open().retain(|open| open.link != *link);
    }

    /// How many links stand or are being opened.
    pub fn count(&self) -> usize {
        self.open().iter().filter(|open| !open.stop.is_closed()).count()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(up: &Up) -> usize {
    match up {
        Up::Request(request) => {
            let on_behalf =
                request.on_behalf.as_ref().map_or(0, |client| client.principal.len() + ON_BEHALF_BYTES);
            request.op.weight() + on_behalf
        }
        Up::Hello(_) | Up::KeepAlive(_) | Up::Acknowledge(_) | Up::Cancel(_) | Up::EndSession => ITEM_BYTES,
    }
}

/// The life of one link.
async fn run(
    connections: Connections,
    address: String,
    outbox: Arc<Outbox<v1::Up>>,
    link: LinkId,
    events: Weak<dyn LinkEvents>,
    mut stopped: oneshot::Receiver<Overflow>,
) {
    // On the heap, so that a link that stands does not keep the room that opening it took.
    let halted = connections.env().tasks.token().clone();
    let opening = Box::pin(open(connections, address, outbox, &link, &events));
    let opened = tokio::select! {
        biased;
        () = halted.cancelled() => None,
        stop = &mut stopped => return report_overflow(stop.ok(), link, &events),
        opened = opening => opened,
    };
    if let Some((mut session, _seat)) = opened {
        loop {
            let items = tokio::select! {
                biased;
                () = halted.cancelled() => break,
                stop = &mut stopped => return report_overflow(stop.ok(), link, &events),
                items = receive(&mut session, &link) => items,
            };
            let (Some(items), Some(told)) = (items, events.upgrade()) else { break };
            told.received(link.clone(), items);
        }
    }
    if let Some(told) = events.upgrade() {
        told.disconnected(link);
    }
}

fn report_overflow(overflow: Option<Overflow>, link: LinkId, events: &Weak<dyn LinkEvents>) {
    if let (Some(Overflow), Some(told)) = (overflow, events.upgrade()) {
        told.disconnected(link);
    }
}

/// Connects, and opens the stream with what the machine says when it hears of the connection: a greeting that waited for
/// the stream to be answered would cost both ends a round trip.
async fn open(
    connections: Connections,
    address: String,
    outbox: Arc<Outbox<v1::Up>>,
    link: &LinkId,
    events: &Weak<dyn LinkEvents>,
) -> Option<(SessionLink, Seat)> {
    let seat = match connections.take(address, OPEN_DEADLINE).await {
        Ok(seat) => seat,
        Err(error) => {
            tracing::debug!(%error, "host not reached");
            return None;
        }
    };
    events.upgrade()?.connected(link.clone());
    match SessionLink::open(&seat.connection, outbox, OPEN_DEADLINE).await {
        Ok(session) => Some((session, seat)),
        Err(status) => {
            tracing::debug!(%status, "session stream not opened");
            None
        }
    }
}

/// The next items; `None` once the link is gone. Cancel-safe, since nothing is held over an await.
async fn receive(session: &mut SessionLink, link: &LinkId) -> Option<Vec<Down>> {
    let items = match session.receive().await {
        Ok(items) => items?,
        Err(status) => {
            tracing::debug!(?link, %status, "link broke");
            return None;
        }
    };
    let read: Result<Vec<Down>, _> = items.into_iter().map(Down::try_from).collect();
    read.inspect_err(|error| tracing::debug!(?link, %error, "host does not speak the protocol")).ok()
}
