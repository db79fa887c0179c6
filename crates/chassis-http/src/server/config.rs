//! The numbers of an HTTP server.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use chassis_admission::AdmissionConfig;
use chassis_core::{Error, Result, config::duration};
use chassis_net::{Http, Limits, tls::ServerTlsConfig};
use serde::{Deserialize, Serialize};

/// Settings of an HTTP server; every one has a default that works.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// The address to listen on; 0.0.0.0 for all of them. Loopback unless told otherwise.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
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
    /// Largest head of a request, in bytes; at least 8192.
    pub max_header_bytes: usize,
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
    /// TLS, and the certificates of clients.
    pub tls: ServerTlsConfig,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            slow_after: Duration::from_millis(500),
            body_limit: 2 * 1024 * 1024,
            max_header_bytes: 64 * 1024,
            max_connections: 10_000,
            max_connections_per_address: 0,
            max_concurrent_streams: 200,
            admission: AdmissionConfig::default(),
            max_connection_age: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(5 * 60),
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
            first_request: None,
            idle: some(self.idle_timeout),
            max_age: some(self.max_connection_age),
        }
    }

    pub(super) fn http(&self) -> Http {
        Http {
            only_http2: false,
            header_timeout: self.header_timeout,
            max_header_bytes: self.max_header_bytes,
            max_concurrent_streams: self.max_concurrent_streams,
        }
    }

    /// Checks the numbers that would make a server which serves nobody.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting.
    pub fn validate(&self) -> Result<()> {
        let checks = [
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
