//! What stands around each call that is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{Code, Context, Error, SpanKind};
use chassis_grpc::{IntoStatus, Server, ServerConfig, from_status};
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::greeter::{GREET, Greeter, greet, hello, list, unary};
use crate::logs::Logs;
use crate::world::{Running, config, eventually};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn the_handler_runs_in_the_callers_context() {
    let server = Running::start(Greeter::new(async |_| {
        let ctx = Context::current();
        let left = ctx.deadline().unwrap().remaining();
        assert!(left <= Duration::from_secs(7), "{left:?}");
        Ok(format!("{} {}", ctx.trace().trace_id, ctx.request_id()))
    }))
    .await;
    let mut request = Request::new(hello("x"));
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    request.metadata_mut().insert("x-request-id", "req-7".parse().unwrap());
    request.set_timeout(Duration::from_secs(7));
    let answer = unary(server.plain(), GREET, request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "req-7");
    assert_eq!(answer.into_inner().text, "0af7651916cd43dd8448eb211c80319c req-7");

    eventually("a span", || server.env.captured_spans().len() == 1).await;
    let span = &server.env.captured_spans()[0];
    assert_eq!((span.kind, &*span.name), (SpanKind::Server, GREET));
    assert_eq!(span.trace.parent.unwrap().to_string(), "b7ad6b7169203331");
    assert!(span.error.is_none());
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_with_deadline_exceeded() {
    let dropped = Arc::new(AtomicBool::new(false));
    let config = ServerConfig { request_timeout: Duration::from_millis(50), ..config() };
    let greeter = Greeter::new({
        let dropped = Arc::clone(&dropped);
        move |_| {
            let guard = SetOnDrop(Arc::clone(&dropped));
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        }
    });
    let server = Running::serve(Server::new(&config, Routes::new(greeter))).await;
    let status = greet(server.plain(), hello("x")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert!(dropped.load(Ordering::SeqCst), "the work is not left running");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_with_the_request_id_and_no_more() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |_| panic!("secret of the house"))).await;
    let mut request = Request::new(hello("x"));
    request.metadata_mut().insert("x-request-id", "req-9".parse().unwrap());
    let status = greet(server.plain(), request).await.unwrap_err();
    assert!(!format!("{status:?}").contains("secret"), "{status:?}");
    let error = from_status(status);
    assert_eq!((error.code(), error.message()), (Code::Internal, "internal error"));
    assert_eq!(error.details()["request_id"], "req-9");

    let lines = logs.access();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ERROR"), "{}", lines[0]);
    assert!(lines[0].contains("secret of the house"), "{}", lines[0]);
    assert!(lines[0].contains("request_id=\"req-9\""), "{}", lines[0]);
    // The connection still serves.
    assert!(greet(server.plain(), hello("x")).await.is_err());
}

#[tokio::test]
async fn an_error_arrives_whole_and_is_logged_once_with_its_chain() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |text: String| match &*text {
        "missing" => Err(Error::not_found("ITEM_NOT_FOUND", "no such item")
            .with_detail("item", "7")
            .with_field("id", "unknown")
            .into_status()),
        "broken" => Err(Error::internal(std::io::Error::other("disk full")).into_status()),
        _ => Ok(text),
    }))
    .await;
    let channel = server.plain();

    let error = from_status(greet(channel.clone(), hello("missing")).await.unwrap_err());
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(error.reason(), "ITEM_NOT_FOUND");
    assert_eq!(error.details()["item"], "7");
    assert_eq!(error.fields()[0].field, "id");

    greet(channel.clone(), hello("broken")).await.unwrap_err();
    greet(channel.clone(), hello("fine")).await.unwrap();
    eventually("three lines", || logs.access().len() == 3).await;
    let lines = logs.access();
    assert!(lines[0].starts_with("INFO") && lines[0].contains("ITEM_NOT_FOUND"), "{}", lines[0]);
    assert!(lines[1].starts_with("ERROR"), "{}", lines[1]);
    assert!(lines[1].contains("internal error: disk full"), "{}", lines[1]);
    assert!(lines[2].starts_with("INFO") && lines[2].contains("Greet OK"), "{}", lines[2]);
    assert!(lines[2].contains("client.address=\"127.0.0.1\""), "{}", lines[2]);

    let text = server.env.metrics().encode();
    for code in ["NOT_FOUND", "INTERNAL", "OK"] {
        let series = format!(
            "rpc_server_call_duration_seconds_count{{rpc_method=\"test.Greeter/Greet\",rpc_response_status_code=\"{code}\"}} 1"
        );
        assert!(text.contains(&series), "{series}\n{text}");
    }
}

#[tokio::test]
async fn a_huge_error_arrives_all_the_same() {
    let server = Running::start(Greeter::new(async |_| {
        let mut error = Error::invalid_argument("TOO_MUCH", "é".repeat(100_000));
        for n in 0..1_000 {
            error = error.with_field(format!("field{n}"), "x".repeat(n));
        }
        Err(error.into_status())
    }))
    .await;
    let error = from_status(greet(server.plain(), hello("x")).await.unwrap_err());
    assert_eq!(error.reason(), "TOO_MUCH");
    assert!(error.fields().len() > 50);
}

