//! The client against a server that speaks TLS, or breaks off.
//!
//! The certificates in `testdata` were made with `openssl` for these tests, for
//! `localhost` and 127.0.0.1, and are valid for a hundred years.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn file(name: &str) -> String {
    format!("{}/src/http/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file(name)).unwrap().map(Result::unwrap).collect()
}

/// Answers every request over TLS; asks for a certificate if told to.
async fn secure(mutual: bool) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server-key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificates("ca.pem").remove(0)).unwrap();
    let config = match mutual {
        true => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap(),
        ),
        false => builder.with_no_client_auth(),
    };
    let config = config.with_single_cert(certificates("server.pem"), key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who is refused, or breaks off, is not the last one.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n[1, 2]";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

fn api(url: String, tls: &TlsConfig) -> Api {
    Api::new("test", "discovery.test", &[url], tls, Duration::from_secs(5)).unwrap()
}

async fn ask(api: &Api) -> Result<Vec<u8>> {
    api.call(Call::new(Method::GET, "/")).await?.json().await
}

#[tokio::test]
async fn only_a_server_of_the_given_authority_is_trusted() {
    let port = secure(false).await;
    let tls = |ca: &str| TlsConfig { ca_file: file(ca), ..TlsConfig::default() };
    for host in ["localhost", "127.0.0.1"] {
        let api = api(format!("https://{host}:{port}"), &tls("ca.pem"));
        assert_eq!(ask(&api).await.unwrap(), [1, 2]);
    }
    let stranger = api(format!("https://localhost:{port}"), &tls("other-ca.pem"));
    let error = ask(&stranger).await.unwrap_err();
    assert!(error.chain().contains("certificate"), "{}", error.chain());
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_where_one_is_asked_for() {
    let port = secure(true).await;
    let nobody = TlsConfig { ca_file: file("ca.pem"), ..TlsConfig::default() };
    let url = format!("https://localhost:{port}");
    ask(&api(url.clone(), &nobody)).await.unwrap_err();
    let somebody = TlsConfig {
        cert_file: file("server.pem"),
        key_file: file("server-key.pem"),
        ..nobody.clone()
    };
    assert_eq!(ask(&api(url, &somebody)).await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_an_error_and_the_next_place_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n[1,").await;
        }
    });
    let cut = api(format!("http://127.0.0.1:{bad}"), &TlsConfig::default());
    assert_eq!(ask(&cut).await.unwrap_err().reason(), "REGISTRY_BROKEN");

    let good = secure(false).await;
    // Bound and closed: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let urls = [format!("http://127.0.0.1:{closed}"), format!("https://localhost:{good}")];
    let tls = TlsConfig { ca_file: file("ca.pem"), ..TlsConfig::default() };
    let two = Api::new("test", "discovery.test", &urls, &tls, Duration::from_secs(5)).unwrap();
    assert_eq!(ask(&two).await.unwrap_err().reason(), "REGISTRY_UNREACHABLE");
    assert_eq!(ask(&two).await.unwrap(), [1, 2]);
}
