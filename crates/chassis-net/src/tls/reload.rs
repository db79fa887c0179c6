//! The certificates of a server, and the newer ones when they come.

use std::{io, sync::Arc};

use chassis_core::{Counter, Env, Error, Result};
use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use super::{ServerTlsConfig, files::Files};
use crate::stream::{Stream, Wire};

/// What a server needs for TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: ServerTlsConfig,
    protocols: Vec<Vec<u8>>,
    current: RwLock<Arc<ServerConfig>>,
    /// Of the files that were read first.
    fingerprint: u64,
    taken: Counter,
    failed: Counter,
}

impl Tls {
    /// Reads the files; `None` where the settings do not ask for TLS. `path` is where the
    /// settings stand, such as `http.tls`, `server` is its label in metrics, and
    /// `protocols` are offered to clients, the best first (ALPN). Blocks on the disk: for the
    /// start of a process.
    ///
    /// # Errors
    /// `TLS_UNUSABLE` that names the file, and those of [`ServerTlsConfig::validate`].
    pub fn load(
        config: &ServerTlsConfig,
        path: &str,
        server: &str,
        protocols: &[&str],
        env: &Env,
    ) -> Result<Option<Tls>> {
        config.validate(path)?;
        if !config.is_on() {
            return Ok(None);
        }
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().into()).collect();
        let files = Files::read(config)?;
        let current = files.server(config, &protocols)?;
        let reloads = |result| {
            env.metrics().counter(
                "server_tls_reloads",
                "Changed TLS files that were read.",
                &[("server", server), ("result", result)],
            )
        };
        Ok(Some(Tls(Arc::new(Inner {
            config: config.clone(),
            protocols,
            current: RwLock::new(Arc::new(current)),
            fingerprint: files.fingerprint(),
            taken: reloads("taken"),
            failed: reloads("failed"),
        }))))
    }

    /// Shakes hands. Dropping the future closes the connection.
    pub(crate) async fn accept(&self, stream: Wire) -> io::Result<Stream> {
        let current = self.0.current.read().clone();
        let stream = TlsAcceptor::from(current).accept(stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Looks at the files now and then; never ends.
    pub(crate) async fn watch(tls: Option<Tls>) {
        let Some(Tls(inner)) = tls else { return std::future::pending().await };
        let mut seen = Ok(inner.fingerprint);
        let mut at = Instant::now();
        loop {
            at += inner.config.reload_every;
            sleep_until(at).await;
            let found = look(&inner, &seen).await;
            seen = match (found, seen) {
                (Ok(now), _) => Ok(now),
                // Said once, not at each look.
                (Err(error), Err(before)) if error.message() == before.message() => Err(before),
                (Err(error), _) => {
                    inner.failed.inc();
                    tracing::error!(
                        error = %error.chain(),
                        "changed TLS files are of no use; the ones before them stay"
                    );
                    Err(error)
                }
            };
        }
    }
}

/// Takes the files in if they are not those that were seen. Gives their fingerprint.
async fn look(inner: &Arc<Inner>, seen: &Result<u64>) -> Result<u64> {
    let (reader, seen) = (inner.clone(), seen.as_ref().ok().copied());
    let read = tokio::task::spawn_blocking(move || {
        let files = Files::read(&reader.config)?;
        let fingerprint = files.fingerprint();
        if seen == Some(fingerprint) {
            return Ok(fingerprint);
        }
        let server = files.server(&reader.config, &reader.protocols)?;
        *reader.current.write() = Arc::new(server);
        reader.taken.inc();
        tracing::info!(certificate = %reader.config.certificate.display(), "TLS files were read again");
        Ok(fingerprint)
    });
    read.await.unwrap_or_else(|panicked| Err(Error::internal(panicked)))
}
