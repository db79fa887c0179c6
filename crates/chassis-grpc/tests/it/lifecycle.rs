//! From the bound socket to the last cut connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{Code, Component, Env, Error, Ready, Shutdown, Status};
use chassis_grpc::{Server, ServerConfig, Services};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::greeter::{Greeter, greet, hello};
use crate::world::{Running, SOON, config, eventually};

fn echo() -> Greeter {
    Greeter::new(async |text| Ok(text))
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = ServerConfig { port: address.port(), ..ServerConfig::default() };
    let server = Server::new(&config, Routes::new(echo()));
    assert!(server.describe().contains(&address.to_string()));
    let (ready, _) = Ready::channel();
    let (_trigger, shutdown) = Shutdown::new();
    let run = Box::new(server).run(Env::test("greeter"), ready, shutdown);
    let error = run.await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains(&address.to_string()), "{error}");
    assert!(error.message().contains("GRPC__PORT"), "{error}");
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_is_that_of_the_process_and_a_watch_ends_with_it() {
    let server = Server::new(
        &config(),
        Services::new(Routes::new(echo()))
            .reflection(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET),
    );
    let server = Running::serve(server).await;
    let mut client = HealthClient::new(server.plain());
    let mut watch = client.watch(check("")).await.unwrap().into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(SOON, watch.message()).await;
        next.expect("no news").unwrap().map(|answer| answer.status)
    };
    assert_eq!(next().await, Some(ServingStatus::NotServing as i32));
    server.env.health().set_started();
    while next().await != Some(ServingStatus::Serving as i32) {}

    let known = "grpc.reflection.v1.ServerReflection";
    eventually_serving(&mut client, known).await;
    let unknown = client.check(check("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    server.begin_shutdown(SOON);
    while let Some(status) = next().await {
        assert_eq!(status, ServingStatus::NotServing as i32);
    }
    server.ended().await;
}

#[tokio::test]
async fn a_service_that_needs_a_probe_falls_with_it_and_alone() {
    let works = Arc::new(AtomicBool::new(true));
    let probe = {
        let works = Arc::clone(&works);
        move || {
            let works = works.load(Ordering::SeqCst);
            async move { if works { Ok(()) } else { Err(Error::unavailable("DB_DOWN", "no database")) } }
        }
    };
    let services = Services::new(Routes::new(echo()))
        .reflection(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .needs("test.Greeter", "db");
    let env = Env::test("greeter");
    env.health().add("other", false, || async { Err(Error::unavailable("DOWN", "as ever")) });
    env.health().add("db", false, probe);
    let server = Running::serve_in(env, Server::new(&config(), services)).await;
    let health = server.env.health().clone();
    health.set_started();
    health.check_now().await;
    assert_eq!(health.status(), Status::Degraded, "and it stays so");

    let mut client = HealthClient::new(server.plain());
    let mut watch = client.watch(check("test.Greeter")).await.unwrap().into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(SOON, watch.message()).await;
        next.expect("no news").unwrap().unwrap().status
    };
    while next().await != ServingStatus::Serving as i32 {}
    for (up, expected) in [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)] {
        works.store(up, Ordering::SeqCst);
        health.check_now().await;
        health.check_now().await;
        assert_eq!(next().await, expected as i32, "told once of each change");
        let mut status = async |name| client.check(check(name)).await.unwrap().into_inner().status;
        assert_eq!(status("test.Greeter").await, expected as i32);
        for other in ["", "grpc.reflection.v1.ServerReflection"] {
            assert_eq!(status(other).await, ServingStatus::Serving as i32);
        }
    }
}

