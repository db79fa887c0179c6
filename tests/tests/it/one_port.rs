//! REST, gRPC and gRPC-Web on one port: each call has the layer of its own kind, and that alone.

use std::sync::Arc;

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use chassis::{
    App, Env,
    core::SpanKind,
    discovery::{Discovery, Endpoint, Registrar, Registry, Target},
    grpc::Channel,
    http::ServerConfig,
};
use chassis_test::eventually;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{Code, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
    wire,
};

/// The path of the only call.
const CALL: &str = "/shop.ordering.v1.Ordering/GetOrder";

struct Orders;

#[tonic::async_trait]
impl Ordering for Orders {
    async fn get_order(
        &self,
        request: tonic::Request<GetOrderRequest>,
    ) -> Result<tonic::Response<Order>, Status> {
        match request.into_inner().id.as_str() {
            "none" => Err(Status::not_found("there is no such order")),
            _ => Ok(tonic::Response::new(Order { id: "one".to_owned(), ..Order::default() })),
        }
    }
}

async fn serve(config: &ServerConfig) -> Service {
    let router = Router::new().route("/items", get(|| async { "items" }));
    let calls = chassis::grpc::Server::new(&grpc(), Routes::new(OrderingServer::new(Orders)));
    let server = chassis::http::Server::new(config, router).with_grpc(calls);
    Service::start(App::new(Env::test("both")).with(server)).await
}

/// A client of HTTP/2 on a connection of any kind.
async fn http2<S>(stream: S) -> hyper::client::conn::http2::SendRequest<Body>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// An empty message in its frame.
fn call(kind: &str) -> Request<Body> {
    let request = Request::post(format!("http://both{CALL}"));
    request.header("content-type", kind).body(Body::from(vec![0; 5])).unwrap()
}

/// The status of a call, from its head or from its trailers.
async fn status(answer: Response<Incoming>) -> Code {
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or(trailers.get("grpc-status")).unwrap();
    Code::from_bytes(status.as_bytes())
}

/// How many requests were measured as HTTP and as gRPC.
fn measured(env: &Env) -> (u64, u64) {
    let text = env.metrics().encode();
    let count = |name: &str| {
        text.lines()
            .filter(|line| line.starts_with(name))
            .map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap())
            .sum()
    };
    (
        count("http_server_request_duration_seconds_count"),
        count("rpc_server_call_duration_seconds_count"),
    )
}

