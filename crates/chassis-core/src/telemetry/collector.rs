//! The way to a collector of OTLP, with TLS where its endpoint begins with `https://`.

use std::{fs, path::Path, sync::Arc, time::Duration};

use hyper_rustls::{ConfigBuilderExt as _, HttpsConnectorBuilder};
use opentelemetry_http::{HttpClient, hyper::HyperClient};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{Error, Result};

/// How long one request may take, if `OTEL_EXPORTER_OTLP_TIMEOUT` says nothing: its default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// TLS over HTTP for this endpoint, which trusts the certificates in this file, or else those that
/// the system trusts. To be kept: these are read from the disk.
pub(super) fn http_tls(endpoint: &str, certificate: Option<&Path>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| no_tls().with_source(error))?;
    let tls = if let Some(file) = certificate {
        builder.with_root_certificates(roots(&read(file)?, file)?)
    } else if is_secure(endpoint) {
        builder.with_native_roots().map_err(|error| no_tls().with_source(error))?
    } else {
        // Reading all that the system trusts takes longer than the rest of a start.
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(tls.with_no_client_auth())
}

/// A client of HTTP.
pub(super) fn http_client(tls: ClientConfig, timeout: Duration) -> impl HttpClient {
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    HyperClient::new(connector, timeout, None)
}

/// TLS over gRPC; none where what it does by itself is right.
pub(super) fn grpc_tls(
    endpoint: &str,
    certificate: Option<&Path>,
) -> Result<Option<ClientTlsConfig>> {
    let Some(file) = certificate.filter(|_| is_secure(endpoint)) else { return Ok(None) };
    let pem = read(file)?;
    // For its errors: a file without a certificate would be a handshake that fails.
    roots(&pem, file)?;
    Ok(Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))))
}

/// `OTEL_EXPORTER_OTLP_NAME`, or that of the signal, which wins.
pub(super) fn variable(signal: &str, name: &str) -> Option<String> {
    [format!("OTEL_EXPORTER_OTLP_{signal}_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
}

/// `OTEL_EXPORTER_OTLP_TIMEOUT`, in milliseconds.
pub(super) fn timeout(signal: &str) -> Duration {
    let given = variable(signal, "TIMEOUT").and_then(|text| text.parse().ok());
    given.map_or(TIMEOUT, Duration::from_millis)
}

fn is_secure(endpoint: &str) -> bool {
    endpoint.starts_with("https://")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| bad_certificate(file).with_source(error))
}

/// The certificates in the text of this file.
fn roots(pem: &[u8], file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad_certificate(file).with_source(error))?;
        roots.add(certificate).map_err(|error| bad_certificate(file).with_source(error))?;
    }
    if roots.is_empty() {
        return Err(bad_certificate(file).with_source("there is no certificate in it"));
    }
    Ok(roots)
}

fn bad_certificate(file: &Path) -> Error {
    Error::invalid_argument(
        "OTLP_CERTIFICATE",
        format!("telemetry.otlp_certificate `{}` cannot be used", file.display()),
    )
}

fn no_tls() -> Error {
    Error::failed_precondition(
        "TELEMETRY",
        "the certificates that the system trusts cannot be read; set telemetry.otlp_certificate",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_used_is_found_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let file = folder.path().join("ca.pem");
            fs::write(&file, text).unwrap();
            file
        };
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [folder.path().join("none"), file(""), file(garbage)] {
            let http = http_tls("https://c:4318", Some(&bad)).unwrap_err();
            let grpc = grpc_tls("https://c:4317", Some(&bad)).unwrap_err();
            for error in [http, grpc] {
                assert_eq!(error.reason(), "OTLP_CERTIFICATE", "{}", error.chain());
                assert!(error.message().contains(&bad.display().to_string()), "{error}");
            }
        }
    }
}
