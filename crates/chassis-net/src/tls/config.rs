//! The settings of TLS.

use std::{path::PathBuf, time::Duration};

use chassis_core::{Error, Result, config::duration};
use serde::{Deserialize, Serialize};

/// Whether a server speaks TLS, and with which files (PEM).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerTlsConfig {
    /// File with the certificate of the server, and after it those that lead to its root.
    /// Empty: no TLS.
    pub certificate: PathBuf,
    /// File with the private key of the certificate.
    pub key: PathBuf,
    /// File with the roots that the certificate of a client must lead to. Empty: clients are
    /// not asked for one.
    pub client_roots: PathBuf,
    /// Whether a client without a certificate is refused; needs `client_roots`.
    pub client_required: bool,
    /// How often the files are looked at for a change. 1s to 24h.
    #[serde(with = "duration")]
    pub reload_every: Duration,
}

impl Default for ServerTlsConfig {
    fn default() -> ServerTlsConfig {
        ServerTlsConfig {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_roots: PathBuf::new(),
            client_required: false,
            // Kubernetes brings a changed secret within a minute or so.
            reload_every: Duration::from_secs(30),
        }
    }
}

impl ServerTlsConfig {
    /// Whether the server speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Checks what can be checked without a look at the files.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `http.tls`.
    pub fn validate(&self, path: &str) -> Result<()> {
        let is_set = |file: &PathBuf| !file.as_os_str().is_empty();
        let times = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        let wrong = if is_set(&self.certificate) != is_set(&self.key) {
            Some("certificate and key go together: set both, or none for no TLS".to_owned())
        } else if is_set(&self.client_roots) && !self.is_on() {
            Some("client_roots is set, but there is no TLS without certificate and key".to_owned())
        } else if self.client_required && !is_set(&self.client_roots) {
            Some("client_required needs client_roots: whom to trust".to_owned())
        } else if !times.contains(&self.reload_every) {
            Some(format!("reload_every is {:?}, allowed is 1s to 24h", self.reload_every))
        } else if self.is_on() && cfg!(not(feature = "tls")) {
            Some("this program was built without TLS: enable the feature `tls`".to_owned())
        } else {
            None
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => {
                Err(Error::invalid_argument("INVALID_CONFIG", format!("{path}: {wrong}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(ServerTlsConfig::default().validate("http.tls").is_ok());
        let file = || PathBuf::from("server.pem");
        let cases = [
            (ServerTlsConfig { certificate: file(), ..ServerTlsConfig::default() }, "set both"),
            (ServerTlsConfig { key: file(), ..ServerTlsConfig::default() }, "set both"),
            (
                ServerTlsConfig { client_roots: file(), ..ServerTlsConfig::default() },
                "no TLS without",
            ),
            (
                ServerTlsConfig { client_required: true, ..ServerTlsConfig::default() },
                "needs client_roots",
            ),
            (
                ServerTlsConfig { reload_every: Duration::ZERO, ..ServerTlsConfig::default() },
                "allowed is 1s to 24h",
            ),
        ];
        for (config, said) in cases {
            let error = config.validate("http.tls").unwrap_err();
            assert!(error.message().contains(said), "{error}");
            assert!(error.message().starts_with("http.tls: "), "{error}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_program_without_tls_says_so() {
        let file = || PathBuf::from("server.pem");
        let config =
            ServerTlsConfig { certificate: file(), key: file(), ..ServerTlsConfig::default() };
        let error = config.validate("http.tls").unwrap_err();
        assert!(error.message().contains("feature `tls`"), "{error}");
    }
}
