//! Reaching the server: again and again at start, for a bounded time.
//!
//! In a system that starts all at once the broker is often the slower one. After
//! the first connection the client reconnects by itself, for ever.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use chassis_core::{Error, Result};
use chassis_resilience::retry::Backoff;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::unavailable;

/// The oldest version of the server, major and minor number.
const OLDEST: (u32, u32) = (2, 9);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connects; the receiver changes with each connection made.
pub(super) async fn connect(
    url: &str,
    patience: Duration,
) -> Result<(Client, watch::Receiver<u64>)> {
    let servers = parse(url)?;
    let names = names(&servers);
    let until = Instant::now() + patience;
    let pause = Backoff { base: FIRST_PAUSE, cap: LONGEST_PAUSE, factor: 2.0 };
    let mut attempt = 0;
    loop {
        let (count, mut connections) = watch::channel(0);
        let error = match options(count).connect(&servers[..]).await {
            Ok(client) => {
                // Told of a little later; whoever looks for changes must not see this one.
                let told = connections.wait_for(|count| *count > 0);
                let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
                connections.mark_unchanged();
                let version = client.server_info().version;
                if is_too_old(&version) {
                    return Err(too_old(&names, &version));
                }
                tracing::info!(servers = %names, %version, "connected to NATS");
                return Ok((client, connections));
            }
            Err(error) => error,
        };
        let refused = matches!(
            error.kind(),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation
        );
        if refused {
            let message = format!("NATS at {names} refuses the credentials");
            return Err(Error::unauthenticated("BROKER_CREDENTIALS", message).with_source(error));
        }
        attempt += 1;
        let wait = pause.delay(attempt, fastrand::f64()).max(FIRST_PAUSE / 2);
        if Instant::now() + wait >= until {
            let message = format!("NATS at {names} does not answer, tried for {patience:?}");
            return Err(Error::unavailable("BROKER_UNREACHABLE", message).with_source(error));
        }
        tracing::warn!(servers = %names, %error, attempt, "NATS does not answer, trying again");
        sleep(wait).await;
    }
}

/// Whether a server lacks what is used here: naks with a delay, purges up to a
/// position and consumers as they are since 2.9. A version that cannot be read counts
/// as a development build.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}

fn too_old(names: &str, version: &str) -> Error {
    let (major, minor) = OLDEST;
    let message = format!(
        "NATS at {names} is version {version}, which is too old: install nats-server \
         {major}.{minor} or newer (Debian 12 and later: apt-get install nats-server)"
    );
    Error::failed_precondition("BROKER_TOO_OLD", message)
}

/// Waits for JetStream, which comes up after the port does.
pub(super) async fn require_jetstream(client: &Client, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience.min(Duration::from_secs(5));
    loop {
        match ask_jetstream(client).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => sleep(FIRST_PAUSE).await,
        }
    }
}

/// Asks JetStream whether it is there.
///
/// By hand, since async-nats reads fields out of the answer that servers before 2.10 do not
/// send.
pub(super) async fn ask_jetstream(client: &Client) -> Result<()> {
    let disabled = || {
        Error::failed_precondition(
            "JETSTREAM_DISABLED",
            "this NATS server or account has no JetStream; start the server with -js",
        )
    };
    let answer = client.request("$JS.API.INFO", Bytes::new()).await.map_err(|error| {
        let message = match error.kind() {
            RequestErrorKind::NoResponders => disabled(),
            _ => unavailable("NATS does not answer"),
        };
        message.with_source(error)
    })?;
    let answer: Info = serde_json::from_slice(&answer.payload).map_err(Error::internal)?;
    match answer.error {
        None => Ok(()),
        Some(error) => Err(disabled().with_source(error.description)),
    }
}

#[derive(Deserialize)]
struct Info {
    error: Option<InfoError>,
}

#[derive(Deserialize)]
struct InfoError {
    description: String,
}

/// Whether the connection is up right now.
pub(super) fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

fn options(connections: watch::Sender<u64>) -> ConnectOptions {
    ConnectOptions::new()
        .name("chassis")
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(20))
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            let doubled = FIRST_PAUSE.saturating_mul(1 << attempt.min(8));
            doubled.min(LONGEST_PAUSE)
        })
        .event_callback(move |event| {
            match &event {
                Event::Connected => {
                    connections.send_modify(|count| *count += 1);
                    tracing::debug!("NATS: {event}");
                }
                Event::Disconnected | Event::SlowConsumer(_) | Event::ServerError(_) => {
                    tracing::warn!("NATS: {event}");
                }
                _ => tracing::info!("NATS: {event}"),
            }
            std::future::ready(())
        })
}

fn parse(url: &str) -> Result<Vec<ServerAddr>> {
    let servers = url.split(',').map(|one| one.trim().parse::<ServerAddr>());
    servers.collect::<Result<_, _>>().map_err(|_| {
        // Without the source: it may repeat the URL, and the URL a password.
        Error::invalid_argument("INVALID_BROKER_URL", "the NATS URL cannot be read")
    })
}

/// Host and port of each server, without credentials.
fn names(servers: &[ServerAddr]) -> String {
    let names: Vec<_> =
        servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_no_password() {
        let servers = parse("nats://ada:secret@one:4222, nats://two").unwrap();
        assert_eq!(names(&servers), "one:4222, two:4222");
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        let error = parse("nats://ada:sec ret@:x").unwrap_err();
        assert!(!error.chain().contains("ret"), "{}", error.chain());
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, expected) in [
            ("2.8.4", true),
            ("1.4.1", true),
            ("2.9.10", false),
            ("2.15.1", false),
            ("2.10.0-beta.1", false),
            ("3.0.0", false),
            ("dev", false),
        ] {
            assert_eq!(is_too_old(version), expected, "{version}");
        }
    }

    /// Greets as a server of this version does, and answers the client's ping.
    async fn greet(listener: tokio::net::TcpListener, version: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let info = serde_json::json!({
            "server_id": "X", "server_name": "x", "version": version, "go": "go1", "host": "",
            "port": 1, "headers": true, "max_payload": 1_048_576, "proto": 1, "client_id": 1,
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
            if stream.write_all(b"PONG\r\n").await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_too_old_is_refused_with_what_to_install() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(greet(listener, "2.8.4"));
        let error = connect(&url, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.reason(), "BROKER_TOO_OLD");
        for word in ["2.8.4", "2.9 or newer", "apt-get install nats-server"] {
            assert!(error.message().contains(word), "{error}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_gives_one_clear_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = format!("nats://ada:secret@{address}");
        let error = connect(&url, Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(error.reason(), "BROKER_UNREACHABLE");
        assert!(error.message().contains(&address.to_string()), "{error}");
        assert!(!error.chain().contains("secret"), "{}", error.chain());
    }
}
