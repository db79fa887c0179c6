//! What goes over the wire compressed, and what does not.

use std::io::{Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use chassis_core::{Env, Metrics};
use chassis_discovery::GrpcClientConfig;
use chassis_grpc::{Channel, GrpcCompressionConfig, Server, ServerConfig, from_status};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::greeter::{CHAT, GREET, Greeter, Hello, chat, greet, hello};
use crate::world::{Endpoints, Running, config};

const LARGE: usize = 64 * 1024;

fn both_ways() -> ServerConfig {
    let compression =
        GrpcCompressionConfig { answers: true, requests: true, ..GrpcCompressionConfig::default() };
    ServerConfig { compression, ..config() }
}

/// Answers with as many letters as it is asked for.
fn by_size() -> Greeter {
    Greeter::new(async |text: String| Ok("x".repeat(text.parse().unwrap())))
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(flag);
    out.put_u32(message.len().try_into().unwrap());
    out.put_slice(message);
    out.freeze()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// All of a body, from the wire.
async fn all(mut body: h2::RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// Calls `Greet` without a client that would hide anything: the headers of the answer, its body.
async fn raw(server: &Running, accepts: Option<&str>, text: &str) -> (HeaderMap, Vec<u8>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://greeter/{GREET}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(accepts) = accepts {
        request = request.header("grpc-accept-encoding", accepts);
    }
    let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(framed(0, &hello(text).encode_to_vec()), true).unwrap();
    let (head, body) = answer.await.unwrap().into_parts();
    (head.headers, all(body).await)
}

#[tokio::test]
async fn an_answer_is_compressed_for_who_accepts_it() {
    let server = Running::serve(Server::new(&both_ways(), Routes::new(by_size()))).await;
    let expected = hello("x".repeat(LARGE));

    let (headers, body) = raw(&server, Some("identity, gzip"), "65536").await;
    assert_eq!(headers["grpc-encoding"], "gzip");
    assert!(body.len() < 1024, "{}", body.len());
    assert_eq!(body[0], 1);
    assert_eq!(Hello::decode(&*gunzip(&body[5..])).unwrap(), expected);

    for accepts in [None, Some("identity"), Some("zstd")] {
        let (headers, body) = raw(&server, accepts, "65536").await;
        assert!(!headers.contains_key("grpc-encoding"), "{headers:?}");
        assert_eq!(body, framed(0, &expected.encode_to_vec()), "{accepts:?}");
    }

    let (_, body) = raw(&server, Some("gzip"), "3").await;
    assert_eq!(body, framed(0, &hello("xxx").encode_to_vec()), "not worth it");
}

#[tokio::test]
async fn nothing_is_compressed_unless_it_is_asked_for() {
    let server = Running::start(by_size()).await;
    let (headers, body) = raw(&server, Some("gzip"), "65536").await;
    assert!(!headers.contains_key("grpc-encoding"), "{headers:?}");
    assert!(body.len() > LARGE);
    let (_endpoints, channel) = compressing(server.address, &Metrics::default()).await;
    let status = greet(channel, hello("7".repeat(LARGE))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("gzip"), "{status}");
}

async fn compressing(address: std::net::SocketAddr, metrics: &Metrics) -> (Endpoints, Channel) {
    let endpoints = Endpoints::of([address]).await;
    let config = chassis_discovery::ClientConfig {
        grpc: GrpcClientConfig {
            compress_requests: true,
            compressed_answers: true,
            ..GrpcClientConfig::default()
        },
        ..chassis_discovery::ClientConfig::default()
    };
    let discovery = endpoints.discovery();
    let channel = Channel::builder("greeter", &discovery).config(&config).metrics(metrics).build();
    (endpoints, channel.unwrap())
}

#[tokio::test]
async fn a_client_says_and_does_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let (head, body) = request.into_parts();
        let body = all(body).await;
        let answer = http::Response::builder().header("grpc-status", "5").body(()).unwrap();
        respond.send_response(answer, true).unwrap();
        (head.headers, body)
    });
    let (_endpoints, channel) = compressing(address, &Metrics::default()).await;
    let status = greet(channel, hello("7".repeat(LARGE))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    let (headers, body) = seen.await.unwrap();
    assert_eq!(headers["grpc-encoding"], "gzip");
    assert_eq!(headers["grpc-accept-encoding"], "gzip,identity");
    assert!(body.len() < 1024 && body[0] == 1, "{}", body.len());
    assert_eq!(gunzip(&body[5..]), hello("7".repeat(LARGE)).encode_to_vec());
}

#[tokio::test]
async fn both_sides_agree() {
    let greeter = Greeter::new(async |text| Ok(text)).echoing();
    let server = Running::serve(Server::new(&both_ways(), Routes::new(greeter))).await;
    let metrics = Metrics::default();
    let (_endpoints, channel) = compressing(server.address, &metrics).await;
    let text = "both ways ".repeat(LARGE);
    assert_eq!(greet(channel.clone(), hello(&text)).await.unwrap(), text);
    let (asked, receiver) = mpsc::channel(8);
    let mut answers = chat(channel.clone(), receiver).await.unwrap();
    for text in ["small", &text, ""] {
        asked.send(hello(text)).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().text, text);
    }
    drop(asked);
    assert!(answers.message().await.unwrap().is_none());

    let status = greet(channel, hello("x".repeat(5 << 20))).await.unwrap_err();
    assert_eq!(from_status(status).reason(), "GRPC_MESSAGE_TOO_LARGE", "small as it would be");
    let text = metrics.encode();
    let ok =
        format!("rpc_method=\"{CHAT}\",rpc_response_status_code=\"OK\",service=\"greeter\"}} 1");
    assert!(text.contains(&ok), "{text}");
}

#[test]
fn a_bomb_is_refused_in_the_room_of_a_message() {
    const MIB: usize = 1 << 20;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        bomb.write_all(&vec![0; MIB]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < MIB, "{}", bomb.len());
    let request = http::Request::post(format!("/{GREET}"))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .body(Full::new(framed(1, &bomb)))
        .unwrap();
    let config = ServerConfig { max_receive_message_bytes: 1 << 20, ..both_ways() };
    let server = Server::new(&config, Routes::new(by_size()));
    let service = server.into_service(&Env::test("greeter"), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut answer = None;
    let measured = allocation_counter::measure(|| {
        answer = Some(runtime.block_on(service.oneshot(request)).unwrap());
    });
    assert!(measured.bytes_max < 8 << 20, "{measured:?}");
    let answer = answer.unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let message = "a message of more than 1048576 bytes is not read: \
                   `grpc.max_receive_message_bytes` here is 1048576";
    assert_eq!(status.message(), message);
    let rest = runtime.block_on(answer.into_body().collect()).unwrap();
    assert!(rest.to_bytes().is_empty());
}