#[tokio::test]
async fn each_kind_is_measured_logged_and_refused_as_what_it_is() {
    let service = serve(&http()).await;
    let address = service.address("http");
    assert_eq!(service.address("grpc"), address);

    // REST over HTTP/1.1 and h2c.
    assert_eq!(wire::get(address, "/items", &[]).await.body, "items");
    let mut sender = http2(TcpStream::connect(address).await.unwrap()).await;
    let request = Request::get("http://both/items").body(Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "items");
    assert_eq!(measured(&service.env), (2, 0));

    // gRPC on the same connection, and by a generated client.
    for kind in ["application/grpc", "application/grpc+proto"] {
        assert_eq!(status(sender.send_request(call(kind)).await.unwrap()).await, Code::Ok);
    }
    let registry = Registry::new();
    let _lease = registry.register(Target::new("both", "grpc"), Endpoint::new(address)).await;
    let channel = Channel::builder("both", &Discovery::in_process(registry)).build().unwrap();
    let mut orders = OrderingClient::new(channel);
    let order = orders.get_order(GetOrderRequest::default()).await.unwrap().into_inner();
    assert_eq!(order.id, "one");
    let missing = orders.get_order(GetOrderRequest { id: "none".to_owned() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    eventually("the calls are measured", SOON, async || {
        (measured(&service.env) == (2, 4)).then_some(())
    })
    .await;

    // What is refused is refused in the words of its kind.
    let problem = wire::get(address, "/nowhere", &[]).await.problem();
    assert_eq!(problem["reason"], "ROUTE_NOT_FOUND");
    let unknown = Request::post("http://both/none.v1.None/Get")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let answer = sender.send_request(unknown).await.unwrap();
    assert_eq!((answer.status().as_u16(), status(answer).await), (200, Code::Unimplemented));
    // JSON to the path of a call, and a call over HTTP/1.1, are HTTP.
    let answer = sender.send_request(call("application/json")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let lines = "content-type: application/grpc\r\nconnection: close\r\ncontent-length: 0";
    let old = format!("POST {CALL} HTTP/1.1\r\nhost: both\r\n{lines}\r\n\r\n");
    let answer = wire::read(&mut wire::open(address, &old).await).await.unwrap();
    assert_eq!((answer.status, &answer.problem()["reason"]), (404, &"ROUTE_NOT_FOUND".into()));
    eventually("all are measured", SOON, async || (measured(&service.env) == (5, 5)).then_some(()))
        .await;

    // One span each: nothing went through two layers. The calls of the generated client said that
    // they are not sampled.
    let spans = service.env.captured_spans();
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SpanKind::Server).collect();
    assert_eq!(servers.len(), 10 - 2, "{servers:#?}");
    service.stop().await;
}

#[tokio::test]
async fn a_browser_calls_over_http1_and_its_call_is_one_of_grpc() {
    let service = serve(&http()).await;
    let address = service.address("http");
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (path, status) in [(CALL, "grpc-status:0"), ("/none.v1.None/Get", "grpc-status:12")] {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path)
            .header("host", "both")
            .header("content-type", "application/grpc-web+proto")
            .body(Body::from(vec![0; 5]))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc-web+proto");
        let head = answer.headers().get("grpc-status").cloned();
        let body: Bytes = answer.into_body().collect().await.unwrap().to_bytes();
        // The trailers are the last frame of the body, or there is no body.
        let text = String::from_utf8_lossy(&body);
        let head = head.map(|code| format!("grpc-status:{}", code.to_str().unwrap()));
        assert!(text.contains(status) || head.as_deref() == Some(status), "{text:?} {head:?}");
        stream = TcpStream::connect(address).await.unwrap();
    }
    eventually("they are measured", SOON, async || {
        (measured(&service.env) == (0, 2)).then_some(())
    })
    .await;
    let metrics = service.env.metrics().encode();
    for code in ["OK", "UNIMPLEMENTED"] {
        assert!(metrics.contains(&format!("=\"{code}\"")), "{metrics}");
    }
    service.stop().await;
}

#[tokio::test]
async fn tls_and_alpn_choose_the_version_and_the_content_type_the_kind() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["both.test".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut config = http();
    (config.tls.certificate, config.tls.key) = (certificate, key);
    let service = serve(&config).await;
    let address = service.address("http");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()).unwrap();
    let shake = async |protocol: &str| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("both.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        stream
    };

    let mut old = shake("http/1.1").await;
    let get = b"GET /items HTTP/1.1\r\nhost: both\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut old, get).await.unwrap();
    assert_eq!(wire::read(&mut old).await.unwrap().body, "items");
    let mut sender = http2(shake("h2").await).await;
    let request = Request::get("https://both.test/items").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    let answer = sender.send_request(call("application/grpc")).await.unwrap();
    assert_eq!(status(answer).await, Code::Ok);
    eventually("they are measured", SOON, async || {
        (measured(&service.env) == (2, 1)).then_some(())
    })
    .await;
    service.stop().await;
}

/// A watch of the health is a stream without end, which must not hold the drain.
#[tokio::test]
async fn a_drain_ends_the_streams_of_calls_too() {
    let service = serve(&http()).await;
    let mut sender = http2(TcpStream::connect(service.address("grpc")).await.unwrap()).await;
    let watch = Request::post("http://both/grpc.health.v1.Health/Watch")
        .header("content-type", "application/grpc")
        .body(Body::from(vec![0; 5]))
        .unwrap();
    let mut answer = sender.send_request(watch).await.unwrap();
    // Serving, as the process is up.
    let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.last(), Some(&1));
    service.begin_stop(10 * SOON);
    let rest = answer.into_body().collect();
    tokio::time::timeout(SOON, rest).await.expect("the stream ends").unwrap();
    service.ended().await.unwrap();
}
