//! Who was heard of lately: the brain of the reader.
//!
//! Time is counted here, from when a heartbeat came, so that no two clocks need
//! to agree.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::Endpoint;
use crate::resolver::MAX_ENDPOINTS;

/// The entries of one target with the time of their last heartbeat.
#[derive(Debug)]
pub(super) struct Leases {
    lease: Duration,
    entries: HashMap<String, (Endpoint, Instant)>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Leases {
        Leases { lease, entries: HashMap::new() }
    }

    /// A heartbeat; whether the set has changed.
    pub(super) fn beat(&mut self, key: &str, endpoint: Endpoint, now: Instant) -> bool {
        if let Some((known, heard)) = self.entries.get_mut(key) {
            *heard = now;
            let changed = *known != endpoint;
            *known = endpoint;
            return changed;
        }
        if self.entries.len() >= MAX_ENDPOINTS {
            tracing::warn!(key, "too many endpoints, this one is left out");
            return false;
        }
        self.entries.insert(key.to_owned(), (endpoint, now));
        true
    }

    /// Deregistered; whether the set has changed.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    /// When the next one is due, if nobody says anything.
    pub(super) fn due(&self) -> Option<Instant> {
        self.entries.values().map(|(_, heard)| *heard + self.lease).min()
    }

    /// Lets go of who was not heard of for a lease; whether the set has changed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let Some(due) = self.due().filter(|due| *due <= now) else { return false };
        if now - due > self.lease / 3 {
            // We are late, so it is us who did not listen: everybody gets the
            // time for one more heartbeat.
            let spared = now - (self.lease - self.lease / 3);
            for (_, heard) in self.entries.values_mut() {
                *heard = (*heard).max(spared);
            }
            return false;
        }
        let before = self.entries.len();
        let lease = self.lease;
        self.entries.retain(|_, (_, heard)| *heard + lease > now);
        self.entries.len() != before
    }

    /// All who live.
    pub(super) fn set(&self) -> impl Iterator<Item = Endpoint> {
        self.entries.values().map(|(endpoint, _)| endpoint.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([10, 0, 0, 1], port).into())
    }

    fn ports(leases: &Leases) -> Vec<u16> {
        let mut ports: Vec<u16> = leases.set().map(|endpoint| endpoint.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn who_is_silent_for_a_lease_is_gone_and_no_other() {
        let (mut leases, start) = (Leases::new(15 * SECOND), Instant::now());
        assert_eq!(leases.due(), None);
        assert!(leases.beat("a", endpoint(1), start));
        assert!(leases.beat("b", endpoint(2), start));
        assert!(!leases.beat("b", endpoint(2), start + 10 * SECOND), "nothing new");
        assert!(leases.beat("b", endpoint(2).with_weight(2), start + 10 * SECOND));
        assert_eq!(leases.due(), Some(start + 15 * SECOND));
        assert!(!leases.expire(start + 14 * SECOND));
        assert!(leases.expire(start + 15 * SECOND));
        assert_eq!(ports(&leases), [2]);
        assert!(leases.remove("b") && !leases.remove("b"));
    }

    #[test]
    fn a_reader_that_was_asleep_blames_nobody() {
        let (mut leases, start) = (Leases::new(15 * SECOND), Instant::now());
        leases.beat("a", endpoint(1), start);
        let woken = start + 100 * SECOND;
        assert!(!leases.expire(woken));
        assert_eq!(leases.due(), Some(woken + 5 * SECOND));
        assert!(leases.expire(woken + 5 * SECOND), "who stays silent is gone after all");
    }
}
