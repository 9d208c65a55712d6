//! One connection to one host: opened once, shared by many sessions, and gone when it is gone.
//!
//! There is no hidden reconnect and no queue: who is connected to whom is decided by the machines,
//! so they must learn of every loss.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

use super::admin_client::AdminClient;
use super::hasp_client::HaspClient;
use super::hasp_server::SERVICE_NAME;
use super::{Executor, Profile};
use crate::env::Env;
use crate::tasks::Tasks;

/// An open connection, to be handed to generated clients. A clone is the same connection; it is
/// closed once the last clone and the last stream on it are dropped.
#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
    authority: Authority,
    message_bytes_max: usize,
    closed: CancellationToken,
}

/// Connects to `address` within `deadline`.
///
/// That the other end speaks HTTP/2 shows at the first call.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] past the deadline, else why nobody was reached; names the address.
pub async fn dial(env: &Env, address: &str, profile: &Profile, deadline: Duration) -> io::Result<Connection> {
    let connect = async {
        let io = env.transport.connect(address).await?;
        let shaken = builder(profile, &env.tasks).handshake(TokioIo::new(io)).await;
        shaken.map_err(|error| io::Error::other(format!("connect to {address}: {error}")))
    };
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("connect to {address}: no answer in time"));
    let (sender, driver) = tokio::time::timeout(deadline, connect).await.map_err(late)??;
    let closed = CancellationToken::new();
    let (guard, stop) = (closed.clone().drop_guard(), env.tasks.token().child_token());
    env.tasks.spawn("rpc-client", async move {
        let _guard = guard;
        tokio::select! {
            biased;
            ended = driver => if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            },
            () = stop.cancelled() => {}
        }
    });
    let authority = Authority::try_from(address).unwrap_or_else(|_| Authority::from_static("hasp"));
    Ok(Connection { sender, authority, message_bytes_max: profile.message_bytes_max, closed })
}

fn builder(profile: &Profile, tasks: &Tasks) -> http2::Builder<Executor> {
    let mut builder = http2::Builder::new(Executor { tasks: tasks.clone(), name: "rpc-call" });
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(profile.stream_window)
        .initial_connection_window_size(profile.connection_window)
        .max_frame_size(profile.frame_bytes_max)
        .max_header_list_size(profile.header_bytes_max)
        .max_send_buf_size(profile.send_buffer_bytes)
        .keep_alive_interval(profile.keepalive_interval)
        .keep_alive_timeout(profile.keepalive_timeout)
        .keep_alive_while_idle(true);
    builder
}

impl Connection {
    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Completes once it is gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Calls of `hasp.v1` over this connection.
    pub fn hasp(&self) -> HaspClient<Connection> {
        HaspClient::new(self.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    /// Calls of `hasp.admin.v1` over this connection.
    pub fn admin(&self) -> AdminClient<Connection> {
        AdminClient::new(self.clone()).max_decoding_message_size(self.message_bytes_max)
    }

    /// Whether the other end says that it serves clients.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn is_serving(&self) -> Result<bool, tonic::Status> {
        let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
        let answer = HealthClient::new(self.clone()).check(request).await?;
        Ok(answer.into_inner().status() == ServingStatus::Serving)
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are all there");
        Box::pin(self.sender.send_request(request))
    }
}
