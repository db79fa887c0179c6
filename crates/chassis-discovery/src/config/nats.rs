//! Where NATS is, and which bucket holds the endpoints.

use chassis_core::{Result, Secret};
use serde::{Deserialize, Serialize};

use super::invalid;

/// Settings for the mode `nats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct NatsConfig {
    /// The servers, separated by commas, with user and password if they ask.
    pub url: Secret,
    /// The key-value bucket. It is made if it is not there; its maximum age is
    /// the lease, for everybody who uses it.
    pub bucket: String,
    /// How many servers of a cluster keep the bucket. 1 to 5.
    pub replicas: usize,
}

impl Default for NatsConfig {
    fn default() -> NatsConfig {
        NatsConfig {
            url: Secret::new("nats://127.0.0.1:4222"),
            bucket: "chassis-endpoints".to_owned(),
            replicas: 1,
        }
    }
}

impl NatsConfig {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        crate::limits::within("discovery.nats.replicas", self.replicas, 1..=5)?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.bucket.is_empty() || self.bucket.len() > 64 || !self.bucket.chars().all(good) {
            return Err(invalid(format!(
                "discovery.nats.bucket is `{}`, allowed are 1 to 64 letters, digits, `-` and `_`",
                self.bucket
            )));
        }
        Ok(())
    }
}
