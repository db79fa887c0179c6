//! What stands in for TLS where it is not built in.

use std::{convert::Infallible, io};

use chassis_core::{Env, Result};

use super::ServerTlsConfig;
use crate::stream::{Stream, Wire};

/// Nothing: this program was built without TLS.
#[derive(Clone)]
pub struct Tls(Infallible);

impl Tls {
    /// `None`; settings that ask for TLS were refused before.
    ///
    /// # Errors
    /// Those of [`ServerTlsConfig::validate`].
    pub fn load(
        config: &ServerTlsConfig,
        path: &str,
        _server: &str,
        _protocols: &[&str],
        _env: &Env,
    ) -> Result<Option<Tls>> {
        config.validate(path).map(|()| None)
    }

    pub(crate) async fn accept(&self, _stream: Wire) -> io::Result<Stream> {
        match self.0 {}
    }

    pub(crate) async fn watch(_tls: Option<Tls>) {
        std::future::pending().await
    }
}
