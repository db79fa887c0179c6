//! Every server on a Unix socket, and the probe that finds the admin port there.

use axum::{Router, body::Body, routing::get};
use chassis::{
    App, Env,
    core::{AdminConfig, config::SocketConfig},
};
use chassis_test::eventually;
use http::Request;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};
use tonic::service::Routes;

use crate::{
    hello::{SOON, command, run},
    service::{Service, grpc, http},
    wire,
};

fn unix(path: &std::path::Path) -> SocketConfig {
    SocketConfig { unix: path.to_owned(), ..SocketConfig::default() }
}

#[tokio::test]
async fn http_grpc_and_admin_answer_on_paths() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut config = (http(), grpc(), AdminConfig::default());
    config.0.socket = unix(&path("http.sock"));
    config.1.socket = unix(&path("grpc.sock"));
    config.2.socket = unix(&path("admin.sock"));
    let router = Router::new().route("/", get(|| async { "hello" }));
    let app = App::new(Env::test("greeter"))
        .with(chassis::http::Admin::new(&config.2))
        .with(chassis::grpc::Server::new(&config.1, Routes::default()))
        .with(chassis::http::Server::new(&config.0, router));
    let service = Service::start(app).await;

    for (name, target, part) in [
        ("http.sock", "/", "hello"),
        ("admin.sock", "/info", "grpc.sock"),
        ("admin.sock", "/plan", "unix:"),
    ] {
        let mut stream = UnixStream::connect(path(name)).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = wire::read(&mut stream).await.unwrap();
        assert!(answer.status == 200 && answer.body.contains(part), "{target}: {answer:?}");
    }

    let stream = UnixStream::connect(path("grpc.sock")).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = Request::post("http://a/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(Body::from(vec![0; 5]))
        .unwrap();
    let answer = sender.send_request(call).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    drop(sender);
    connection.await.unwrap().unwrap();

    service.stop().await;
    for name in ["http.sock", "grpc.sock", "admin.sock"] {
        assert!(!path(name).exists(), "{name} is left");
    }
}

#[tokio::test]
async fn the_probe_asks_an_admin_port_that_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let admin = folder.path().join("admin.sock");
    let vars = [("ADMIN__SOCKET__UNIX", admin.to_str().unwrap()), ("HTTP__PORT", "0")];
    let said = run(&["--probe", "livez"], &vars).await;
    assert_eq!(said.status.code(), Some(1), "nobody is there");
    let mut child = command(&vars).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is ready", SOON, async || {
        let probed = run(&["--probe", "readyz"], &vars).await;
        (probed.status.code() == Some(0)).then_some(())
    })
    .await;
    child.kill().await.unwrap();
    // The file is left by a kill, and is no obstacle.
    assert!(admin.exists());
    let mut child = command(&vars).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is ready again", SOON, async || {
        let probed = run(&["--probe", "readyz"], &vars).await;
        (probed.status.code() == Some(0)).then_some(())
    })
    .await;
    child.kill().await.unwrap();
}
