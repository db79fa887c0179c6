//! TLS as clients see it.

use std::{sync::Arc, time::Duration};

use chassis_core::Env;
use chassis_net::tls::{ServerTlsConfig, Tls};
use chassis_test::eventually;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    SOON, Server, ask,
    certificates::{Authority, Files},
    limits, rest,
};

async fn shake(server: &Server, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("greeter.test").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let shaken = tokio::time::timeout(SOON, connector.connect(name, server.connect().await));
    shaken.await.expect("the handshake ends")
}

/// What a client hears; empty where it is refused, at the handshake or (TLS 1.3) after it.
async fn hear(server: &Server, client: ClientConfig) -> String {
    match shake(server, client).await {
        Ok(mut stream) => ask(&mut stream).await,
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_root_is_answered_and_speaks_what_both_can() {
    let authority = Authority::new();
    let files = Files::new(&authority.sign("greeter.test"));
    let server = Server::start(limits(), &files.config()).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = shake(&server, authority.client(None, offered)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }
    assert!(hear(&server, authority.client(None, &["http/1.1"])).await.ends_with("hello"));
    // Another root.
    assert!(shake(&server, Authority::new().client(None, &[])).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_speak_tls_gets_no_answer_and_is_counted() {
    let files = Files::new(&Authority::new().sign("greeter.test"));
    let server = Server::start(limits(), &files.config()).await;
    let answer = ask(&mut server.connect().await).await;
    assert!(!answer.contains("hello"), "{answer:?}");
    let counted = async || (server.refused("tls") == 1).then_some(());
    eventually("it is counted", SOON, counted).await;
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_cut() {
    let files = Files::new(&Authority::new().sign("greeter.test"));
    let server = Server::start(limits(), &files.config()).await;
    let begun = Instant::now();
    let mut silent = server.connect().await;
    let mut end = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut end).await;
    assert!(begun.elapsed() >= limits().first_bytes && begun.elapsed() < 2 * limits().first_bytes);
    assert_eq!(server.refused("tls"), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_that_is_required() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.sign("greeter.test"));
    files.put("clients.pem", &clients.pem());
    let friend = clients.sign("friend.test");
    let stranger = Authority::new().sign("friend.test");
    for client_required in [true, false] {
        let config = ServerTlsConfig {
            client_roots: files.path("clients.pem"),
            client_required,
            ..files.config()
        };
        let server = Server::start(limits(), &config).await;
        let heard = async |identity| {
            let answer = hear(&server, authority.client(identity, &["http/1.1"])).await;
            answer.ends_with("hello")
        };
        assert!(heard(Some(&friend)).await);
        assert!(!heard(Some(&stranger)).await, "a certificate of nobody whom we trust");
        assert_eq!(heard(None).await, !client_required);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_in_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old.sign("greeter.test"));
    let config = ServerTlsConfig { reload_every: Duration::from_secs(1), ..files.config() };
    let server = Server::start(limits(), &config).await;
    let mut before = shake(&server, old.client(None, &["http/1.1"])).await.unwrap();

    files.put("server.pem", "half of a certi");
    let labels = |result| [("server", "http"), ("result", result)];
    let failed = server.env.metrics().counter("server_tls_reloads", "", &labels("failed"));
    eventually("the broken file is seen", SOON, async || (failed.get() > 0).then_some(())).await;
    assert!(hear(&server, old.client(None, &["http/1.1"])).await.ends_with("hello"));

    files.write(&new.sign("greeter.test"));
    eventually("the new one is served", SOON, async || {
        let heard = hear(&server, new.client(None, &["http/1.1"])).await;
        heard.ends_with("hello").then_some(())
    })
    .await;
    assert!(shake(&server, old.client(None, &[])).await.is_err());
    // Who was there before is served on.
    assert!(ask(&mut before).await.ends_with("hello"));
    assert_eq!(rest(&mut before).await, "");
    server.stop().await;
}

#[test]
fn a_file_that_is_of_no_use_is_named() {
    let authority = Authority::new();
    let signed = authority.sign("greeter.test");
    let files = Files::new(&signed);
    let load = |config: &ServerTlsConfig| {
        let loaded = Tls::load(config, "http.tls", "http", &[], &Env::test("greeter"));
        loaded.map(drop).unwrap_err()
    };
    files.put("empty.pem", "");
    files.put("other.key", &authority.sign("other.test").key);
    let config = files.config();
    let cases = [
        (
            ServerTlsConfig { certificate: files.path("none.pem"), ..config.clone() },
            "none.pem: No such",
        ),
        (
            ServerTlsConfig { certificate: files.path("empty.pem"), ..config.clone() },
            "no certificate",
        ),
        (ServerTlsConfig { key: files.path("empty.pem"), ..config.clone() }, "no private key"),
        (ServerTlsConfig { key: files.path("other.key"), ..config.clone() }, "not the key of the"),
        (
            ServerTlsConfig { client_roots: files.path("empty.pem"), ..config.clone() },
            "no certificate",
        ),
    ];
    for (config, said) in cases {
        let error = load(&config);
        assert_eq!(error.reason(), "TLS_UNUSABLE");
        assert!(error.message().contains(said), "{error}");
    }
}
