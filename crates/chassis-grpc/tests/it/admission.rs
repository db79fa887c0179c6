//! Which calls are let in: priorities and load shed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_admission::{AdmissionConfig, RateLimitConfig, RoutePriority, ShedConfig};
use chassis_core::{Context, Env, Priority};
use chassis_discovery::ClientConfig;
use chassis_grpc::{Channel, Server, ServerConfig};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::greeter::{GREET, Greeter, greet, hello, unary};
use crate::logs::Logs;
use crate::world::{Endpoints, Running, config, eventually};

fn room_for_one() -> ServerConfig {
    let shed = ShedConfig {
        enabled: true,
        min_limit: 1,
        initial_limit: 1,
        max_limit: 1,
        queue_delay: Duration::from_secs(10),
        ..ShedConfig::default()
    };
    with(AdmissionConfig { shed, ..AdmissionConfig::default() })
}

fn with(admission: AdmissionConfig) -> ServerConfig {
    ServerConfig { admission, ..config() }
}

/// A server whose handler holds each call until it is let go.
async fn held() -> (Running, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let greeter = Greeter::new({
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        move |_| {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                go.acquire().await.unwrap().forget();
                Ok("held".to_owned())
            }
        }
    });
    let server = Running::serve(Server::new(&room_for_one(), Routes::new(greeter))).await;
    (server, asked, go)
}

#[tokio::test]
async fn a_call_without_room_is_pushed_back_and_probes_are_answered() {
    let (logs, _guard) = Logs::capture();
    let (server, asked, go) = held().await;
    let first = tokio::spawn(greet(server.plain(), hello("first")));
    eventually("it has the place", || asked.load(Ordering::SeqCst) == 1).await;

    let status = greet(server.plain(), hello("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    assert!((100..=200).contains(&pushback), "{pushback} ms");
    let error = chassis_grpc::from_status(status);
    assert_eq!(error.reason(), "SERVER_OVERLOADED");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the handler was not asked");
    let metrics = server.env.metrics().encode();
    let series = "server_shed_calls_total{priority=\"normal\",server=\"grpc\"} 1";
    assert!(metrics.contains(series), "{metrics}");
    eventually("a line of it", || logs.access().iter().any(|line| line.contains("shed=true")))
        .await;

    let mut health = HealthClient::new(server.plain());
    health.check(HealthCheckRequest::default()).await.unwrap();

    go.add_permits(2);
    first.await.unwrap().unwrap();
    greet(server.plain(), hello("third")).await.unwrap();
}

#[tokio::test]
async fn a_call_that_one_has_no_room_for_is_done_by_another() {
    let (full, asked, _go) = held().await;
    let _first = tokio::spawn(greet(full.plain(), hello("first")));
    eventually("it has the place", || asked.load(Ordering::SeqCst) == 1).await;
    let other = Running::start(Greeter::new(async |_| Ok("done".to_owned()))).await;
    let endpoints = Endpoints::of([full.address, other.address]).await;
    let channel = Channel::builder("greeter", &endpoints.discovery())
        .config(&ClientConfig::default())
        .idempotent(true)
        .build()
        .unwrap();
    for _ in 0..20 {
        assert_eq!(greet(channel.clone(), hello("x")).await.unwrap(), "done");
    }
    let metrics = full.env.metrics().encode();
    assert!(!metrics.contains("server_shed_calls_total{priority=\"normal\",server=\"grpc\"} 0"));
}

#[tokio::test]
async fn a_priority_is_believed_of_who_is_trusted_and_goes_on_with_the_calls() {
    let greeter = || Greeter::new(async |_| Ok(Context::current().priority().as_str().to_owned()));
    let trusting = AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        ..AdmissionConfig::default()
    };
    let of = |name: &str| AdmissionConfig {
        priorities: [(name.to_owned(), RoutePriority::Critical)].into(),
        ..AdmissionConfig::default()
    };
    for (admission, asked, expected) in [
        (AdmissionConfig::default(), None, "normal"),
        (AdmissionConfig::default(), Some("critical"), "normal"),
        (AdmissionConfig::default(), Some("sheddable"), "sheddable"),
        (trusting.clone(), Some("critical"), "critical"),
        (of("test.Greeter"), None, "critical"),
        (of(GREET), None, "critical"),
        (of("test.Greeter/List"), None, "normal"),
    ] {
        let server = Running::serve(Server::new(&with(admission), Routes::new(greeter()))).await;
        let mut request = Request::new(hello("x"));
        if let Some(asked) = asked {
            request.metadata_mut().insert("x-request-priority", asked.parse().unwrap());
        }
        let answer = unary(server.plain(), GREET, request).await.unwrap();
        assert_eq!(answer.into_inner().text, expected, "{asked:?}");
    }

    let server = Running::serve(Server::new(&with(trusting), Routes::new(greeter()))).await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = Channel::builder("greeter", &endpoints.discovery()).build().unwrap();
    let ctx = Context::background(&Env::test("caller")).with_priority(Priority::Critical);
    let answer = ctx.scope(greet(channel, hello("x"))).await.unwrap();
    assert_eq!(answer, "critical");
}

#[tokio::test]
async fn a_caller_that_calls_too_often_is_pushed_back() {
    let rate_limit =
        RateLimitConfig { enabled: true, per_second: 1, burst: 2, ..RateLimitConfig::default() };
    let config = with(AdmissionConfig { rate_limit, ..AdmissionConfig::default() });
    let greeter = Greeter::new(async |_| Ok("done".to_owned()));
    let server = Running::serve(Server::new(&config, Routes::new(greeter))).await;
    let (plain, mut refused) = (server.plain(), 0);
    for _ in 0..10 {
        if let Err(status) = greet(plain.clone(), hello("x")).await {
            let error = chassis_grpc::from_status(status);
            assert_eq!(error.reason(), "RATE_LIMITED");
            assert!(error.retry_after().unwrap() <= Duration::from_secs(1));
            refused += 1;
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[tokio::test]
async fn probes_leave_no_span_and_who_is_trusted_can_ask_for_one() {
    let trusting = AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        ..AdmissionConfig::default()
    };
    for (admission, spans) in [(AdmissionConfig::default(), 0), (trusting, 1)] {
        let greeter = Greeter::new(async |_| Ok("done".to_owned()));
        let server = Running::serve(Server::new(&with(admission), Routes::new(greeter))).await;
        let mut health = HealthClient::new(server.plain());
        health.check(HealthCheckRequest::default()).await.unwrap();
        let mut request = Request::new(hello("x"));
        for (name, value) in [
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
            ("x-force-trace", "1"),
        ] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        unary(server.plain(), GREET, request).await.unwrap();
        // Not sampled by its caller; what is asked for later is, so nothing is still to come.
        greet(server.plain(), hello("last")).await.unwrap();
        eventually("the span of the last call", || server.env.captured_spans().len() == spans + 1)
            .await;
        assert!(server.env.captured_spans().iter().all(|span| span.name == GREET));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_a_warning_in_the_log() {
    let (logs, _guard) = Logs::capture();
    let greeter = Greeter::new(async |millis: String| {
        tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
        Ok("done".to_owned())
    });
    let server = Server::new(&config(), Routes::new(greeter));
    let service = server.into_service(&Env::test("greeter"), None).unwrap();
    for millis in ["400", "500"] {
        unary(service.clone(), GREET, Request::new(hello(millis))).await.unwrap();
    }
    let lines = logs.access();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("INFO ") && !lines[0].contains("slow"), "{lines:#?}");
    assert!(lines[1].starts_with("WARN ") && lines[1].contains("slow=true"), "{lines:#?}");
}
