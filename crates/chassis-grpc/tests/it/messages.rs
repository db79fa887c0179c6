//! How large messages may be, both ways on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chassis_core::Code;
use chassis_discovery::ClientConfig;
use chassis_grpc::{Channel, Server, ServerConfig, from_status};
use prost::Message;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use crate::greeter::{Greeter, Hello, chat, greet, hello, list};
use crate::logs::Logs;
use crate::world::{Endpoints, Running, config, eventually};

const LIMIT: usize = 1024;
const IN: &str =
    "a message of 1025 bytes is not read: `grpc.max_receive_message_bytes` here is 1024";
const OUT: &str = "a message of 1025 bytes is not sent: `grpc.max_send_message_bytes` here is 1024";

/// A message of so many bytes on the wire.
fn sized(bytes: usize) -> Hello {
    let mut message = hello("x".repeat(bytes));
    while message.encoded_len() > bytes {
        message.text.pop();
    }
    assert_eq!(message.encoded_len(), bytes);
    message
}

fn assert_refused(status: Status, message: &str) {
    let error = from_status(status);
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "GRPC_MESSAGE_TOO_LARGE"));
    assert_eq!(error.message(), message);
}

/// What a stream has, and how it ends.
async fn all(mut items: Streaming<Hello>) -> (Vec<usize>, Result<(), Status>) {
    let mut seen = Vec::new();
    loop {
        match items.message().await {
            Ok(Some(item)) => seen.push(item.encoded_len()),
            Ok(None) => return (seen, Ok(())),
            Err(status) => return (seen, Err(status)),
        }
    }
}

/// Answers with as many bytes as it is asked for, or as a list with each of several numbers.
fn by_size() -> Greeter {
    Greeter::new(async |text: String| Ok(sized(text.parse().unwrap()).text)).list(|| {
        let (sender, receiver) = mpsc::channel(8);
        for bytes in [7, LIMIT, LIMIT + 1, 7] {
            sender.try_send(Ok(sized(bytes))).unwrap();
        }
        receiver.into()
    })
}

async fn serving(greeter: Greeter, change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = config();
    change(&mut config);
    Running::serve(Server::new(&config, Routes::new(greeter))).await
}

/// A channel to it, as long as the endpoints are kept.
async fn channel(server: &Running, change: impl FnOnce(&mut ClientConfig)) -> (Endpoints, Channel) {
    let endpoints = Endpoints::of([server.address]).await;
    let mut config = ClientConfig::default();
    change(&mut config);
    let channel = Channel::builder("greeter", &endpoints.discovery()).config(&config).build();
    (endpoints, channel.unwrap())
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_unread() {
    let (logs, _guard) = Logs::capture();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let greeter = Greeter::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok("read".to_owned()) }
    });
    let server = serving(greeter, |config| config.max_receive_message_bytes = 1024).await;
    let channel = server.plain();
    assert_eq!(greet(channel.clone(), sized(LIMIT)).await.unwrap(), "read");
    assert_refused(greet(channel.clone(), sized(LIMIT + 1)).await.unwrap_err(), IN);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // The connection still serves.
    assert_eq!(greet(channel, hello("x")).await.unwrap(), "read");
    eventually("three lines", || logs.access().len() == 3).await;
    let line = &logs.access()[1];
    assert!(line.starts_with("INFO ") && line.contains("RESOURCE_EXHAUSTED"), "{line}");
    assert!(line.contains("error.reason=\"GRPC_MESSAGE_TOO_LARGE\""), "{line}");
    assert!(line.contains("grpc.max_receive_message_bytes` here is 1024"), "{line}");
}

