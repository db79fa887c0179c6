//! Layers and interceptors that a user puts around services: in which order they run, and what
//! they see and may answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis_core::{Code, Context, Error};
use chassis_grpc::{IntoStatus, Server, Services, from_status};
use chassis_resilience::{BulkheadLayer, TimeoutLayer};
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::interceptor::InterceptorLayer;
use tonic::service::{LayerExt, Routes};
use tonic::transport::server::TcpConnectInfo;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{BoxError, ServiceBuilder};

use crate::greeter::{GREET, Greeter, greet, hello, unary};
use crate::logs::Logs;
use crate::world::{Running, config, eventually};

type Seen = Arc<Mutex<Vec<String>>>;

fn note(seen: &Seen, who: &str) {
    let id = Context::current().request_id().to_owned();
    seen.lock().unwrap().push(format!("{who} {id}"));
}

#[tokio::test]
async fn they_run_from_the_last_to_the_first_inside_of_the_call() {
    let seen = Seen::default();
    let named = |who: &'static str| {
        let seen = Arc::clone(&seen);
        move |request: Request<Body>| {
            note(&seen, who);
            assert!(Context::current().deadline().is_some());
            assert_eq!(request.uri().path(), format!("/{GREET}"));
            let peer = request.extensions().get::<TcpConnectInfo>().unwrap();
            assert!(peer.remote_addr().unwrap().ip().is_loopback());
            request
        }
    };
    let greeter = Greeter::new({
        let seen = Arc::clone(&seen);
        move |text| {
            note(&seen, "handler");
            async { Ok(text) }
        }
    });
    let of_one_service = {
        let seen = Arc::clone(&seen);
        move |request: tonic::Request<()>| {
            note(&seen, "its interceptor");
            Ok(request)
        }
    };
    let of_all = {
        let seen = Arc::clone(&seen);
        move |request: tonic::Request<()>| {
            note(&seen, "interceptor");
            assert!(request.remote_addr().unwrap().ip().is_loopback());
            match request.metadata().get("x-key") {
                Some(_) => Ok(request),
                None => Err(Error::unauthenticated("NO_KEY", "who are you?").into_status()),
            }
        }
    };
    let intercepted =
        ServiceBuilder::new().layer(InterceptorLayer::new(of_one_service)).named_layer(greeter);
    let services = Services::new(Routes::new(intercepted))
        .layer(InterceptorLayer::new(of_all))
        .layer(tower::util::MapRequestLayer::new(named("first layer")))
        .layer(tower::util::MapRequestLayer::new(named("last layer")));
    let (logs, _guard) = Logs::capture();
    let server = Running::serve(Server::new(&config(), services)).await;

    let mut request = tonic::Request::new(hello("x"));
    request.metadata_mut().insert("x-key", "mine".parse().unwrap());
    request.metadata_mut().insert("x-request-id", "req-1".parse().unwrap());
    unary(server.plain(), GREET, request).await.unwrap();
    let sequence = ["last layer", "first layer", "interceptor", "its interceptor", "handler"];
    assert_eq!(*seen.lock().unwrap(), sequence.map(|who| format!("{who} req-1")));

    let error = from_status(greet(server.plain(), hello("x")).await.unwrap_err());
    assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, "NO_KEY"));
    assert_eq!(seen.lock().unwrap().len(), 8, "not as far as the handler");
    eventually("both lines", || logs.access().len() == 2).await;
    assert!(logs.access()[1].contains("error.reason=\"NO_KEY\""), "{:?}", logs.access());
    let text = server.env.metrics().encode();
    let counted =
        "rpc_method=\"test.Greeter/Greet\",rpc_response_status_code=\"UNAUTHENTICATED\"} 1";
    assert!(text.contains(counted), "{text}");

    // Health is asked without a key.
    let mut health = HealthClient::new(server.plain());
    health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn what_a_layer_fails_with_is_a_status() {
    let failing = |error: fn() -> BoxError| {
        let layer = tower::layer::layer_fn(move |_: Routes| {
            tower::service_fn(
                move |_: Request<Body>| async move { Err::<Response<Body>, _>(error()) },
            )
        });
        Services::new(Routes::new(Greeter::new(async |text| Ok(text)))).layer(layer)
    };
    type Case = (fn() -> BoxError, Code, &'static str);
    let cases: [Case; 3] = [
        (|| Error::not_found("GONE", "it is gone").into(), Code::NotFound, "GONE"),
        (|| tonic::Status::aborted("twice").into(), Code::Aborted, "ABORTED"),
        (|| "secret of the house".into(), Code::Internal, "INTERNAL"),
    ];
    for (error, code, reason) in cases {
        let server = Running::serve(Server::new(&config(), failing(error))).await;
        let status = greet(server.plain(), hello("x")).await.unwrap_err();
        assert!(!format!("{status:?}").contains("secret"), "{status:?}");
        let error = from_status(status);
        assert_eq!((error.code(), error.reason()), (code, reason));
    }
}

#[tokio::test]
async fn a_layer_that_panics_is_an_internal_error() {
    let panics = |_: Request<Body>| -> Request<Body> { panic!("secret of the house") };
    let services = Services::new(Routes::new(Greeter::new(async |text| Ok(text))))
        .layer(tower::util::MapRequestLayer::new(panics));
    let server = Running::serve(Server::new(&config(), services)).await;
    let error = from_status(greet(server.plain(), hello("x")).await.unwrap_err());
    assert_eq!((error.code(), error.message()), (Code::Internal, "internal error"));
}

#[tokio::test(start_paused = true)]
async fn layers_of_resilience_are_understood() {
    let bulkhead = BulkheadLayer::new(1, Duration::ZERO);
    let stuck = Greeter::new(async |_| std::future::pending().await);
    let services = Services::new(Routes::new(stuck))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .layer(bulkhead);
    let env = chassis_core::Env::test("greeter");
    let service = Server::new(&config(), services).into_service(&env, None).unwrap();
    let first = tokio::spawn(greet(service.clone(), hello("x")));
    tokio::task::yield_now().await;
    let error = from_status(greet(service, hello("x")).await.unwrap_err());
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "METHOD_OVERLOADED"));
    let error = from_status(first.await.unwrap().unwrap_err());
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, "METHOD_TIMEOUT"));
}
