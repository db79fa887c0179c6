//! Where etcd is, and where in it endpoints are kept.

use chassis_core::{Result, Secret};
use serde::{Deserialize, Serialize};

use super::{TlsConfig, invalid};

/// Settings for the mode `etcd`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdConfig {
    /// The members of the cluster. One is used; the next where it fails.
    pub urls: Vec<String>,
    /// The beginning of every key: `PREFIX/service/protocol/address`.
    pub prefix: String,
    /// Who to log in as. Empty: etcd without authentication.
    pub user: String,
    /// The password of the user.
    pub password: Secret,
    /// For `https://`.
    pub tls: TlsConfig,
}

impl Default for EtcdConfig {
    fn default() -> EtcdConfig {
        EtcdConfig {
            urls: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/chassis/endpoints".to_owned(),
            user: String::new(),
            password: Secret::default(),
            tls: TlsConfig::default(),
        }
    }
}

impl EtcdConfig {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let length = self.prefix.len();
        if !(1..=256).contains(&length) || self.prefix.ends_with('/') {
            return Err(invalid(format!(
                "discovery.etcd.prefix is `{}`, allowed are 1 to 256 bytes without a `/` at the end",
                self.prefix
            )));
        }
        Ok(())
    }
}
