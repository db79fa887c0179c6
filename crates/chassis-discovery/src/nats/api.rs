//! The connection and the bucket, made when they are first needed.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::{Client, ConnectOptions, ServerAddr, jetstream};
use chassis_core::{BoxError, Error, Result};
use tokio::sync::Mutex;

use crate::config::invalid;
use crate::{NatsConfig, RegistryConfig};

/// A bucket on some servers.
pub(super) struct NatsApi {
    servers: Vec<ServerAddr>,
    bucket: String,
    replicas: usize,
    lease: Duration,
    timeout: Duration,
    pub(super) resync: Duration,
    /// Once connected, the client connects again by itself.
    client: Mutex<Option<Client>>,
}

/// A bucket that was found or made.
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) store: Store,
    /// How long an entry lives without a heartbeat: what the bucket says, since
    /// the server goes by that.
    pub(super) lease: Duration,
}

impl NatsApi {
    pub(super) fn new(config: &NatsConfig, registry: &RegistryConfig) -> Result<NatsApi> {
        let servers = config
            .url
            .expose()
            .split(',')
            .map(|url| {
                url.trim().parse::<ServerAddr>().map_err(|_| {
                    // The text may hold a password, so it is not repeated.
                    invalid("discovery.nats.url is not a list of nats://host:port".to_owned())
                })
            })
            .collect::<Result<_>>()?;
        Ok(NatsApi {
            servers,
            bucket: config.bucket.clone(),
            replicas: config.replicas,
            lease: registry.lease,
            timeout: registry.timeout,
            resync: registry.resync,
            client: Mutex::new(None),
        })
    }

    /// The bucket; made with our lease if there is none. Dropping the future
    /// leaves a connection that was made for the next caller, or none.
    pub(super) async fn bucket(&self) -> Result<Bucket> {
        let client = self.client().await?;
        if client.connection_state() != State::Connected {
            return Err(away("the connection is lost"));
        }
        let context = jetstream::new(client.clone());
        let store = match context.get_key_value(&self.bucket).await {
            Ok(store) => store,
            Err(_) => {
                context.create_stream(self.stream()).await.map_err(away)?;
                context.get_key_value(&self.bucket).await.map_err(away)?
            }
        };
        let max_age = store.status().await.map_err(away)?.max_age();
        // A bucket made by hand without an age keeps what crashed: readers go by
        // our lease then.
        let lease = if max_age.is_zero() { self.lease } else { max_age };
        Ok(Bucket { client, store, lease })
    }

    /// The stream that a bucket is. Not `create_key_value`: it asks for the account
    /// first, in a form that a server of 2.9 does not answer in.
    ///
    /// Source: ADR-8, "JetStream based Key-Value Stores".
    fn stream(&self) -> Config {
        Config {
            name: format!("KV_{}", self.bucket),
            description: Some("endpoints of services".to_owned()),
            subjects: vec![format!("$KV.{}.>", self.bucket)],
            max_messages_per_subject: 1,
            max_age: self.lease,
            // No longer than the age, or the server refuses.
            duplicate_window: self.lease.min(Duration::from_secs(120)),
            num_replicas: self.replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        }
    }

    async fn client(&self) -> Result<Client> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let options = ConnectOptions::new()
            .name("chassis-discovery")
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .max_reconnects(None);
        let made =
            options.connect(self.servers.clone()).await.map_err(|error| match error.kind() {
                async_nats::ConnectErrorKind::Authentication
                | async_nats::ConnectErrorKind::AuthorizationViolation => {
                    Error::unauthenticated("NATS_REFUSED", "nats refuses the credentials")
                        .with_source(error)
                }
                _ => away(error),
            })?;
        Ok(client.insert(made).clone())
    }
}

/// NATS does not do what it should; later it may.
pub(super) fn away(source: impl Into<BoxError>) -> Error {
    Error::unavailable("NATS_UNAVAILABLE", "nats does not answer as it should").with_source(source)
}
