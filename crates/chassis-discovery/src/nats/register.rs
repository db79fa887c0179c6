//! One entry of the bucket, written again and again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use chassis_core::{Error, Result};

use super::api::{NatsApi, away};
use super::prefix;
use crate::keeper::{Entry, Held};
use crate::{Endpoint, Target};

/// The entry of one endpoint.
pub(super) struct Registered {
    api: Arc<NatsApi>,
    key: String,
    value: String,
    written: bool,
}

impl Registered {
    pub(super) fn new(
        api: Arc<NatsApi>,
        target: &Target,
        endpoint: &Endpoint,
    ) -> Result<Registered> {
        let key = format!("{}{}", prefix(target), token(endpoint.address));
        Ok(Registered { api, key, value: endpoint.to_json()?, written: false })
    }

    async fn try_hold(&mut self, held: &Held) -> Result<Infallible> {
        let bucket = self.api.bucket().await?;
        loop {
            // Before the await: a write that was dropped may still have arrived.
            self.written = true;
            bucket.store.put(&self.key, self.value.clone().into()).await.map_err(away)?;
            held.confirmed();
            tokio::time::sleep(bucket.lease / 3).await;
        }
    }
}

impl Entry for Registered {
    async fn hold(&mut self, held: &Held) -> Error {
        match self.try_hold(held).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn remove(&mut self) -> Result<()> {
        if std::mem::take(&mut self.written) {
            self.api.bucket().await?.store.delete(&self.key).await.map_err(away)?;
        }
        Ok(())
    }
}

/// An address as one token of a subject, which may hold no dot and no colon. Each
/// sign has one of its own, so that two addresses never have the same token.
fn token(address: SocketAddr) -> String {
    let sign = |c| match c {
        '.' => '-',
        ':' => '_',
        '[' | ']' | '%' => '=',
        other => other,
    };
    address.to_string().chars().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_token() {
        for (address, expected) in [
            ("10.0.0.7:80", "10-0-0-7_80"),
            ("[::1]:80", "=__1=_80"),
            ("[fe80::1]:9", "=fe80__1=_9"),
        ] {
            assert_eq!(token(address.parse().unwrap()), expected);
        }
    }
}
