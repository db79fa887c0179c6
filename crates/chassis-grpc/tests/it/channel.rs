//! What stands between a generated client and the servers it calls by name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis_core::config::Loader;
use chassis_core::{Code, Context, Deadline, Env, Error, Metrics, SpanKind};
use chassis_discovery::ClientConfig;
use chassis_grpc::{
    Channel, Idempotent, IntoStatus, LongLived, from_status, or_else, or_last_good, or_later,
};
use chassis_resilience::chaos::{Chaos, Fault, Rule};
use chassis_resilience::{Cache, CacheSettings, Degraded};
use chassis_test::BlackHole;
use serde::{Deserialize, Serialize};
use tonic::{Request, Status};

use crate::greeter::{GREET, Greeter, greet, hello, list};
use crate::world::{Endpoints, Running, SOON, dead_address, eventually};

fn channel(endpoints: &Endpoints) -> Channel {
    channel_with(endpoints, |_| {})
}

fn channel_with(endpoints: &Endpoints, change: impl FnOnce(&mut ClientConfig)) -> Channel {
    let mut config = ClientConfig { backoff: Duration::from_millis(1), ..ClientConfig::default() };
    change(&mut config);
    Channel::builder("greeter", &endpoints.discovery()).config(&config).build().unwrap()
}

/// Answers with what `answers` says to each call in turn, counted from 1.
fn in_turn(
    answers: impl Fn(usize) -> Result<(), Status> + Send + Sync + 'static,
) -> (Greeter, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let greeter = Greeter::new(move |text| {
        let answer = answers(counter.fetch_add(1, Ordering::SeqCst) + 1);
        async move { answer.map(|()| text) }
    });
    (greeter, calls)
}

#[tokio::test]
async fn a_call_by_name_carries_trace_request_id_and_deadline() {
    let server = Running::start(Greeter::new(async |_| {
        let ctx = Context::current();
        let left = ctx.deadline().unwrap().remaining().as_secs_f64();
        let (trace_id, id) = (ctx.trace().trace_id, ctx.request_id());
        Ok(format!("{trace_id} {id} {left}"))
    }))
    .await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = channel(&endpoints);
    let env = Env::test("caller");
    let ctx = Context::background(&env).with_request_id("req-3");
    let trace_id = ctx.trace().trace_id;
    // The caller's deadline, or the time of the whole call: the shorter one.
    for (given, most) in [(1.0, 1.0), (60.0, 5.0)] {
        let deadline = Deadline::after(Duration::from_secs_f64(given));
        let call = greet(channel.clone(), hello("x"));
        let answer = ctx.clone().with_deadline(deadline).scope(call).await.unwrap();
        let (ids, left) = answer.rsplit_once(' ').unwrap();
        assert_eq!(ids, format!("{trace_id} req-3"));
        let left: f64 = left.parse().unwrap();
        assert!(left > 0.0 && left <= most, "{left} of {given}");
    }

    eventually("both spans", || {
        env.captured_spans().len() == 2 && server.env.captured_spans().len() == 2
    })
    .await;
    let (client, server) = (&env.captured_spans()[0], &server.env.captured_spans()[0]);
    assert_eq!((client.kind, &*client.name), (SpanKind::Client, GREET));
    assert_eq!(server.trace.trace_id, trace_id);
    assert_eq!(server.trace.parent, Some(client.trace.span_id));
}

#[tokio::test]
async fn nobody_there_is_said_and_was_not_sent() {
    let endpoints = Endpoints::of([]).await;
    let status = greet(channel(&endpoints), hello("x")).await.unwrap_err();
    let error = from_status(status);
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_ENDPOINTS"));
    assert!(error.was_not_sent());
    assert!(error.chain().contains("greeter/grpc"), "{}", error.chain());
}

#[tokio::test]
async fn a_dead_endpoint_is_not_noticed_by_the_caller() {
    let server = Running::start(Greeter::new(async |text| Ok(text))).await;
    let endpoints = Endpoints::of([dead_address().await, server.address]).await;
    let channel = channel(&endpoints);
    for n in 0..50 {
        let text = n.to_string();
        assert_eq!(greet(channel.clone(), hello(&text)).await.unwrap(), text);
    }
}