#[tokio::test]
async fn methods_that_do_not_exist_share_one_label() {
    let server = Running::start(Greeter::new(async |text| Ok(text))).await;
    for method in ["test.Greeter/Nope", "test.Greeter/Nada", "scan/Me"] {
        let status = unary(server.plain(), method, hello("x")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
    }
    let text = server.env.metrics().encode();
    let series = "rpc_method=\"_other\",rpc_response_status_code=\"UNIMPLEMENTED\"} 3";
    assert!(text.contains(series), "{text}");
    assert!(!text.contains("Nope") && !text.contains("scan"), "{text}");
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_call() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |_| std::future::pending().await)).await;
    let call = tokio::spawn(greet(server.plain(), hello("x")));
    let in_flight = || server.env.in_flight().counts().get("grpc").copied();
    eventually("the call", || in_flight() == Some(1)).await;
    call.abort();
    eventually("its end", || in_flight() == Some(0)).await;
    let lines = logs.access();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("INFO") && lines[0].contains("CANCELLED"), "{}", lines[0]);
}

#[tokio::test]
async fn a_stream_is_one_call_until_its_trailers() {
    let (logs, _guard) = Logs::capture();
    let greeter = Greeter::new(async |text| Ok(text)).list(|| {
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        for n in 0..3 {
            sender.try_send(Ok(hello(n.to_string()))).unwrap();
        }
        let broken = Error::internal(std::io::Error::other("cursor lost"));
        sender.try_send(Err(broken.into_status())).unwrap();
        receiver.into()
    });
    let server = Running::start(greeter).await;
    let mut request = Request::new(hello("x"));
    request.metadata_mut().insert("x-request-id", "req-5".parse().unwrap());
    let mut items = list(server.plain(), request).await.unwrap();
    let mut seen = Vec::new();
    let end: Status = loop {
        match items.message().await {
            Ok(Some(item)) => seen.push(item.text),
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(seen, ["0", "1", "2"]);
    assert_eq!(end.code(), tonic::Code::Internal);
    eventually("a line", || logs.access().len() == 1).await;
    let line = &logs.access()[0];
    assert!(line.contains("INTERNAL"), "{line}");
    assert!(line.contains("request_id=\"req-5\""), "{line}");
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_deadline_of_its_caller() {
    let (items, list_of) = tokio::sync::mpsc::channel(4);
    let list_of = std::sync::Mutex::new(Some(list_of));
    let greeter = Greeter::new(async |text| Ok(text))
        .list(move || list_of.lock().unwrap().take().unwrap().into());
    let (logs, _guard) = Logs::capture();
    let server = Running::start(greeter).await;
    let mut request = tonic::Request::new(hello("all"));
    // tonic's own channel looks at it until the head of the answer only.
    request.set_timeout(Duration::from_secs(3));
    let mut answers = list(server.plain(), request).await.unwrap();
    items.send(Ok(hello("first"))).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "first");
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
    eventually("the handler's stream is dropped", || items.is_closed()).await;
    let line = logs.access().pop().unwrap();
    assert!(line.contains("rpc.response.status_code=\"DEADLINE_EXCEEDED\""), "{line}");
}

#[tokio::test]
async fn a_stream_without_deadline_outlasts_the_limit_of_a_request() {
    let (items, list_of) = tokio::sync::mpsc::channel(4);
    let list_of = std::sync::Mutex::new(Some(list_of));
    let greeter = Greeter::new(async |text| Ok(text))
        .list(move || list_of.lock().unwrap().take().unwrap().into());
    let config = ServerConfig { request_timeout: Duration::from_millis(20), ..config() };
    let server = Running::serve(Server::new(&config, Routes::new(greeter))).await;
    let mut answers = list(server.plain(), hello("all")).await.unwrap();
    let message = answers.message();
    tokio::pin!(message);
    let early = tokio::time::timeout(config.request_timeout * 3, &mut message).await;
    assert!(early.is_err(), "{early:?}");
    items.send(Ok(hello("late"))).await.unwrap();
    assert_eq!(message.await.unwrap().unwrap().text, "late");
}

/// It was an error of the code UNKNOWN, with an alert for whoever was on duty.
#[tokio::test]
async fn a_caller_that_is_killed_in_its_request_has_cancelled() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |text| Ok(text))).await;
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://greeter/{GREET}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (_answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x09half"), false).unwrap();
    let in_flight = || server.env.in_flight().counts().get("grpc").copied().unwrap_or(0);
    eventually("the call is there", || in_flight() == 1).await;
    connection.abort();
    eventually("the call has ended", || in_flight() == 0).await;
    let line = logs.access().pop().unwrap();
    assert!(line.starts_with("INFO ") && line.contains("\"CANCELLED\""), "{line}");
}
