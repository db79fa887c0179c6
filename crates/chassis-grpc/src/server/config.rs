//! The settings of a gRPC server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use chassis_admission::AdmissionConfig;
use chassis_core::config::{SocketConfig, duration};
use chassis_core::{Error, Result};
use chassis_net::{Http, KeepAlive, Limits, tls::ServerTlsConfig};
use serde::{Deserialize, Serialize};

use crate::call::compression::Compression;

/// The largest metadata of a call, in bytes; gRPC of C refuses more than that as well.
const MAX_METADATA_BYTES: usize = 16 * 1024;

/// The sizes of messages that may be allowed, in bytes.
const MESSAGE_BYTES: RangeInclusive<u32> = 1024..=1 << 30;

/// Where and how a gRPC server listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// A Unix socket or one of systemd's in place of host and port.
    pub socket: SocketConfig,
    /// How long a call may take if its caller gives it more time or says
    /// nothing. It covers the time to the first byte of the answer. 1ms to 1h.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Time to the first byte of an answer from which on the call's line in the access log is a
    /// warning with `slow`. 0s for none.
    #[serde(with = "duration")]
    pub slow_after: Duration,
    /// Connections at a time; more wait to be accepted. 1 to 1000000.
    pub max_connections: usize,
    /// Connections at a time from one address, or from one network of 64 bits with IPv6; those
    /// beyond it are closed. 0 for no limit: behind a proxy all come from one address.
    pub max_connections_per_address: usize,
    /// Calls at a time on one connection. 1 to 100000.
    pub max_concurrent_streams: u32,
    /// Largest message of a caller, in bytes on the wire; a larger one is `RESOURCE_EXHAUSTED`.
    /// More than 4194304 needs `max_decoding_message_size` of the generated server too. 1024 to
    /// 1073741824.
    pub max_receive_message_bytes: u32,
    /// Largest message of an answer, in bytes on the wire; in place of a larger one the caller
    /// gets `RESOURCE_EXHAUSTED`. 1024 to 1073741824.
    pub max_send_message_bytes: u32,
    /// Messages that are compressed.
    pub compression: GrpcCompressionConfig,
    /// A connection on which no call begins within this time is closed. 1ms to
    /// 1h.
    #[serde(with = "duration")]
    pub first_call_timeout: Duration,
    /// A connection on which no call began for this long, up to twice as long, is asked to
    /// end; calls that are under way go on. 0s for no limit.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Age after which a connection is asked to end, so that load spreads over new
    /// instances; up to a tenth is added at random. 0s for no limit.
    #[serde(with = "duration")]
    pub max_connection_age: Duration,
    /// How often a quiet client with calls under way is asked whether it is still there. 1s to
    /// 1h, or 0s for never.
    #[serde(with = "duration")]
    pub keep_alive_interval: Duration,
    /// How long it has to answer that, before its calls are cancelled. 1s to 10m.
    #[serde(with = "duration")]
    pub keep_alive_timeout: Duration,
    /// Which calls are let in.
    pub admission: AdmissionConfig,
    /// Whether the server describes its services to tools such as grpcurl.
    pub reflection: bool,
    /// TLS, and the certificates of clients.
    pub tls: ServerTlsConfig,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 50051,
            socket: SocketConfig::default(),
            request_timeout: Duration::from_secs(30),
            slow_after: Duration::from_millis(500),
            max_connections: 10_000,
            max_connections_per_address: 0,
            // The HTTP/2 specification recommends not less than 100.
            max_concurrent_streams: 256,
            // What gRPC reads everywhere unless it is told otherwise.
            max_receive_message_bytes: 4 * 1024 * 1024,
            // gRPC has none; a larger message is one that callers refuse after it was sent.
            max_send_message_bytes: 4 * 1024 * 1024,
            compression: GrpcCompressionConfig::default(),
            first_call_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(5 * 60),
            max_connection_age: Duration::from_secs(30 * 60),
            keep_alive_interval: Duration::from_secs(30),
            // gRPC's own.
            keep_alive_timeout: Duration::from_secs(20),
            admission: AdmissionConfig::default(),
            reflection: true,
            tls: ServerTlsConfig::default(),
        }
    }
}

