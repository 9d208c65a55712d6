//! Health and reflection as their own clients see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::Health;
use crate::env::Env;
use crate::rpc::Profile;
use crate::rpc::client::{Connection, dial};
use crate::rpc::server::{Dispatch, serve};

const DEADLINE: Duration = Duration::from_secs(5);

struct World {
    server: Env,
    health: Health,
    is_ready: Arc<AtomicBool>,
    connection: Connection,
}

impl World {
    async fn new() -> Self {
        let env = Env::in_memory(1);
        let server = env.child("server");
        let is_ready = Arc::new(AtomicBool::new(false));
        let flag = is_ready.clone();
        let health = Health::new(&server.tasks, move || flag.load(Ordering::Relaxed));
        let listener = server.transport.listen("server:0").await.unwrap();
        let address = listener.local_address();
        serve(&server.tasks, listener, Dispatch::new().with_health(&health), Profile::clients());
        let connection = dial(&env, &address, &Profile::clients(), DEADLINE).await.unwrap();
        Self { server, health, is_ready, connection }
    }

    fn client(&self) -> HealthClient<Connection> {
        HealthClient::new(self.connection.clone())
    }

    async fn check(&self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = self.client().check(request).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_healthy_from_when_it_is_ready_until_it_is_told_to_stop() {
    let world = World::new().await;
    for service in ["", "hasp.v1.Hasp"] {
        assert_eq!(world.check(service).await, Ok(ServingStatus::NotServing), "{service}");
    }

    world.is_ready.store(true, Ordering::Relaxed);

    for service in ["", "hasp.v1.Hasp"] {
        assert_eq!(world.check(service).await, Ok(ServingStatus::Serving), "{service}");
    }
    assert_eq!(world.check("hasp.v1.Other").await, Err(Code::NotFound));

    world.health.stop();

    assert_eq!(world.check("").await, Ok(ServingStatus::NotServing));
}

#[tokio::test(start_paused = true)]
async fn who_watches_hears_each_change_and_the_end() {
    let world = World::new().await;
    let request = HealthCheckRequest { service: "hasp.v1.Hasp".to_owned() };
    let mut watched = world.client().watch(request).await.unwrap().into_inner();

    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    world.is_ready.store(true, Ordering::Relaxed);
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    world.health.stop();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(watched.message().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn who_watches_an_unknown_service_is_told_so_and_does_not_keep_the_server() {
    let world = World::new().await;
    let request = HealthCheckRequest { service: "other".to_owned() };
    let mut watched = world.client().watch(request).await.unwrap().into_inner();

    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    world.server.tasks.drain(DEADLINE).await.unwrap();
    assert_eq!(watched.message().await.ok().flatten(), None);
}

async fn reflect(world: &World, asked: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(world.connection.clone());
    let request = ServerReflectionRequest { message_request: Some(asked), ..Default::default() };
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test(start_paused = true)]
async fn tools_find_out_what_can_be_called() {
    let world = World::new().await;

    let listed = reflect(&world, MessageRequest::ListServices(String::new())).await;
    let described = reflect(&world, MessageRequest::FileContainingSymbol("hasp.v1.Hasp".into())).await;

    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "hasp.admin.v1.Admin",
        "hasp.v1.Hasp",
    ];
    assert_eq!(names, expected);
    let MessageResponse::FileDescriptorResponse(described) = described else { panic!("{described:?}") };
    assert!(!described.file_descriptor_proto.is_empty());
}
