//! What leaves for a collector behind TLS.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use chassis_test::eventually;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

use crate::{
    hello::{Hello, SOON},
    wire,
};

/// A collector that takes everything, as the service sees it.
struct Collector {
    address: SocketAddr,
    /// What came in on a connection, up to its first blank line or pause.
    heads: mpsc::Receiver<String>,
    certificate: PathBuf,
}

impl Collector {
    fn start(folder: &Path, alpn: &[u8]) -> Collector {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = folder.join("collector.pem");
        std::fs::write(&certificate, signed.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let (sender, heads) = mpsc::channel();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, sender) = (config.clone(), sender.clone());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                    let tls = ServerConnection::new(config).unwrap();
                    let _ = sender.send(head(StreamOwned::new(tls, stream)));
                });
            }
        });
        Collector { address, heads, certificate }
    }

    /// The first head of these that comes.
    async fn next(&self) -> String {
        eventually("the collector is called", SOON, async || self.heads.try_recv().ok()).await
    }
}

fn head(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> String {
    let (mut seen, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(count) => seen.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !seen.is_empty() => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            // Whoever does not trust the certificate says so.
            Err(error) => return error.to_string(),
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.flush();
    String::from_utf8_lossy(&seen).into_owned()
}

/// A service that was called once and is told to stop: all that it has leaves now.
async fn exports(vars: &[(&str, &str)]) -> Hello {
    let mut hello = Hello::start(vars).await;
    assert_eq!(wire::get(hello.http, "/orders/7", &[]).await.status, 200);
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_metrics_leave_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), b"http/1.1");
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let certificate = collector.certificate.to_str().unwrap();
    exports(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate),
    ])
    .await;
    let heads = [collector.next().await, collector.next().await];
    for path in ["/v1/traces", "/v1/metrics"] {
        let first = format!("POST {path} HTTP/1.1\r\n");
        assert!(heads.iter().any(|head| head.starts_with(&first)), "{heads:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_leave_over_grpc_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), b"h2");
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let certificate = collector.certificate.to_str().unwrap();
    exports(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate),
    ])
    .await;
    let head = collector.next().await;
    assert!(head.starts_with("PRI * HTTP/2.0\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_trusted_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), b"http/1.1");
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let hello = exports(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        // Of another one.
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", other(folder.path()).to_str().unwrap()),
    ])
    .await;
    let head = collector.next().await;
    assert!(!head.contains("POST"), "{head}");
    assert!(hello.stdout().contains("spans cannot be exported"), "{}", hello.stdout());
}

fn other(folder: &Path) -> PathBuf {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = folder.join("other.pem");
    std::fs::write(&file, signed.cert.pem()).unwrap();
    file
}
