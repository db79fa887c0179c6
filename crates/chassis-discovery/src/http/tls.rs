//! TLS towards a registry: one provider, authorities from a file.

use std::sync::Arc;

use chassis_core::{BoxError, Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::TlsConfig;
use crate::config::invalid;

/// Whom to trust, and who to be.
pub(crate) struct Tls {
    connector: TlsConnector,
}

impl Tls {
    /// Reads the files; `key` is the configuration section that messages name.
    pub(crate) fn load(key: &str, config: &TlsConfig) -> Result<Tls> {
        if config.ca_file.is_empty() {
            return Err(invalid(format!("{key}.tls.ca_file is empty, https:// needs it")));
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates(key, "ca_file", &config.ca_file)? {
            roots.add(certificate).map_err(|error| unusable(key, "ca_file", error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots);
        let client = if config.cert_file.is_empty() && config.key_file.is_empty() {
            builder.with_no_client_auth()
        } else {
            let chain = certificates(key, "cert_file", &config.cert_file)?;
            let private = PrivateKeyDer::from_pem_file(&config.key_file)
                .map_err(|error| unusable(key, "key_file", error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| unusable(key, "cert_file", error))?
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(client)) })
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, BoxError> {
        let name = ServerName::try_from(host.to_owned())?;
        Ok(self.connector.connect(name, stream).await?)
    }
}

fn certificates(key: &str, name: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(key, name, error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(unusable(key, name, "it holds no certificate")),
    }
}

fn unusable(key: &str, name: &str, error: impl Into<BoxError>) -> Error {
    let error = error.into();
    invalid(format!("{key}.tls.{name} cannot be used: {error}"))
}
