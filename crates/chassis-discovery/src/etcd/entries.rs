//! The entries of one target in a registry of keys, by key.
//!
//! Bounded: a registry gone wild must not fill memory.

use std::collections::BTreeMap;

use crate::Endpoint;
use crate::resolver::MAX_ENDPOINTS;

/// Endpoints by the key that each stands under.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    by_key: BTreeMap<String, Endpoint>,
}

impl Entries {
    /// Takes the text under a key, which replaces what stood there. What is no
    /// endpoint counts as none: somebody else's key must not end discovery.
    pub(crate) fn put(&mut self, key: &str, value: &[u8]) {
        match serde_json::from_slice(value) {
            Ok(endpoint) if self.by_key.len() < MAX_ENDPOINTS || self.by_key.contains_key(key) => {
                self.by_key.insert(key.to_owned(), endpoint);
            }
            Ok(_) => tracing::warn!(key, "too many endpoints, this one is left out"),
            Err(error) => {
                tracing::warn!(key, %error, "this entry is no endpoint and is left out");
                self.by_key.remove(key);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.by_key.remove(key);
    }

    /// All endpoints.
    pub(crate) fn set(&self) -> impl Iterator<Item = Endpoint> {
        self.by_key.values().cloned()
    }
}
