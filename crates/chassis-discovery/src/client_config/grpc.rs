//! What a client of gRPC says of messages.

use chassis_core::Result;
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
        within(&key("compress_min_bytes"), self.compress_min_bytes, 1..=u16::MAX)
    }
}
