//! What to believe of a source that was away: the brain.
//!
//! A registry that comes back often comes back empty: its leases ran out while
//! nobody could renew them, or its memory is new. Believing it at once would
//! take every endpoint from every client, although nothing happened to them. So
//! what was known before the failure and is missing after it stays for a grace
//! period, in which who lives registers again. What goes while the source is
//! well goes at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::Endpoint;

/// The set to publish, given what a source says and when.
#[derive(Debug)]
pub(crate) struct LastGood {
    grace: Duration,
    said: BTreeMap<SocketAddr, Endpoint>,
    /// Missing since the last failure, and kept until then.
    kept: BTreeMap<SocketAddr, Endpoint>,
    until: Option<Instant>,
    failing: bool,
}

impl LastGood {
    pub(crate) fn new(grace: Duration) -> LastGood {
        LastGood {
            grace,
            said: BTreeMap::new(),
            kept: BTreeMap::new(),
            until: None,
            failing: false,
        }
    }

    /// The source does not answer.
    pub(crate) fn failed(&mut self) {
        self.failing = true;
    }

    /// The source gave a complete set.
    pub(crate) fn answered(&mut self, set: impl IntoIterator<Item = Endpoint>, now: Instant) {
        let set = set.into_iter().map(|endpoint| (endpoint.address, endpoint)).collect();
        let before = std::mem::replace(&mut self.said, set);
        if std::mem::take(&mut self.failing) && !self.grace.is_zero() {
            self.kept.extend(before);
            self.until = Some(now + self.grace);
        }
        let said = &self.said;
        self.kept.retain(|address, _| !said.contains_key(address));
        self.passed(now);
    }

    /// When the next one is forgotten, if nothing else happens. Not while the
    /// source is away again: then nobody can say that he lives.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until.filter(|_| !self.failing && !self.kept.is_empty())
    }

    /// Forgets what has been kept long enough.
    pub(crate) fn passed(&mut self, now: Instant) {
        if self.until().is_some_and(|until| until <= now) {
            self.kept.clear();
        }
    }

    /// Whether the source was away at the last look.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    /// The set to publish now.
    pub(crate) fn set(&self) -> impl Iterator<Item = Endpoint> {
        self.said.values().chain(self.kept.values()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn set(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|port| Endpoint::new(([10, 0, 0, 1], *port).into())).collect()
    }

    fn ports(good: &LastGood) -> Vec<u16> {
        let mut ports: Vec<u16> = good.set().map(|endpoint| endpoint.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn who_goes_while_the_source_is_well_goes_at_once() {
        let (mut good, now) = (LastGood::new(30 * SECOND), Instant::now());
        good.answered(set(&[1, 2]), now);
        good.answered(set(&[2]), now);
        assert_eq!(ports(&good), [2]);
        assert_eq!(good.until(), None);
    }

    #[test]
    fn a_source_that_comes_back_empty_empties_nobody() {
        let (mut good, now) = (LastGood::new(30 * SECOND), Instant::now());
        good.answered(set(&[1, 2, 3]), now);
        good.failed();
        good.answered(set(&[]), now);
        assert_eq!(ports(&good), [1, 2, 3]);
        // One registers again and is an ordinary one from then on.
        good.answered(set(&[1]), now + SECOND);
        good.answered(set(&[]), now + 2 * SECOND);
        assert_eq!(ports(&good), [2, 3]);
        // It is away again: the others cannot say that they live.
        good.failed();
        assert_eq!(good.until(), None);
        good.passed(now + 40 * SECOND);
        assert_eq!(ports(&good), [2, 3]);
        good.answered(set(&[2]), now + 50 * SECOND);
        assert_eq!(good.until(), Some(now + 80 * SECOND));
        good.passed(now + 80 * SECOND);
        assert_eq!(ports(&good), [2]);
    }

    #[test]
    fn without_grace_the_source_is_believed_at_once() {
        let (mut good, now) = (LastGood::new(Duration::ZERO), Instant::now());
        good.answered(set(&[1]), now);
        good.failed();
        good.answered(set(&[]), now);
        assert!(ports(&good).is_empty());
    }

    proptest! {
        /// Whatever happens, the last answer is part of the set, and once the
        /// source has been well for the grace period, it is all of it.
        #[test]
        fn the_last_answer_wins_in_the_end(
            steps in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(1u16..9, 0..8), 0u64..60), 1..50),
        ) {
            let (mut good, mut now) = (LastGood::new(30 * SECOND), Instant::now());
            let mut last = Vec::new();
            for (fails, answer, seconds) in steps {
                now += Duration::from_secs(seconds);
                good.passed(now);
                if fails {
                    good.failed();
                } else {
                    good.answered(set(&answer), now);
                    last = answer;
                }
                let published = ports(&good);
                prop_assert!(last.iter().all(|port| published.contains(port)));
            }
            good.answered(set(&last), now);
            good.passed(now + 30 * SECOND);
            last.sort_unstable();
            last.dedup();
            prop_assert_eq!(ports(&good), last);
        }
    }
}
