//! The numbers of an HTTP server.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use chassis_admission::AdmissionConfig;
use chassis_core::{
    Error, Result,
    config::{SocketConfig, duration},
};
use chassis_net::{Http, KeepAlive, Limits, tls::ServerTlsConfig};
use serde::{Deserialize, Serialize};

use crate::{CompressionConfig, edge::RequestLimits, extract::MAX_JSON_DEPTH};

/// Settings of an HTTP server; every one has a default that works.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// The address to listen on; 0.0.0.0 for all of them. Loopback unless told otherwise.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// A Unix socket or one of systemd's in place of host and port.
    pub socket: SocketConfig,
    /// Time for a new connection to say something and for each head of a request to arrive.
    /// An idle connection of HTTP/1 is closed after it as well. It holds for the TLS handshake
    /// too.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// Time for a request until the head of its answer; a caller may give less, never more.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Time to the head of an answer from which on its line in the access log is a warning with
    /// `slow`. 0s for none.
    #[serde(with = "duration")]
    pub slow_after: Duration,
    /// Largest body of a request, in bytes.
    pub body_limit: usize,
    /// Time for all of the body of a request to arrive. 1ms to 24h. `request_timeout` ends the
    /// wait too, with another answer.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Time in which a client must take some of an answer; who takes nothing is cut off. 1s to
    /// 24h.
    #[serde(with = "duration")]
    pub send_timeout: Duration,
    /// Largest head of a request, in bytes. 8192 to 16777216.
    pub max_header_bytes: usize,
    /// Most headers of a request. 1 to 4096.
    pub max_headers: usize,
    /// Longest target of a request, in bytes: path and query, and the host in it. 64 to 65534.
    pub max_uri_bytes: usize,
    /// How deep arrays and objects may be nested in a body that `Json` reads. 1 to 127.
    pub max_json_depth: usize,
    /// Most connections at a time; those beyond it wait in the queue of the system.
    pub max_connections: usize,
    /// Most connections at a time from one address, or from one network of 64 bits with IPv6;
    /// those beyond it are closed. 0 for no limit: behind a proxy all come from one address.
    pub max_connections_per_address: usize,
    /// Most requests at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Which requests are let in.
    pub admission: AdmissionConfig,
    /// Age after which a connection is asked to end, so that load spreads over new
    /// instances; up to a tenth is added at random. 0s for no limit.
    #[serde(with = "duration")]
    pub max_connection_age: Duration,
    /// A connection of HTTP/2 on which no request began for this long, up to twice as long, is
    /// asked to end. 0s for no limit.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Bodies that are compressed.
    pub compression: CompressionConfig,
    /// TLS, and the certificates of clients.
    pub tls: ServerTlsConfig,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            socket: SocketConfig::default(),
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            slow_after: Duration::from_millis(500),
            body_limit: 2 * 1024 * 1024,
            // Below `request_timeout`, so that it is said what was slow.
            body_timeout: Duration::from_secs(20),
            send_timeout: Duration::from_secs(30),
            max_header_bytes: 64 * 1024,
            // What hyper has on its stack; more cost two allocations for each request.
            max_headers: 100,
            // RFC 9110 asks for 8000 at least.
            max_uri_bytes: 8192,
            max_json_depth: MAX_JSON_DEPTH,
            max_connections: 10_000,
            max_connections_per_address: 0,
            max_concurrent_streams: 200,
            admission: AdmissionConfig::default(),
            max_connection_age: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(5 * 60),
            compression: CompressionConfig::default(),
            tls: ServerTlsConfig::default(),
        }
    }
}

impl ServerConfig {
    pub(super) fn connections(&self) -> Limits {
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Limits {
            max_connections: self.max_connections,
            max_per_address: Some(self.max_connections_per_address).filter(|most| *most > 0),
            first_bytes: self.header_timeout,
            head: self.header_timeout,
            first_request: None,
            send: Some(self.send_timeout),
            idle: some(self.idle_timeout),
            max_age: some(self.max_connection_age),
        }
    }

    pub(super) fn http(&self) -> Http {
        Http {
            only_http2: false,
            max_header_bytes: self.max_header_bytes,
            max_headers: self.max_headers,
            max_concurrent_streams: self.max_concurrent_streams,
            keep_alive: KeepAlive::default(),
        }
    }

    pub(crate) fn requests(&self) -> RequestLimits {
        RequestLimits {
            body: self.body_limit as u64,
            body_timeout: self.body_timeout,
            headers: self.max_headers,
            uri: self.max_uri_bytes,
            json_depth: self.max_json_depth,
        }
    }

    /// Checks the numbers that would make a server which serves nobody.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting.
    pub fn validate(&self) -> Result<()> {
        let day = Duration::from_secs(24 * 3600);
        let body_times = Duration::from_millis(1)..=day;
        let checks = [
            ("body_timeout", body_times.contains(&self.body_timeout), "1ms to 24h"),
            (
                "send_timeout",
                (Duration::from_secs(1)..=day).contains(&self.send_timeout),
                "1s to 24h",
            ),
            ("max_headers", (1..=4096).contains(&self.max_headers), "1 to 4096"),
            ("max_uri_bytes", (64..=65_534).contains(&self.max_uri_bytes), "64 to 65534"),
            ("max_json_depth", (1..=MAX_JSON_DEPTH).contains(&self.max_json_depth), "1 to 127"),
            ("header_timeout", !self.header_timeout.is_zero(), "more than 0s"),
            ("request_timeout", !self.request_timeout.is_zero(), "more than 0s"),
            ("max_header_bytes", self.max_header_bytes >= 8192, "at least 8192"),
            ("max_header_bytes", self.max_header_bytes <= 16 << 20, "at most 16777216"),
            ("max_connections", self.max_connections > 0, "at least 1"),
            ("max_connections", self.max_connections <= 1_000_000, "at most 1000000"),
            ("max_concurrent_streams", self.max_concurrent_streams > 0, "at least 1"),
        ];
        match checks.into_iter().find(|(_, good, _)| !good) {
            None => {
                self.socket.validate("http.socket")?;
                self.compression.validate("http.compression")?;
                self.admission.validate("http.admission")?;
                self.tls.validate("http.tls")
            }
            Some((name, _, wanted)) => Err(Error::invalid_argument(
                "INVALID_CONFIG",
                format!("the setting {name} of the HTTP server must be {wanted}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_what_serves_nobody_is_not() {
        assert!(ServerConfig::default().validate().is_ok());
        let broken = ServerConfig { max_connections: 0, ..ServerConfig::default() };
        assert!(broken.validate().is_err_and(|e| e.message().contains("max_connections")));
        let mut broken = ServerConfig::default();
        broken.admission.shed.min_limit = 0;
        let error = broken.validate().unwrap_err();
        let expected = "http.admission.shed.min_limit is 0, allowed is 1 to 1000000";
        assert_eq!(error.message(), expected);
    }
}
