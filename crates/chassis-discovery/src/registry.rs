//! Who runs in this process: resolver and registrar in one.
//!
//! With it, all services of a system can run in one process and still call each
//! other by name over real sockets, with nothing installed. It also is what
//! tests use, because it changes at once and without a network.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use chassis_core::{BoxFuture, Result};
use parking_lot::Mutex;

use crate::{Endpoint, Feed, Lease, Registrar, Resolver, Target, Updates};

/// A registry inside the process; clones share one state.
#[derive(Clone, Default)]
pub struct Registry {
    // One entry per target that this program ever named: bounded by its text.
    entries: Arc<Mutex<HashMap<Target, Entry>>>,
}

struct Entry {
    feed: Feed,
    // The same endpoint may be registered twice; it goes with its last lease.
    registrations: Vec<(u64, Endpoint)>,
    next_id: u64,
}

impl Entry {
    fn new() -> Entry {
        let (feed, _) = Updates::channel();
        feed.publish([]);
        Entry { feed, registrations: Vec::new(), next_id: 0 }
    }

    fn publish(&self) {
        self.feed.publish(self.registrations.iter().map(|(_, e)| e.clone()));
    }
}

impl Registry {
    /// An empty registry of its own.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// The one that all services of this process share.
    pub fn process() -> Registry {
        static PROCESS: OnceLock<Registry> = OnceLock::new();
        PROCESS.get_or_init(Registry::new).clone()
    }

    fn add(&self, target: Target, endpoint: Endpoint) -> Lease {
        let target = target.unselected();
        let id = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(target.clone()).or_insert_with(Entry::new);
            let id = entry.next_id;
            entry.next_id += 1;
            entry.registrations.push((id, endpoint));
            entry.publish();
            id
        };
        let entries = Arc::clone(&self.entries);
        Lease::new(move || {
            if let Some(entry) = entries.lock().get_mut(&target) {
                entry.registrations.retain(|(other, _)| *other != id);
                entry.publish();
            }
        })
    }
}

impl Resolver for Registry {
    fn watch(&self, target: &Target) -> Updates {
        self.entries.lock().entry(target.unselected()).or_insert_with(Entry::new).feed.subscribe()
    }
}

impl Registrar for Registry {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        let lease = self.add(target, endpoint);
        Box::pin(std::future::ready(Ok(lease)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    #[tokio::test]
    async fn a_lease_is_the_registration() {
        let registry = Registry::new();
        let target = Target::new("greeter", "http");
        let mut updates = registry.watch(&target);
        assert!(updates.is_known() && updates.current().is_empty());

        let first = registry.register(target.clone(), endpoint(1)).await.unwrap();
        assert_eq!(&updates.changed().await[..], &[endpoint(1)]);
        let second = registry.register(target.clone(), endpoint(2)).await.unwrap();
        assert_eq!(updates.changed().await.len(), 2);

        first.release().await;
        assert_eq!(&updates.changed().await[..], &[endpoint(2)]);
        drop(second);
        assert!(updates.changed().await.is_empty());
    }

    #[tokio::test]
    async fn an_endpoint_goes_with_its_last_lease() {
        let registry = Registry::new();
        let target = Target::new("greeter", "http");
        let old = registry.register(target.clone(), endpoint(1)).await.unwrap();
        let new = registry.register(target.clone(), endpoint(1)).await.unwrap();
        drop(old);
        assert_eq!(&registry.watch(&target).current()[..], &[endpoint(1)]);
        drop(new);
        assert!(registry.watch(&target).current().is_empty());
    }

    #[tokio::test]
    async fn the_process_registry_is_one() {
        let target = Target::new("only-in-this-test", "http");
        let lease = Registry::process().register(target.clone(), endpoint(1)).await.unwrap();
        assert_eq!(Registry::process().watch(&target).current().len(), 1);
        drop(lease);
    }
}
