//! The least that a bidirectional gRPC stream costs: tonic's own server, one message type with one
//! field, and no work.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Tap;

/// Bytes of a message besides its payload, if that has 128 bytes or more.
const FIELD_BYTES: usize = 3;
/// Messages waiting to be sent; more than are ever sent at once.
const WAITING: usize = 4_096;

/// What travels both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
}

impl Message {
    /// A message that has `bytes` bytes on the wire.
    fn of(bytes: usize) -> Self {
        Self { payload: vec![b'e'; bytes.saturating_sub(FIELD_BYTES)].into() }
    }
}

/// Answers every message with one of `bytes` bytes, until standard input ends; says its address first.
pub async fn serve(bytes: usize) -> anyhow::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let incoming = TcpIncoming::bind(any).context("listen")?.with_nodelay(Some(true));
    println!("{}", incoming.local_addr().context("listen")?);
    let (sender, ended) = oneshot::channel::<()>();
    let listen = move || {
        // Whatever it brings: its end is what counts, and a failure is one too.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        drop(sender);
    };
    std::thread::Builder::new().name("input".into()).spawn(listen).context("start to listen")?;
    let serving = Server::builder().add_service(EchoServer { answer: Message::of(bytes) });
    tokio::select! {
        served = serving.serve_with_incoming(incoming) => served.context("serve"),
        _ = ended => Ok(()),
    }
}

/// The service, as tonic's generated code would have it.
#[derive(Clone)]
struct EchoServer {
    answer: Message,
}

impl NamedService for EchoServer {
    const NAME: &'static str = "bench.Echo";
}

impl<B> Service<http::Request<B>> for EchoServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let talk = Talk { answer: self.answer.clone() };
        Box::pin(
            async move { Ok(tonic::server::Grpc::new(ProstCodec::default()).streaming(talk, request).await) },
        )
    }
}

struct Talk {
    answer: Message,
}

impl StreamingService<Message> for Talk {
    type Response = Message;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        let answer = self.answer.clone();
        let answers = request.into_inner().map(move |asked| asked.map(|_| answer.clone()));
        ready(Ok(Response::new(Box::pin(answers))))
    }
}

/// A stream to the echo server, on a connection of its own.
pub struct Echo {
    message: Message,
    sender: mpsc::Sender<Message>,
    answers: Streaming<Message>,
}

impl Echo {
    /// Opens a stream on which messages of `bytes` bytes are sent.
    pub async fn open(address: &str, bytes: usize) -> anyhow::Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{address}")).context("read its address")?;
        let channel = endpoint.tcp_nodelay(true).connect().await.context("connect")?;
        let (sender, mut messages) = mpsc::channel(WAITING);
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.context("wait for the connection")?;
        let outbound = Request::new(stream::poll_fn(move |cx| messages.poll_recv(cx)));
        let path = PathAndQuery::from_static("/bench.Echo/Talk");
        let answers = grpc.streaming(outbound, path, ProstCodec::default()).await.context("open")?;
        Ok(Self { message: Message::of(bytes), sender, answers: answers.into_inner() })
    }

    /// Sends so many messages at once, waits for as many answers, and so on; counts the answers.
    pub async fn echo_on(mut self, at_once: usize, tap: Tap) -> anyhow::Result<()> {
        while !tap.is_over() {
            for _ in 0..at_once {
                self.sender.try_send(self.message.clone()).context("send")?;
            }
            for _ in 0..at_once {
                let answer = self.answers.message().await.context("receive")?;
                answer.context("receive: the stream ended")?;
            }
            tap.answered(at_once);
        }
        Ok(())
    }
}
