//! Reading a target's entries and then following them.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{Entry, Operation};
use chassis_core::Result;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::api::{NatsApi, away};
use super::leases::Leases;
use super::prefix;
use crate::Target;
use crate::source::{Sink, Source, check_name};

/// The entries that are there come without a pause; after this one, there are
/// no more.
const QUIET: Duration = Duration::from_millis(500);
/// How often to look whether the connection still stands.
const LOOK: Duration = Duration::from_millis(500);

impl Source for NatsApi {
    async fn follow(&self, target: &Target, sink: &Sink) -> Result<()> {
        check_name(target)?;
        let until = Instant::now() + self.resync;
        let bucket = self.bucket().await?;
        let filter = format!("{}*", prefix(target));
        let mut watch = bucket.store.watch_with_history(filter).await.map_err(away)?;
        let mut leases = Leases::new(bucket.lease);
        // An empty set sends nothing that would say so.
        while let Ok(entry) = tokio::time::timeout(QUIET, watch.next()).await {
            let entry = entry.ok_or_else(|| away("the watch ended"))?.map_err(away)?;
            let is_last = entry.delta == 0;
            take(&mut leases, &entry);
            if is_last {
                break;
            }
        }
        if bucket.client.connection_state() != State::Connected {
            return Err(away("the connection was lost"));
        }
        sink.publish(leases.set());
        loop {
            let changed = tokio::select! {
                // What was said is heard before somebody is called silent.
                biased;
                entry = watch.next() => {
                    let entry = entry.ok_or_else(|| away("the watch ended"))?;
                    take(&mut leases, &entry.map_err(away)?)
                }
                // The set is asked for anew.
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {
                    if bucket.client.connection_state() != State::Connected {
                        return Err(away("the connection was lost"));
                    }
                    leases.expire(Instant::now())
                }
            };
            if changed {
                sink.publish(leases.set());
            }
        }
    }
}

/// Whether the set has changed.
fn take(leases: &mut Leases, entry: &Entry) -> bool {
    if entry.operation != Operation::Put {
        return leases.remove(&entry.key);
    }
    match serde_json::from_slice(&entry.value) {
        Ok(endpoint) => leases.beat(&entry.key, endpoint, Instant::now()),
        Err(error) => {
            tracing::warn!(key = entry.key, %error, "this entry is no endpoint and is left out");
            leases.remove(&entry.key)
        }
    }
}