#[tokio::test]
async fn only_dead_endpoints_are_said_to_be_unreachable_and_not_sent() {
    let endpoints = Endpoints::of([dead_address().await]).await;
    let error = from_status(greet(channel(&endpoints), hello("x")).await.unwrap_err());
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "UNREACHABLE"));
    assert!(error.was_not_sent(), "{error:?}");
}

#[tokio::test]
async fn what_may_be_repeated_is_repeated_with_the_same_body() {
    let unavailable_first = |n| match n {
        1 => Err(Error::unavailable("WARMING_UP", "not yet").into_status()),
        _ => Ok(()),
    };
    let mut marked = Request::new(hello("the same"));
    marked.extensions_mut().insert(Idempotent);
    let mut keyed = Request::new(hello("the same"));
    keyed.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    for request in [marked, keyed] {
        let (greeter, calls) = in_turn(unavailable_first);
        let server = Running::start(greeter).await;
        let endpoints = Endpoints::of([server.address]).await;
        let answer = greet(channel(&endpoints), request).await.unwrap();
        assert_eq!(answer, "the same");
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    let (greeter, calls) = in_turn(unavailable_first);
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let error = from_status(greet(channel(&endpoints), hello("once")).await.unwrap_err());
    assert_eq!(error.reason(), "WARMING_UP");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it may have happened: not repeated");
}

#[tokio::test]
async fn push_back_is_obeyed() {
    let (greeter, calls) = in_turn(|n| {
        let pause = Duration::from_millis(30);
        match n {
            1 => Err(Error::resource_exhausted("BUSY", "later")
                .with_retry_after(pause)
                .into_status()),
            _ => Ok(()),
        }
    });
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let metrics = Metrics::default();
    let channel = Channel::builder("greeter", &endpoints.discovery())
        .idempotent(true)
        .metrics(&metrics)
        .build()
        .unwrap();
    let started = tokio::time::Instant::now();
    greet(channel, hello("x")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let text = metrics.encode();
    for attempt in ["first", "again"] {
        let attempts = format!(
            "client_attempts_total{{attempt=\"{attempt}\",protocol=\"grpc\",service=\"greeter\"}} 1"
        );
        assert!(text.contains(&attempts), "{text}");
    }
    let calls = "rpc_client_call_duration_seconds_count{rpc_method=\"test.Greeter/Greet\",rpc_response_status_code=\"OK\",service=\"greeter\"} 1";
    assert!(text.contains(calls), "{text}");

    let (greeter, calls) = in_turn(|_| {
        let mut status = Status::unavailable("never");
        let never = "-1".parse().unwrap();
        status.metadata_mut().insert("grpc-retry-pushback-ms", never);
        Err(status)
    });
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel =
        Channel::builder("greeter", &endpoints.discovery()).idempotent(true).build().unwrap();
    greet(channel, hello("x")).await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_hanging_attempt_is_given_up_and_another_made() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let server = Running::start(Greeter::new(move |text| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(text)
        }
    }))
    .await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = channel_with(&endpoints, |config| {
        config.attempt_timeout = Duration::from_millis(100);
    });
    let mut request = Request::new(hello("x"));
    request.extensions_mut().insert(Idempotent);
    assert_eq!(greet(channel.clone(), request).await.unwrap(), "x");
    assert_eq!(calls.load(Ordering::SeqCst), 2);

    calls.store(0, Ordering::SeqCst);
    let error = from_status(greet(channel, hello("x")).await.unwrap_err());
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(!error.was_not_sent());
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing_and_a_near_one_ends_the_call() {
    let (greeter, calls) = in_turn(|_| Ok(()));
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let ctx = Context::background(&Env::test("caller"));
    let passed = ctx.clone().with_deadline(Deadline::after(Duration::ZERO));
    let call = greet(channel(&endpoints), hello("x"));
    let error = from_status(passed.scope(call).await.unwrap_err());
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.was_not_sent());
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    let server = Running::start(Greeter::new(async |_| std::future::pending().await)).await;
    let endpoints = Endpoints::of([server.address]).await;
    let near = ctx.with_deadline(Deadline::after(Duration::from_millis(60)));
    let call = near.scope(greet(channel(&endpoints), hello("x")));
    let status = tokio::time::timeout(SOON, call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_open_circuit_answers_without_asking() {
    let (greeter, calls) = in_turn(|_| Err(Status::unavailable("down")));
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = channel(&endpoints);
    for _ in 0..5 {
        greet(channel.clone(), hello("x")).await.unwrap_err();
    }
    let error = from_status(greet(channel.clone(), hello("x")).await.unwrap_err());
    assert_eq!(error.reason(), "CIRCUIT_OPEN");
    assert!(error.was_not_sent());
    assert!(error.retry_after().unwrap() > Duration::from_millis(100));
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn servers_are_replaced_under_load_and_no_call_fails() {
    let echo = || Greeter::new(async |text| Ok(text));
    let mut old = Running::start(echo()).await;
    let mut endpoints = Endpoints::of([old.address]).await;
    let channel = channel(&endpoints);
    let stop = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (channel, stop) = (channel.clone(), Arc::clone(&stop));
        workers.spawn(async move {
            let mut calls = 0;
            while stop.load(Ordering::SeqCst) == 0 {
                greet(channel.clone(), hello("x")).await.unwrap();
                calls += 1;
            }
            calls
        });
    }
    for _ in 0..5 {
        let new = Running::start(echo()).await;
        endpoints.add(new.address).await;
        let metrics = new.env.metrics().clone();
        eventually("calls at the new one", || metrics.encode().contains("\"OK\"")).await;
        endpoints.remove_first();
        old.begin_shutdown(SOON);
        old.ended().await;
        old = new;
    }
    stop.store(1, Ordering::SeqCst);
    let mut calls = 0;
    while let Some(worker) = workers.join_next().await {
        calls += worker.unwrap();
    }
    assert!(calls > 20, "{calls}");
}

#[tokio::test]
async fn the_deadline_holds_for_the_whole_answer_unless_it_is_meant_to_last() {
    let greeter = Greeter::new(async |text| Ok(text)).list(|| {
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        sender.try_send(Ok(hello("first"))).unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // The reader may be gone.
            let _ = sender.send(Ok(hello("second"))).await;
        });
        receiver.into()
    });
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = channel_with(&endpoints, |config| {
        config.timeout = Duration::from_millis(100);
        config.attempt_timeout = Duration::from_millis(100);
    });
    let mut items = list(channel.clone(), hello("x")).await.unwrap();
    assert_eq!(items.message().await.unwrap().unwrap().text, "first");
    let late = tokio::time::timeout(SOON, items.message()).await.unwrap();
    assert_eq!(late.unwrap_err().code(), tonic::Code::DeadlineExceeded);

    let mut request = Request::new(hello("x"));
    request.extensions_mut().insert(LongLived);
    let mut items = list(channel, request).await.unwrap();
    assert_eq!(items.message().await.unwrap().unwrap().text, "first");
    assert_eq!(items.message().await.unwrap().unwrap().text, "second");
    assert!(items.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_full_bulkhead_refuses_and_a_bad_setting_is_named() {
    let server = Running::start(Greeter::new(async |_| std::future::pending().await)).await;
    let endpoints = Endpoints::of([server.address]).await;
    // Either no place comes free in time, or there is no place to wait in.
    for (max_waiting, max_wait) in [(1, Duration::from_millis(10)), (0, SOON)] {
        let channel = channel_with(&endpoints, |config| {
            config.max_concurrent = 1;
            (config.max_waiting, config.max_wait) = (max_waiting, max_wait);
        });
        let first = tokio::spawn(greet(channel.clone(), hello("x")));
        let env = server.env.clone();
        eventually("the first", || env.in_flight().counts().get("grpc") == Some(&1)).await;
        let error = from_status(greet(channel, hello("x")).await.unwrap_err());
        assert_eq!(error.reason(), "TOO_MANY_CALLS");
        assert!(error.was_not_sent());
        first.abort();
        eventually("it has left", || env.in_flight().counts().get("grpc") != Some(&1)).await;
    }

    let config = ClientConfig { max_attempts: 0, ..ClientConfig::default() };
    let error =
        Channel::builder("greeter", &endpoints.discovery()).config(&config).build().err().unwrap();
    assert!(error.message().contains("clients.greeter.max_attempts"), "{error}");
}

/// As a service has it among its settings.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    greeter: ClientConfig,
}

#[tokio::test]
async fn a_profile_that_is_configured_gives_the_numbers() {
    for (profile, attempts) in [("critical", 4), ("standard", 3), ("best_effort", 1)] {
        let (greeter, calls) = in_turn(|_| Err(Status::unavailable("not yet")));
        let server = Running::start(greeter).await;
        let endpoints = Endpoints::of([server.address]).await;
        let set = [("GREETER__PROFILE", profile), ("GREETER__BACKOFF", "1ms")];
        let settings = Loader::new().env(set).load::<Settings>().unwrap().settings;
        let channel = Channel::builder("greeter", &endpoints.discovery())
            .config(&settings.greeter)
            .idempotent(true)
            .build()
            .unwrap();
        let status = greet(channel, hello("x")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(calls.load(Ordering::SeqCst), attempts, "{profile}");
    }
}

#[tokio::test]
async fn a_fault_can_be_injected_into_one_method() {
    let (greeter, calls) = in_turn(|_| Ok(()));
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let chaos = Chaos::enabled();
    let channel = Channel::builder("greeter", &endpoints.discovery()).chaos(&chaos);
    let channel = channel.build().unwrap();
    for (method, expected) in [(GREET, false), ("greeter.Greeter/Other", true)] {
        let rule = Rule {
            target: format!("greeter/grpc/{method}"),
            share: 1.0,
            fault: Fault::Error,
            lasts: SOON,
        };
        chaos.set("a", rule).unwrap();
        assert_eq!(greet(channel.clone(), hello("x")).await.is_ok(), expected, "{method}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_channel_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Channel>();
}

/// The address of a container that is gone swallowed packets, and a rolling restart lost half
/// of the calls to time-outs and then to open circuits.
#[tokio::test]
async fn an_address_that_swallows_packets_costs_no_call() {
    let (greeter, _) = in_turn(|_| Ok(()));
    let (hole, server) = (BlackHole::open().await, Running::start(greeter).await);
    let endpoints = Endpoints::of([hole.address(), server.address]).await;
    let metrics = Metrics::default();
    let channel = Channel::builder("greeter", &endpoints.discovery());
    let channel = channel.metrics(&metrics).build().unwrap();
    // None of them may be repeated, but for having never left.
    let calls = (0..100).map(|_| greet(channel.clone(), hello("you")));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    for _ in 0..100 {
        greet(channel.clone(), hello("you")).await.unwrap();
    }
    let metrics = metrics.encode();
    for line in [
        r#"client_balancer_unreachable{protocol="grpc",service="greeter"} 1"#,
        r#"client_breaker_transitions_total{protocol="grpc",service="greeter",to="open"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// Each waited for its own try, and for those of all before it.
#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_connection_fail_together() {
    let hole = BlackHole::open().await;
    let endpoints = Endpoints::of([hole.address()]).await;
    let channel = channel(&endpoints);
    let begun = tokio::time::Instant::now();
    let calls = (0..20).map(|_| greet(channel.clone(), hello("you")));
    for answer in futures_util::future::join_all(calls).await {
        let error = from_status(answer.unwrap_err());
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, "UNREACHABLE"));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stream_may_last_longer_than_an_attempt_waits_for_its_beginning() {
    let (items, answers) = tokio::sync::mpsc::channel(4);
    let answers = std::sync::Mutex::new(Some(answers));
    let greeter = Greeter::new(async |text| Ok(text))
        .list(move || answers.lock().unwrap().take().unwrap().into());
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let attempt = Duration::from_millis(500);
    let channel = channel_with(&endpoints, |config| {
        config.attempt_timeout = attempt;
        config.timeout = Duration::from_secs(60);
    });
    let mut answers = list(channel, hello("all")).await.unwrap();
    let message = answers.message();
    tokio::pin!(message);
    let early = tokio::time::timeout(attempt * 2, &mut message).await;
    assert!(early.is_err(), "{early:?}");
    items.send(Ok(hello("late"))).await.unwrap();
    assert_eq!(message.await.unwrap().unwrap().text, "late");
}

#[tokio::test]
async fn what_stands_in_for_an_answer_says_so_and_is_counted() {
    let (greeter, calls) = in_turn(|turn| match turn {
        1 => Ok(()),
        2 => Err(Status::not_found("nobody")),
        _ => Err(Status::internal("broken")),
    });
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let metrics = Metrics::default();
    let channel = Channel::builder("greeter", &endpoints.discovery())
        .metrics(&metrics)
        .config(&ClientConfig::default())
        .build()
        .unwrap();
    let counted = |kind| {
        let labels = [("service", "greeter"), ("protocol", "grpc"), ("kind", kind)];
        metrics.counter("client_degraded_answers", "", &labels).get()
    };
    // An answer is read as a whole, as a generated client gives it.
    let call = || {
        let call = greet(channel.clone(), hello("x"));
        async move { call.await.map(tonic::Response::new) }
    };
    let nobody = |_: &Status| Some(("nobody".to_owned(), Degraded::Default));
    let cache = Cache::new(CacheSettings::default());
    let well = or_last_good(&cache, "x", call()).await.unwrap();
    assert_eq!((&*well.value, well.degraded), ("x", None));
    or_else(call(), nobody).await.unwrap_err();
    assert_eq!((counted("default"), counted("cached")), (0, 0));

    let less = or_else(call(), nobody).await.unwrap();
    assert_eq!((&*less.value, less.degraded), ("nobody", Some(Degraded::Default)));
    let old = or_last_good(&cache, "x", call()).await.unwrap();
    assert!(matches!(old.degraded, Some(Degraded::Cached { .. })), "{old:?}");
    or_else(call(), |_| None::<(String, _)>).await.unwrap_err();
    let written = Mutex::new(Vec::new());
    let promise = or_later(call(), async || {
        written.lock().unwrap().push("x");
        Ok::<_, Error>("later".to_owned())
    });
    let promise = promise.await.unwrap();
    assert_eq!((&*promise.value, promise.degraded), ("later", Some(Degraded::Queued)));
    assert_eq!(*written.lock().unwrap(), ["x"]);
    assert_eq!(["default", "cached", "queued"].map(counted), [1, 1, 1]);
    assert_eq!(calls.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_cache_that_would_keep_nothing_is_refused() {
    let endpoints = Endpoints::of([]).await;
    let mut config = ClientConfig::default();
    config.cache.enabled = true;
    let built = Channel::builder("greeter", &endpoints.discovery()).config(&config).build();
    let error = built.err().unwrap();
    let expected = "clients.greeter.cache.enabled is true, allowed is false: a gRPC client keeps \
                    no answers";
    assert_eq!((error.reason(), error.message()), ("INVALID_CONFIG", expected));
}

#[tokio::test]
async fn a_rate_that_the_callee_allows_is_kept() {
    let (greeter, calls) = in_turn(|_| Ok(()));
    let server = Running::start(greeter).await;
    let endpoints = Endpoints::of([server.address]).await;
    let channel = channel_with(&endpoints, |config| {
        config.rate_limit.enabled = true;
        config.rate_limit.per_second = 1;
        config.rate_limit.burst = 4;
    });
    let mut refused = 0;
    for _ in 0..10 {
        if let Err(status) = greet(channel.clone(), hello("x")).await {
            let error = from_status(status);
            assert_eq!(error.reason(), "TOO_MANY_CALLS");
            assert!(error.was_not_sent() && error.retry_after().is_some(), "{error:?}");
            refused += 1;
        }
    }
    // Some come back while the test runs; none was tried again.
    assert!(refused >= 3, "{refused}");
    assert_eq!(calls.load(Ordering::SeqCst), 10 - refused);
}

/// The machine is gone, or the cable: no FIN, no RST, and nobody who answers a ping.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_without_a_word_is_noticed() {
    for (seconds, noticed) in [(20, true), (0, false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let call = connection.accept().await.unwrap().unwrap();
            // From here on it reads nothing, and says nothing.
            std::future::pending::<()>().await;
            drop((connection, call));
        });
        let endpoints = Endpoints::of([address]).await;
        let channel = channel_with(&endpoints, |config| {
            config.timeout = Duration::from_secs(60);
            config.attempt_timeout = Duration::from_secs(60);
            config.connect_timeout = Duration::from_secs(10);
            config.grpc.keep_alive_interval = Duration::from_secs(seconds);
        });
        let began = tokio::time::Instant::now();
        let error = from_status(greet(channel, hello("x")).await.unwrap_err());
        let took = began.elapsed().as_secs();
        if noticed {
            assert_eq!(error.reason(), "UNREACHABLE");
            assert!((29..45).contains(&took), "{took} s");
        } else {
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
            assert!(took >= 60, "{took} s");
        }
        server.abort();
    }
}
