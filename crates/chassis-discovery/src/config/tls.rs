//! Whom to trust behind `https://`, and who to be.

use serde::{Deserialize, Serialize};

/// Files for TLS, all PEM. They are read at start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsConfig {
    /// The authorities to trust. Needed for `https://`: which authority signs a
    /// registry is known to who runs it, not to the machine.
    pub ca_file: String,
    /// The certificate to show, if the registry asks for one.
    pub cert_file: String,
    /// The key of that certificate.
    pub key_file: String,
}
