//! From files to what rustls wants, with errors that name the file.

use std::{
    collections::hash_map::DefaultHasher,
    fmt::Display,
    hash::{Hash as _, Hasher as _},
    path::Path,
    sync::Arc,
};

use chassis_core::{Error, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::ServerTlsConfig;

/// The most that a file may hold, in bytes: a chain has a few thousand.
const MOST: u64 = 1 << 20;

/// The files as they were read.
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_roots: Option<Vec<u8>>,
}

impl Files {
    /// Reads them. Blocks for as long as the disk takes.
    pub(super) fn read(config: &ServerTlsConfig) -> Result<Files> {
        let client_roots = &config.client_roots;
        let has_roots = !client_roots.as_os_str().is_empty();
        Ok(Files {
            certificate: read(&config.certificate)?,
            key: read(&config.key)?,
            client_roots: if has_roots { Some(read(client_roots)?) } else { None },
        })
    }

    /// Tells these contents from others.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key, &self.client_roots).hash(&mut hasher);
        hasher.finish()
    }

    /// What rustls serves with.
    pub(super) fn server(
        &self,
        config: &ServerTlsConfig,
        protocols: &[Vec<u8>],
    ) -> Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(pem, &config.client_roots)? {
                    roots.add(root).map_err(|error| unusable(&config.client_roots, error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match config.client_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier =
                    verifier.build().map_err(|error| unusable(&config.client_roots, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates(&self.certificate, &config.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            unusable(&config.key, "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)")
        })?;
        let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                unusable(&config.key, "it is not the key of the certificate")
            }
            error => unusable(&config.certificate, error),
        })?;
        server.alpn_protocols = protocols.to_vec();
        Ok(server)
    }
}

fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| unusable(file, error))?;
    if found.is_empty() {
        return Err(unusable(file, "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(file).map_err(|error| unusable(file, error))?.len();
    if size > MOST {
        return Err(unusable(file, format!("it has {size} bytes, more than {MOST}")));
    }
    std::fs::read(file).map_err(|error| unusable(file, error))
}

fn unusable(file: &Path, why: impl Display) -> Error {
    let text = format!("TLS cannot use the file {}: {why}", file.display());
    Error::failed_precondition("TLS_UNUSABLE", text)
}