/// Much more than the windows of HTTP/2 hold: the caller is told while it still sends.
#[tokio::test]
async fn the_limit_is_there_unless_it_is_raised_and_tonics_own_with_it() {
    const MIB: usize = 1024 * 1024;
    let size = async |text: String| Ok(text.len().to_string());
    let server = serving(Greeter::new(size), |_| {}).await;
    assert!(greet(server.plain(), sized(4 * MIB)).await.is_ok());
    let status = greet(server.plain(), sized(16 * MIB)).await.unwrap_err();
    let error = from_status(status);
    assert_eq!(error.reason(), "GRPC_MESSAGE_TOO_LARGE", "{error:?}");

    // Ours alone is not enough: generated code has one of its own, with another code.
    let raised = |config: &mut ServerConfig| config.max_receive_message_bytes = 8 << 20;
    let server = serving(Greeter::new(size), raised).await;
    let status = greet(server.plain(), sized(4 * MIB + 1)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    assert!(status.message().contains("the limit is: 4194304"), "{status}");

    let server = serving(Greeter::new(size).reads(usize::MAX), raised).await;
    assert!(greet(server.plain(), sized(8 * MIB)).await.is_ok());
    let error = from_status(greet(server.plain(), sized(8 * MIB + 1)).await.unwrap_err());
    assert_eq!(error.reason(), "GRPC_MESSAGE_TOO_LARGE");
}

#[tokio::test]
async fn a_message_in_a_stream_that_is_too_large_ends_it() {
    let greeter = Greeter::new(async |text| Ok(text)).echoing();
    let server = serving(greeter, |config| config.max_receive_message_bytes = 1024).await;
    let (asked, receiver) = mpsc::channel(8);
    for bytes in [7, LIMIT, LIMIT + 1, 7] {
        asked.try_send(sized(bytes)).unwrap();
    }
    let (seen, end) = all(chat(server.plain(), receiver).await.unwrap()).await;
    assert_eq!(seen, [7, LIMIT]);
    assert_refused(end.unwrap_err(), IN);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_status_in_its_place() {
    let (logs, _guard) = Logs::capture();
    let server = serving(by_size(), |config| config.max_send_message_bytes = 1024).await;
    assert!(greet(server.plain(), hello("1024")).await.is_ok());
    assert_refused(greet(server.plain(), hello("1025")).await.unwrap_err(), OUT);
    let (seen, end) = all(list(server.plain(), hello("")).await.unwrap()).await;
    assert_eq!(seen, [7, LIMIT], "what came before it is read");
    assert_refused(end.unwrap_err(), OUT);
    eventually("three lines", || logs.access().len() == 3).await;
    for line in &logs.access()[1..] {
        assert!(line.contains("error.reason=\"GRPC_MESSAGE_TOO_LARGE\""), "{line}");
        assert!(line.contains("grpc.max_send_message_bytes` here is 1024"), "{line}");
    }
}

#[tokio::test]
async fn a_client_does_not_read_what_is_too_large() {
    let server = serving(by_size(), |_| {}).await;
    let (_endpoints, channel) =
        channel(&server, |config| config.grpc.max_receive_message_bytes = 1024).await;
    assert!(greet(channel.clone(), hello("1024")).await.is_ok());
    assert_refused(greet(channel.clone(), hello("1025")).await.unwrap_err(), IN);
    let (seen, end) = all(list(channel, hello("")).await.unwrap()).await;
    assert_eq!(seen, [7, LIMIT]);
    assert_refused(end.unwrap_err(), IN);
}

#[tokio::test]
async fn a_client_does_not_send_what_is_too_large() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let greeter = Greeter::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok("read".to_owned()) }
    })
    .echoing();
    let server = serving(greeter, |_| {}).await;
    let (_endpoints, channel) =
        channel(&server, |config| config.grpc.max_send_message_bytes = 1024).await;
    assert_eq!(greet(channel.clone(), sized(LIMIT)).await.unwrap(), "read");
    assert_refused(greet(channel.clone(), sized(LIMIT + 1)).await.unwrap_err(), OUT);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let (asked, receiver) = mpsc::channel(8);
    asked.try_send(sized(LIMIT)).unwrap();
    let mut answers = chat(channel, receiver).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().encoded_len(), LIMIT);
    asked.send(sized(LIMIT + 1)).await.unwrap();
    assert_refused(answers.message().await.unwrap_err(), OUT);
}

#[test]
fn limits_out_of_range_are_named() {
    type Change = fn(&mut ServerConfig);
    let cases: [(&str, Change); 2] = [
        ("max_receive_message_bytes", |config| config.max_receive_message_bytes = 1023),
        ("max_send_message_bytes", |config| config.max_send_message_bytes = (1 << 30) + 1),
    ];
    for (key, change) in cases {
        let mut config = config();
        change(&mut config);
        let error = config.validate("grpc").unwrap_err();
        let named = format!("grpc.{key} is out of range, allowed is 1024 to 1073741824");
        assert_eq!(error.message(), named);
    }
}

#[cfg(not(feature = "compression"))]
#[tokio::test]
async fn compression_that_is_not_there_is_refused_at_the_start() {
    let mut config = config();
    config.compression.answers = true;
    let error = config.validate("grpc").unwrap_err();
    let said = "grpc.compression: this program was built without it: enable the feature \
                `compression`";
    assert_eq!(error.message(), said);

    let endpoints = Endpoints::of([]).await;
    let mut config = ClientConfig::default();
    config.grpc.compress_requests = true;
    let channel = Channel::builder("greeter", &endpoints.discovery()).config(&config).build();
    let error = channel.err().unwrap();
    assert!(error.message().contains("enable the feature `compression`"), "{error}");
}
