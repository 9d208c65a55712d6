//! Takes in connections and hands their calls to gRPC services by path.
//!
//! A peer that sends garbage, nothing, or too much loses its own connection and nobody else's.
//! Over the limit of connections a new one is closed at once, so that its client tries elsewhere
//! instead of waiting. A peer that leaves unread what it is sent loses its connection too.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

use super::health::{self, Health};
use super::stalls::{Stalls, Unsent};
use super::{Executor, Profile};
use crate::tasks::Tasks;
use crate::transport::{Io, Listener};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait after a failed accept: the usual cause is too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Answer = BoxFuture<Response<Body>, Infallible>;

/// Where a request came from, as an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, for people.
    pub address: Arc<str>,
    /// Cancelled to close its connection: it is told to go and has [`Profile::shutdown_grace`].
    pub stop: CancellationToken,
}

impl Peer {
    /// Of a request that this server took in; empty for one made elsewhere.
    pub fn of<T>(request: &tonic::Request<T>) -> Peer {
        let peer = request.extensions().get().cloned();
        peer.unwrap_or_else(|| Peer { address: Arc::from(""), stop: CancellationToken::new() })
    }
}

/// The services of one listener, found by the first part of a call's path.
#[derive(Default)]
pub struct Dispatch {
    routes: Vec<(&'static str, Box<dyn Route>)>,
}

impl Dispatch {
    /// No services: every call is unimplemented.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated tonic server, under its own name.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.routes.push((S::NAME, Box::new(service)));
        self
    }

    /// Adds what every server answers: whether it serves, and what can be called on it.
    #[must_use]
    pub fn with_health(self, health: &Health) -> Self {
        self.with(health.server()).with(health::reflection())
    }

    fn call(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let name = path.strip_prefix('/').and_then(|path| path.split('/').next());
        match self.routes.iter().find(|(route, _)| Some(*route) == name) {
            Some((_, route)) => route.call(request),
            None => Box::pin(std::future::ready(Ok(tonic::Status::unimplemented("").into_http()))),
        }
    }
}

trait Route: Send + Sync {
    fn call(&self, request: Request<Incoming>) -> Answer;
}

impl<S> Route for S
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer>,
    S: Clone + Send + Sync,
{
    fn call(&self, request: Request<Incoming>) -> Answer {
        // Tonic's servers are ready always; a clone is a count.
        Service::call(&mut self.clone(), request)
    }
}

/// Serves in tasks of a scope of its own inside `tasks`, until that is cancelled.
///
/// Then it takes in nothing new, tells each peer to go, and gives open streams
/// [`Profile::shutdown_grace`] to end: whoever holds their outboxes should close them.
///
/// Gives the number of connections closed since the start because their peer did not read for
/// [`Profile::write_stall_max`], as a metric that may be registered.
pub fn serve(tasks: &Tasks, listener: Box<dyn Listener>, dispatch: Dispatch, profile: Profile) -> Counter {
    let host = Arc::new(Host {
        dispatch: Arc::new(dispatch),
        greeting: Arc::new(Semaphore::new(profile.greeting_at_once)),
        profile,
        tasks: tasks.child(),
        connections: AtomicUsize::new(0),
        stalls: Arc::default(),
    });
    let stalls = host.stalls.clone();
    let watching = stalls.clone().run(host.tasks.token().clone(), host.profile.write_stall_max);
    host.tasks.spawn("rpc-stalls", watching);
    host.clone().tasks.spawn("rpc-accept", host.accept(listener));
    stalls.count()
}

/// What all connections of one listener share.
struct Host {
    dispatch: Arc<Dispatch>,
    profile: Profile,
    tasks: Tasks,
    connections: AtomicUsize,
    /// For those who have not made their first call.
    greeting: Arc<Semaphore>,
    stalls: Arc<Stalls>,
}

