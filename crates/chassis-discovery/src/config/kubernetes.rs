//! Where the API server is, and which Service and port a target is there.

use chassis_core::Result;
use serde::{Deserialize, Serialize};

use super::{TlsConfig, invalid};

/// Settings for the mode `kubernetes`. The defaults are those of a pod: the API
/// server of its cluster, its own namespace, its own service account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesConfig {
    /// The API server. Empty: the one that the pod's environment names.
    pub url: String,
    /// The namespace to look in. Empty: the pod's own.
    pub namespace: String,
    /// The name of the Service, with `{service}` and `{protocol}` filled in.
    pub name: String,
    /// The name of the port, with the same. A Service with one port only may
    /// name it as it likes.
    pub port: String,
    /// The file that holds the token. It is read for each request, because it is
    /// replaced while the pod runs. Empty: no token.
    pub token_file: String,
    /// For `https://`. Without a `ca_file`, the one of the service account.
    pub tls: TlsConfig,
}

impl Default for KubernetesConfig {
    fn default() -> KubernetesConfig {
        KubernetesConfig {
            url: String::new(),
            namespace: String::new(),
            name: "{service}".to_owned(),
            port: "{protocol}".to_owned(),
            token_file: "/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned(),
            tls: TlsConfig::default(),
        }
    }
}

impl KubernetesConfig {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.name.contains("{service}") {
            return Ok(());
        }
        Err(invalid(format!(
            "discovery.kubernetes.name is `{}`, it must hold `{{service}}`",
            self.name
        )))
    }
}
