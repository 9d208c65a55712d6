//! The session stream, both ends: items go in batches, in order, and nothing is decided here.
//!
//! At the host, the response stream of the call also reads the request stream, so a session costs
//! one task and each message one wake-up. At the client, what comes up is read from an outbox by
//! the connection itself, and what comes down by whoever holds the [`SessionLink`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use hasp_proto::wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::Profile;
use super::client::Connection;
use super::hasp_server::{Hasp, HaspServer};
use super::server::Peer;
use crate::outbox::{Limits, Outbox};

/// Batches taken in from one session before what is to be sent, and other sessions, get a turn.
const INBOUND_BATCHES_MAX: usize = 8;

/// Bytes of items that are put into one batch.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// What a host does with its sessions' connections. Called from many tasks; must not block.
pub trait SessionHandler: Send + Sync + 'static {
    /// A stream was opened. What is pushed into `outbox` is sent; closing it ends the stream after
    /// what it holds, abandoning it closes the whole connection. Returns the number under which the stream is known from now on.
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, peer: &str) -> u64;

    /// Items came in, in order; never none.
    fn received(&self, connection: u64, items: Vec<v1::Up>);

    /// The stream is gone. Called once, last.
    fn disconnected(&self, connection: u64);
}

/// Who knows where the master is and which cell owns what.
pub trait LocateHandler: Send + Sync + 'static {
    /// The answer at this moment.
    fn locate(&self) -> v1::LocateReply;
}

/// The gRPC service `hasp.v1.Hasp` over a handler.
pub struct HaspService<H> {
    handler: Arc<H>,
    limits: Limits,
}

impl<H: SessionHandler + LocateHandler> HaspService<H> {
    /// A server to be put into a [`Dispatch`](super::server::Dispatch). `limits` are those of the
    /// outbox of each session.
    pub fn server(handler: Arc<H>, limits: Limits, profile: &Profile) -> HaspServer<Self> {
        HaspServer::new(Self { handler, limits })
            .max_decoding_message_size(profile.message_bytes_max)
            .max_encoding_message_size(profile.message_bytes_max)
    }
}

#[tonic::async_trait]
impl<H: SessionHandler + LocateHandler> Hasp for HaspService<H> {
    type SessionStream = SessionStream<H>;

    async fn session(
        &self,
        request: Request<Streaming<v1::UpBatch>>,
    ) -> Result<Response<SessionStream<H>>, Status> {
        let peer = Peer::of(&request);
        let stream = SessionStream::new(self.handler.clone(), request.into_inner(), peer, self.limits);
        Ok(Response::new(stream))
    }

    async fn locate(&self, _: Request<v1::LocateRequest>) -> Result<Response<v1::LocateReply>, Status> {
        Ok(Response::new(self.handler.locate()))
    }
}

/// The host's end of one session stream: gives what is to be sent, takes in what comes.
pub struct SessionStream<H: SessionHandler> {
    handler: Arc<H>,
    connection: u64,
    outbox: Arc<Outbox<v1::Down>>,
    /// `None` once the client has said its last.
    inbound: Option<Streaming<v1::UpBatch>>,
    /// What the stream ends with.
    failure: Option<Status>,
    is_over: bool,
}

/// Whether more may be there to take in at once.
#[derive(PartialEq, Eq)]
enum Inbound {
    Waiting,
    More,
}

impl<H: SessionHandler> SessionStream<H> {
    /// Announces the stream to the handler.
    pub fn new(handler: Arc<H>, inbound: Streaming<v1::UpBatch>, peer: Peer, limits: Limits) -> Self {
        let outbox = Arc::new(Outbox::on(peer.stop, limits));
        let connection = handler.connected(outbox.clone(), &peer.address);
        Self { handler, connection, outbox, inbound: Some(inbound), failure: None, is_over: false }
    }

    fn take_in(&mut self, cx: &mut Context<'_>) -> Inbound {
        for _ in 0..INBOUND_BATCHES_MAX {
            let Some(inbound) = &mut self.inbound else { return Inbound::Waiting };
            match Pin::new(inbound).poll_next(cx) {
                Poll::Pending => return Inbound::Waiting,
                Poll::Ready(Some(Ok(batch))) if batch.items.is_empty() => {}
                Poll::Ready(Some(Ok(batch))) => self.handler.received(self.connection, batch.items),
                Poll::Ready(Some(Err(status))) => self.hear_the_last(Some(status)),
                Poll::Ready(None) => self.hear_the_last(None),
            }
        }
        Inbound::More
    }

    /// What is already in the outbox is still sent.
    fn hear_the_last(&mut self, failure: Option<Status>) {
        if let Some(status) = &failure {
            tracing::debug!(connection = self.connection, %status, "session stream broke");
        }
        self.inbound = None;
        self.failure = failure;
        self.outbox.close();
    }

    fn end(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.inbound = None;
            self.outbox.discard();
            self.handler.disconnected(self.connection);
        }
    }
}

impl<H: SessionHandler> Stream for SessionStream<H> {
    type Item = Result<v1::DownBatch, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let inbound = this.take_in(cx);
        match this.outbox.poll_take(cx, BATCH_BYTES_MAX) {
            Poll::Ready(Some(items)) => Poll::Ready(Some(Ok(v1::DownBatch { items }))),
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(this.failure.take().map(Err))
            }
            Poll::Pending => {
                if inbound == Inbound::More {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

// Not by pinning: nothing in it is pinned in place.
impl<H: SessionHandler> Unpin for SessionStream<H> {}

impl<H: SessionHandler> Drop for SessionStream<H> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The client's end of one session stream. Dropping it ends the stream and closes the outbox.
pub struct SessionLink {
    inbound: Streaming<v1::DownBatch>,
    outbox: Arc<Outbox<v1::Up>>,
}

impl SessionLink {
    /// Opens a stream on `connection` and sends on it what is pushed into `outbox`.
    ///
    /// # Errors
    /// If the host does not answer within `deadline` or refuses.
    pub async fn open(
        connection: &Connection,
        outbox: Arc<Outbox<v1::Up>>,
        deadline: Duration,
    ) -> Result<Self, Status> {
        let mut client = connection.hasp();
        let opening = client.session(UpStream { outbox: outbox.clone() });
        let late = |_| Status::deadline_exceeded("the session stream was not opened in time");
        let response = tokio::time::timeout(deadline, opening).await.map_err(late)??;
        Ok(Self { inbound: response.into_inner(), outbox })
    }

    /// The next items, in order; `None` once the host has ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// If the stream or its connection broke.
    pub async fn receive(&mut self) -> Result<Option<Vec<v1::Down>>, Status> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`receive`](Self::receive).
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<v1::Down>>, Status>> {
        let next = std::task::ready!(Pin::new(&mut self.inbound).poll_next(cx));
        Poll::Ready(next.transpose().map(|batch| batch.map(|batch| batch.items)))
    }
}

impl Drop for SessionLink {
    fn drop(&mut self) {
        // The connection itself reads the outbox, and would go on waiting for it.
        self.outbox.discard();
    }
}

/// What is pushed into an outbox, as the request stream of a call.
struct UpStream {
    outbox: Arc<Outbox<v1::Up>>,
}

impl Stream for UpStream {
    type Item = v1::UpBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<v1::UpBatch>> {
        let taken = self.outbox.poll_take(cx, BATCH_BYTES_MAX);
        taken.map(|batch| batch.map(|items| v1::UpBatch { items }))
    }
}

impl Drop for UpStream {
    fn drop(&mut self) {
        self.outbox.discard();
    }
}