impl Host {
    async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let token = self.tasks.token().clone();
        loop {
            let next = async {
                let place = Place::take(&self.greeting).await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = token.cancelled() => return,
                next = next => next,
            };
            match accepted {
                Ok((io, peer)) => self.admit(io, peer, place),
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, io: Io, peer: String, place: Place) {
        let seat = Seat::take(self);
        if seat.number >= self.profile.connections_max {
            tracing::debug!(peer, "too many connections");
            return;
        }
        self.tasks.spawn("rpc-connection", connection(seat, io, peer.into(), place));
    }

    fn builder(&self) -> http2::Builder<Executor> {
        let executor = Executor { tasks: self.tasks.clone(), name: "rpc-stream" };
        let profile = &self.profile;
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(profile.stream_window)
            .initial_connection_window_size(profile.connection_window)
            .max_frame_size(profile.frame_bytes_max)
            .max_header_list_size(profile.header_bytes_max)
            .max_send_buf_size(profile.send_buffer_bytes)
            .max_concurrent_streams(profile.streams_max)
            .keep_alive_interval(profile.keepalive_interval)
            .keep_alive_timeout(profile.keepalive_timeout)
            // Would be wall time, which nobody reads and no simulation repeats.
            .auto_date_header(false);
        builder
    }
}

/// One of the connections that the listener may have; given back however the connection ends.
struct Seat {
    host: Arc<Host>,
    number: usize,
}

impl Seat {
    fn take(host: &Arc<Host>) -> Self {
        let number = host.connections.fetch_add(1, Ordering::Relaxed);
        Self { host: host.clone(), number }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.host.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among those who have not made their first call; free again with that call, or after a while.
#[derive(Clone)]
struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    async fn take(places: &Arc<Semaphore>) -> Self {
        let permit = places.clone().acquire_owned().await.ok();
        Self(Arc::new(Mutex::new(permit)))
    }

    fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Reads what a client says first.
async fn prefaced(profile: &Profile, io: Io, place: &Place) -> Result<io::Result<Prefaced>, Elapsed> {
    let mut reading = std::pin::pin!(Prefaced::read(io));
    match tokio::time::timeout(profile.greeting_max, reading.as_mut()).await {
        Ok(read) => Ok(read),
        Err(_) => {
            place.leave();
            let left = profile.handshake_timeout.saturating_sub(profile.greeting_max);
            tokio::time::timeout(left, reading).await
        }
    }
}

async fn connection(seat: Seat, io: Io, address: Arc<str>, place: Place) {
    let profile = &seat.host.profile;
    let io = match prefaced(profile, io, &place).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return tracing::debug!(peer = %address, %error, "not a client"),
        Err(_) => return tracing::debug!(peer = %address, "said nothing"),
    };
    // A token of its own: a shared one would be a lock that all connections take at every step.
    let stop = seat.host.tasks.token().child_token();
    let peer = Peer { address: address.clone(), stop: stop.clone() };
    let watched = seat.host.stalls.watch(peer.clone());
    let unsent = watched.unsent().clone();
    let calls = Calls { dispatch: seat.host.dispatch.clone(), peer, unsent, place: place.clone() };
    let mut serving = std::pin::pin!(seat.host.builder().serve_connection(TokioIo::new(io), calls));
    // On the heap, and gone after the first moment.
    let mut greeting = Some(Box::pin(tokio::time::sleep(profile.greeting_max)));
    let ended = loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => break ended,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                break tokio::time::timeout(profile.shutdown_grace, serving).await.unwrap_or(Ok(()));
            }
            () = async { greeting.as_mut().expect("looked at only while it is there").await }, if greeting.is_some() => {
                greeting = None;
                place.leave();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}

/// The calls of one connection.
struct Calls {
    dispatch: Arc<Dispatch>,
    peer: Peer,
    unsent: Arc<Unsent>,
    place: Place,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        self.place.leave();
        request.extensions_mut().insert(self.peer.clone());
        let (answering, unsent) = (self.dispatch.call(request), self.unsent.clone());
        Box::pin(async move { Ok(answering.await?.map(|body| unsent.counting(body))) })
    }
}

/// A connection whose preface was read ahead, and is read again by who serves it.
struct Prefaced {
    io: Io,
    replayed: usize,
}

impl Prefaced {
    /// Waits for the preface, so that a silent or foreign peer costs no HTTP/2 state.
    async fn read(mut io: Io) -> io::Result<Self> {
        let mut bytes = [0; PREFACE.len()];
        io.read_exact(&mut bytes).await?;
        if bytes != *PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
        }
        Ok(Self { io, replayed: 0 })
    }
}

impl AsyncRead for Prefaced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &PREFACE[self.replayed..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.replayed += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefaced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
