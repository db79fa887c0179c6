//! For how long answers of a service are kept, and how many.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use chassis_resilience::CacheSettings;
use serde::{Deserialize, Serialize};

use crate::limits::within;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// As much as a client reads of an answer unless it is told otherwise.
const LARGEST: usize = 4 * 1024 * 1024;

/// Settings of the answers that a client keeps, as a configuration file writes them. Clients of
/// HTTP have them; a gRPC client refuses to be built with `enabled`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Whether answers to GETs that are for everybody are kept. Off unless it is asked for:
    /// only who calls knows how old an answer may be.
    pub enabled: bool,
    /// So long an answer is given without asking the callee. 0s to 24h.
    #[serde(with = "duration")]
    pub fresh_for: Duration,
    /// So long after that it is still given at once, while it is fetched anew. 0s to 24h.
    #[serde(with = "duration")]
    pub stale_while_revalidate: Duration,
    /// So long after the fresh time it stands in for a callee that fails. 0s to 24h.
    #[serde(with = "duration")]
    pub stale_if_error: Duration,
    /// So many answers are kept; then those that were not asked for longest go. 1 to 1000000.
    pub max_entries: usize,
    /// Larger answers are passed on and not kept, in bytes. 1 to 4194304.
    pub max_entry_bytes: usize,
}

impl Default for CacheConfig {
    /// The spans of [`CacheSettings`]; and a thousand answers of 64 KiB, which are 64 MiB at
    /// the worst.
    fn default() -> CacheConfig {
        let settings = CacheSettings::default();
        CacheConfig {
            enabled: false,
            fresh_for: settings.fresh_for,
            stale_while_revalidate: settings.stale_while_revalidate,
            stale_if_error: settings.stale_if_error,
            max_entries: 1_000,
            max_entry_bytes: 64 * 1024,
        }
    }
}

impl CacheConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as
    /// `clients.greeter.cache`, the value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        let span = Duration::ZERO..=DAY;
        within(&key("fresh_for"), self.fresh_for, span.clone())?;
        within(&key("stale_while_revalidate"), self.stale_while_revalidate, span.clone())?;
        within(&key("stale_if_error"), self.stale_if_error, span)?;
        within(&key("max_entries"), self.max_entries, 1..=1_000_000)?;
        within(&key("max_entry_bytes"), self.max_entry_bytes, 1..=LARGEST)
    }
}
