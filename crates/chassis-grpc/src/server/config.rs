//! The settings of a gRPC server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use chassis_admission::AdmissionConfig;
use chassis_core::config::duration;
use chassis_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Where and how a gRPC server listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// How long a call may take if its caller gives it more time or says
    /// nothing. It covers the time to the first byte of the answer. 1ms to 1h.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Connections at a time; more wait to be accepted. 1 to 1000000.
    pub max_connections: usize,
    /// Calls at a time on one connection. 1 to 100000.
    pub max_concurrent_streams: u32,
    /// A connection on which no call begins within this time is closed. 1ms to
    /// 1h.
    #[serde(with = "duration")]
    pub first_call_timeout: Duration,
    /// Which calls are let in.
    pub admission: AdmissionConfig,
    /// Whether the server describes its services to tools such as grpcurl.
    pub reflection: bool,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 50051,
            request_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            // The HTTP/2 specification recommends not less than 100.
            max_concurrent_streams: 256,
            first_call_timeout: Duration::from_secs(30),
            admission: AdmissionConfig::default(),
            reflection: true,
        }
    }
}

impl ServerConfig {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `grpc`,
    /// and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let times = Duration::from_millis(1)..=Duration::from_secs(3600);
        let checks = [
            (times.contains(&self.request_timeout), "request_timeout", "1ms to 1h"),
            (times.contains(&self.first_call_timeout), "first_call_timeout", "1ms to 1h"),
            ((1..=1_000_000).contains(&self.max_connections), "max_connections", "1 to 1000000"),
            (
                (1..=100_000).contains(&self.max_concurrent_streams),
                "max_concurrent_streams",
                "1 to 100000",
            ),
        ];
        match checks.into_iter().find(|(fits, ..)| !fits) {
            None => self.admission.validate(&format!("{path}.admission")),
            Some((_, key, allowed)) => Err(Error::invalid_argument(
                "INVALID_CONFIG",
                format!("{path}.{key} is out of range, allowed is {allowed}"),
            )),
        }
    }
}