#[tokio::test]
async fn a_probe_that_is_not_there_is_refused_at_the_start() {
    let services = Services::new(Routes::new(echo())).needs("test.Greeter", "bd");
    let env = Env::test("greeter");
    env.health().add("db", false, || async { Ok(()) });
    let (ready, _) = Ready::channel();
    let (_trigger, shutdown) = Shutdown::new();
    let server = Server::new(&config(), services);
    let error = Box::new(server).run(env, ready, shutdown).await.unwrap_err();
    assert_eq!(error.reason(), "UNKNOWN_PROBE");
    let said = "`test.Greeter` needs the probe `bd`, there are: [\"db\"]";
    assert_eq!(error.message(), said);
}

async fn eventually_serving(client: &mut HealthClient<tonic::transport::Channel>, name: &str) {
    let mut watch = client.watch(check(name)).await.unwrap().into_inner();
    let wait = async {
        while watch.message().await.unwrap().unwrap().status != ServingStatus::Serving as i32 {}
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
}

#[tokio::test]
async fn calls_in_flight_end_well_and_nobody_new_is_let_in() {
    let go_on = std::sync::Arc::new(Notify::new());
    let server = Running::start(Greeter::new({
        let go_on = go_on.clone();
        move |text| {
            let go_on = go_on.clone();
            async move {
                go_on.notified().await;
                Ok(text)
            }
        }
    }))
    .await;
    let call = tokio::spawn(greet(server.plain(), hello("late")));
    let env = server.env.clone();
    eventually("the call", || env.in_flight().counts().get("grpc") == Some(&1)).await;
    server.begin_shutdown(SOON);
    let address = server.address;
    let mut refused = false;
    for _ in 0..2_000 {
        refused = tokio::net::TcpStream::connect(address).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(refused, "the socket is closed before the drain");
    go_on.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), "late");
    server.ended().await;
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_at_the_deadline() {
    let server = Running::start(Greeter::new(async |_| std::future::pending().await)).await;
    let call = tokio::spawn(greet(server.plain(), hello("x")));
    let env = server.env.clone();
    let in_flight = || env.in_flight().counts().get("grpc").copied();
    eventually("the call", || in_flight() == Some(1)).await;
    server.begin_shutdown(Duration::from_millis(50));
    server.ended().await;
    assert!(call.await.unwrap().is_err());
    eventually("the handler is gone", || in_flight() == Some(0)).await;
}

async fn reflected(server: &Running) -> Result<Vec<String>, tonic::Status> {
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut answers = ServerReflectionClient::new(server.plain())
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    match answers.message().await?.unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    for reflection in [true, false] {
        let config = ServerConfig { reflection, ..config() };
        let server = Server::new(
            &config,
            Services::new(Routes::new(echo())).reflection(tonic_health::pb::FILE_DESCRIPTOR_SET),
        );
        let server = Running::serve(server).await;
        match reflected(&server).await {
            Ok(services) => {
                assert!(reflection);
                assert!(services.contains(&"grpc.health.v1.Health".to_owned()), "{services:?}");
            }
            Err(status) => {
                assert!(!reflection, "{status}");
                assert_eq!(status.code(), tonic::Code::Unimplemented);
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_never_calls_is_closed() {
    let config = ServerConfig { first_call_timeout: Duration::from_millis(50), ..config() };
    let server = Running::serve(Server::new(&config, Routes::new(echo()))).await;
    let mut silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(SOON, silent.read_to_end(&mut rest)).await;
    // However it is closed, it is closed.
    let _ = end.expect("still open");
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_its_turn() {
    let config = ServerConfig { max_connections: 1, ..config() };
    let server = Running::serve(Server::new(&config, Routes::new(echo()))).await;
    let first = server.plain();
    greet(first.clone(), hello("1")).await.unwrap();
    let second = tokio::spawn(greet(server.plain(), hello("2")));
    for _ in 0..20 {
        greet(first.clone(), hello("1")).await.unwrap();
    }
    assert!(!second.is_finished());
    drop(first);
    let answer = tokio::time::timeout(SOON, second).await.unwrap();
    assert_eq!(answer.unwrap().unwrap(), "2");
}
