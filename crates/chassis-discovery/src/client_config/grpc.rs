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
}

impl Default for GrpcClientConfig {
    /// What gRPC reads everywhere unless it is told otherwise, both ways: a larger message is
    /// one that the callee refuses after it was sent.
    fn default() -> GrpcClientConfig {
        GrpcClientConfig {
            max_receive_message_bytes: 4 * 1024 * 1024,
            max_send_message_bytes: 4 * 1024 * 1024,
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
        within(&key("max_send_message_bytes"), self.max_send_message_bytes, sizes)
    }
}
