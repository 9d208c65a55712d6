//! What every server tells load balancers and tools: whether it serves (`grpc.health.v1`), and what can be called
//! (server reflection, v1).
//!
//! Whether it serves is looked up when somebody asks; nothing runs and nothing is kept while nobody does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::hasp_server;
use crate::tasks::Tasks;

/// The names that health is told of: the server, and its service for clients.
const SERVICES: [&str; 2] = ["", hasp_server::SERVICE_NAME];

/// Largest request taken in, in bytes: all that is asked is a name.
const REQUEST_BYTES_MAX: usize = 1 << 10;

/// Between two looks at whether the server still serves, while somebody watches.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// The messages and services of `schema/`, as reflection shows them.
const DESCRIBED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/described.bin"));

/// Whether one server serves. A clone is of the same server.
#[derive(Clone)]
pub struct Health {
    is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    stopping: CancellationToken,
}

impl Health {
    /// Of a server that serves while `is_ready` says so, until it is told to stop or `tasks` are.
    pub fn new(tasks: &Tasks, is_ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { is_ready: Arc::new(is_ready), stopping: tasks.token().child_token() }
    }

    /// From here on it does not serve, and says so at once to whoever watches.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether clients should be sent here.
    pub fn is_serving(&self) -> bool {
        !self.stopping.is_cancelled() && (self.is_ready)()
    }

    /// The gRPC service that tells it.
    pub(super) fn server(&self) -> HealthServer<impl health_server::Health + use<>> {
        HealthServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn status(&self) -> ServingStatus {
        if self.is_serving() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    /// Completes with what it is once that is not `told`; `None` when there will be nothing else.
    async fn changed(&self, told: ServingStatus) -> Option<ServingStatus> {
        loop {
            let status = self.status();
            if status != told {
                return Some(status);
            }
            if self.stopping.is_cancelled() {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if SERVICES.contains(&request.get_ref().service.as_str()) {
            Ok(Response::new(reply(self.status())))
        } else {
            Err(Status::not_found("no such service"))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = if SERVICES.contains(&request.get_ref().service.as_str()) {
            self.status()
        } else {
            ServingStatus::ServiceUnknown
        };
        let told = stream::unfold((self.clone(), None), move |(health, told)| async move {
            let status = match told {
                None => Some(first),
                Some(ServingStatus::ServiceUnknown) => {
                    health.stopping.cancelled().await;
                    None
                }
                Some(told) => health.changed(told).await,
            }?;
            Some((Ok(reply(status)), (health, Some(status))))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The gRPC service that describes all that clients and operators may call.
pub(super) fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIBED)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptions were made with this program")
        .max_decoding_message_size(REQUEST_BYTES_MAX)
}

#[cfg(test)]
mod tests;
