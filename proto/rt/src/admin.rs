//! The HTTP port for operators and their tools: is it alive, is it ready, what does it count.
//!
//! On a port of its own, so that scrapers need nothing of gRPC and clients see nothing of this.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::transport::{Io, Listener};

/// What OpenMetrics text is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most connections at once; a scraper needs one.
const CONNECTIONS_MAX: usize = 64;

/// How long a peer may take to say what it wants, also between two requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the pages show.
struct Shown {
    metrics: Metrics,
    is_ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves `/livez`, `/readyz` and `/metrics` in tasks of a scope of its own inside `tasks`, until
/// that is cancelled. `is_ready` says whether clients should be sent here.
pub fn serve(
    tasks: &Tasks,
    listener: Box<dyn Listener>,
    metrics: Metrics,
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
) {
    let tasks = tasks.child();
    let pages = pages(Shown { metrics, is_ready: Box::new(is_ready) });
    tasks.clone().spawn("admin-accept", accept(tasks, listener, pages));
}

fn pages(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(shown))
}

async fn readiness(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    if (shown.is_ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.metrics.encode())
}

async fn accept(tasks: Tasks, mut listener: Box<dyn Listener>, pages: Router) {
    let token = tasks.token().clone();
    let connections = tasks.child();
    loop {
        let accepted = tokio::select! {
            biased;
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.running() >= CONNECTIONS_MAX => {}
            Ok((io, peer)) => {
                let (token, pages) = (token.child_token(), pages.clone());
                connections.spawn("admin-connection", async move {
                    tokio::select! {
                        biased;
                        () = token.cancelled() => {}
                        () = connection(io, peer, pages) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(io: Io, peer: String, pages: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(pages))
        .await;
    if let Err(error) = served {
        tracing::debug!(peer, %error, "admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::env::Env;

    struct World {
        env: Env,
        address: String,
        is_ready: Arc<AtomicBool>,
    }

    async fn world() -> World {
        let env = Env::in_memory(1);
        let listener = env.transport.listen("admin:0").await.unwrap();
        let address = listener.local_address();
        let metrics = Metrics::new();
        metrics.register("writes", "Writes acknowledged", <Counter>::default()).inc();
        let is_ready = Arc::new(AtomicBool::new(false));
        let flag = is_ready.clone();
        serve(&env.tasks, listener, metrics, move || flag.load(Ordering::Relaxed));
        World { env, address, is_ready }
    }

    async fn page(world: &World, path: &str) -> String {
        let mut io = world.env.transport.connect(&world.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_alive_before_it_is_ready() {
        let world = world().await;
        assert!(page(&world, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(page(&world, "/readyz").await.starts_with("HTTP/1.1 503"));

        world.is_ready.store(true, Ordering::Relaxed);

        assert!(page(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_open_metrics_text() {
        let answer = page(&world().await, "/metrics").await;

        assert!(answer.contains("application/openmetrics-text"));
        assert!(answer.contains("hasp_writes_total 1\n"));
        assert!(answer.ends_with("# EOF\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_page_is_not_found() {
        assert!(page(&world().await, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_with_its_tasks() {
        let world = world().await;
        let _idle = world.env.transport.connect(&world.address).await.unwrap();

        assert!(world.env.tasks.drain(Duration::from_secs(1)).await.is_ok());
    }
}