impl ServerConfig {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(super) fn connections(&self) -> Limits {
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Limits {
            max_connections: self.max_connections,
            max_per_address: Some(self.max_connections_per_address).filter(|most| *most > 0),
            first_bytes: self.first_call_timeout,
            // It has no say where only HTTP/2 is spoken.
            head: self.first_call_timeout,
            first_request: Some(self.first_call_timeout),
            // A peer that takes nothing does not answer pings either.
            send: None,
            idle: some(self.idle_timeout),
            max_age: some(self.max_connection_age),
        }
    }

    pub(super) fn http(&self) -> Http {
        Http {
            only_http2: true,
            max_header_bytes: MAX_METADATA_BYTES,
            // This one neither.
            max_headers: 100,
            max_concurrent_streams: self.max_concurrent_streams,
            keep_alive: KeepAlive {
                every: Some(self.keep_alive_interval).filter(|every| !every.is_zero()),
                timeout: self.keep_alive_timeout,
            },
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `grpc`,
    /// and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let times = Duration::from_millis(1)..=Duration::from_secs(3600);
        let second = Duration::from_secs(1);
        let every = self.keep_alive_interval;
        let checks = [
            (
                every.is_zero() || (second..=Duration::from_secs(3600)).contains(&every),
                "keep_alive_interval",
                "1s to 1h, or 0s for never",
            ),
            (
                (second..=Duration::from_secs(600)).contains(&self.keep_alive_timeout),
                "keep_alive_timeout",
                "1s to 10m",
            ),
            (times.contains(&self.request_timeout), "request_timeout", "1ms to 1h"),
            (times.contains(&self.first_call_timeout), "first_call_timeout", "1ms to 1h"),
            ((1..=1_000_000).contains(&self.max_connections), "max_connections", "1 to 1000000"),
            (
                (1..=100_000).contains(&self.max_concurrent_streams),
                "max_concurrent_streams",
                "1 to 100000",
            ),
            (
                MESSAGE_BYTES.contains(&self.max_receive_message_bytes),
                "max_receive_message_bytes",
                "1024 to 1073741824",
            ),
            (
                MESSAGE_BYTES.contains(&self.max_send_message_bytes),
                "max_send_message_bytes",
                "1024 to 1073741824",
            ),
        ];
        match checks.into_iter().find(|(fits, ..)| !fits) {
            None => {
                self.socket.validate(&format!("{path}.socket"))?;
                self.compression.validate(&format!("{path}.compression"))?;
                self.admission.validate(&format!("{path}.admission"))?;
                self.tls.validate(&format!("{path}.tls"))
            }
            Some((_, key, allowed)) => Err(Error::invalid_argument(
                "INVALID_CONFIG",
                format!("{path}.{key} is out of range, allowed is {allowed}"),
            )),
        }
    }
}

/// Whether messages are compressed, by gzip. Needs the feature `compression`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcCompressionConfig {
    /// Whether answers are compressed for callers that accept gzip. Not where one answer holds
    /// both a secret and what a caller has sent: its length would tell of the secret.
    pub answers: bool,
    /// Smallest message of an answer that is compressed, in bytes. 1 to 65535.
    pub min_bytes: u16,
    /// Whether requests may come compressed; `max_receive_message_bytes` holds before and after.
    pub requests: bool,
}

impl Default for GrpcCompressionConfig {
    fn default() -> GrpcCompressionConfig {
        // A smaller message fits into a packet either way.
        GrpcCompressionConfig { answers: false, min_bytes: 1024, requests: false }
    }
}

impl GrpcCompressionConfig {
    pub(super) fn both_ways(&self) -> Compression {
        Compression { sends_from: self.answers.then_some(self.min_bytes), reads: self.requests }
    }

    fn validate(&self, path: &str) -> Result<()> {
        let wrong = if self.min_bytes == 0 {
            "min_bytes is 0, allowed is 1 to 65535"
        } else if (self.answers || self.requests) && cfg!(not(feature = "compression")) {
            "this program was built without it: enable the feature `compression`"
        } else {
            return Ok(());
        };
        Err(Error::invalid_argument("INVALID_CONFIG", format!("{path}: {wrong}")))
    }
}
