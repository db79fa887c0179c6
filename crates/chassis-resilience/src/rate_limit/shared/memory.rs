//! The store in memory: for one process with several parts, and for tests.
//!
//! Bounded like the keyed limit, whose table it is.

use tokio::time::Instant;

use super::{BoxFuture, Grant, TokenStore};
use crate::{
    BoxError,
    rate_limit::{RateLimit, keyed::Table},
    sync::Mutex,
};

/// Keys that are kept by default.
const KEYS: usize = 100_000;

/// Tokens in the memory of this process.
#[derive(Debug)]
pub struct MemoryTokenStore {
    table: Mutex<Table<String>>,
}

impl MemoryTokenStore {
    /// A store for at most `max_keys` keys; newcomers beyond that share one limit.
    pub fn new(max_keys: usize) -> Self {
        MemoryTokenStore { table: Mutex::new(Table::new(max_keys.max(1))) }
    }
}

impl Default for MemoryTokenStore {
    fn default() -> Self {
        MemoryTokenStore::new(KEYS)
    }
}

impl TokenStore for MemoryTokenStore {
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        Box::pin(async move {
            let now = Instant::now().into_std();
            Ok(match self.table.lock().take(&limit, key.to_owned(), now, want) {
                Ok(tokens) => Grant::Tokens(tokens),
                Err(wait) => Grant::Wait(wait),
            })
        })
    }
}
