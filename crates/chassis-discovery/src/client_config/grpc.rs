//! What a client of gRPC says of messages.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use serde::{Deserialize, Serialize};

use crate::limits::within;

/// Settings of the messages of a gRPC client, as a configuration file writes them. A client of
/// HTTP has no use for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcClientConfig {
    /// Largest message of an answer, in bytes on the wire; a larger one is `RESOURCE_EXHAUSTED`.
    /// More than 4194304 needs `max_decoding_message_size` of the generated client too. 1024 to
    /// 1073741824.
    pub max_receive_message_bytes: u32,
    /// Largest message of a request, in bytes on the wire; a larger one is `RESOURCE_EXHAUSTED`
    /// and not sent. 1024 to 1073741824.
    pub max_send_message_bytes: u32,
    /// Whether requests are compressed, by gzip; the callee must read that. Not where one message
    /// holds both a secret and what somebody else may choose: its length would tell of the
    /// secret.
    pub compress_requests: bool,
    /// Smallest message of a request that is compressed, in bytes. 1 to 65535.
    pub compress_min_bytes: u16,
    /// Whether answers may come compressed; `max_receive_message_bytes` holds before and after.
    pub compressed_answers: bool,
    /// How often a quiet server with calls under way is asked whether it is still there. 1s to
    /// 1h, or 0s for never. Servers of gRPC in C, Go and Java close connections on which they are
    /// asked more often than every 5m, unless they are told otherwise.
    #[serde(with = "duration")]
    pub keep_alive_interval: Duration,
    /// How long it has to answer that, before its calls fail. 1s to 10m.
    #[serde(with = "duration")]
    pub keep_alive_timeout: Duration,
}

impl Default for GrpcClientConfig {
    /// What gRPC reads everywhere unless it is told otherwise, both ways: a larger message is
    /// one that the callee refuses after it was sent.
    fn default() -> GrpcClientConfig {
        GrpcClientConfig {
            max_receive_message_bytes: 4 * 1024 * 1024,
            max_send_message_bytes: 4 * 1024 * 1024,
            compress_requests: false,
            // A smaller message fits into a packet either way.
            compress_min_bytes: 1024,
            compressed_answers: false,
            // A server that is gone without a word is noticed within half a minute.
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(10),
        }
    }
}

impl GrpcClientConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as
    /// `clients.greeter.grpc`, the value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        let sizes = 1024..=1 << 30;
        let receive = self.max_receive_message_bytes;
        within(&key("max_receive_message_bytes"), receive, sizes.clone())?;
        within(&key("max_send_message_bytes"), self.max_send_message_bytes, sizes)?;
        within(&key("compress_min_bytes"), self.compress_min_bytes, 1..=u16::MAX)?;
        let second = Duration::from_secs(1);
        if !self.keep_alive_interval.is_zero() {
            let hour = Duration::from_secs(3600);
            within(&key("keep_alive_interval"), self.keep_alive_interval, second..=hour)?;
        }
        let ten_minutes = Duration::from_secs(600);
        within(&key("keep_alive_timeout"), self.keep_alive_timeout, second..=ten_minutes)
    }
}
