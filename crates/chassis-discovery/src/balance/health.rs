//! Who is walked past, and how many may be.
//!
//! A circuit that opens takes its endpoint out of the rotation, and the rest get its calls.
//! That helps only as long as the rest are many. So at most a share is ejected (Envoy's
//! `max_ejection_percent`, which too lets one go in any case); whose circuit opens after that
//! is *kept*: it can be picked, though its load makes it the last choice. And when only few
//! circuits are closed, all endpoints are picked from again (Envoy's panic threshold), because
//! the few would go under next.
//!
//! When no circuit at all is closed there is nobody left to be protected: then no endpoint is
//! kept, calls fail at once, and only trial calls go out. That is what a circuit breaker is
//! for.

use tokio::time::Instant;

/// How one endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Its circuit is closed.
    In,
    /// Its circuit is not closed, and it is walked past.
    Ejected,
    /// Its circuit is not closed, but as many as may be are ejected already.
    Kept,
    /// No connection to it can be made. It is not picked, and counts for no share, until one
    /// can: that is no suspicion.
    Away,
    /// It has left the set.
    Gone,
}

/// The two shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shares {
    /// Most of the endpoints that may be ejected, 0 to 1.
    pub(crate) max_ejected: f64,
    /// Below this share of closed circuits all are picked from, 0 to 1.
    pub(crate) panic_below: f64,
}

/// What is known of all endpoints together.
#[derive(Debug)]
pub(crate) struct Health {
    shares: Shares,
    size: usize,
    ejected: usize,
    kept: usize,
    away: usize,
    /// When the last one that was there went away.
    dark_since: Option<Instant>,
}

impl Health {
    pub(crate) fn new(shares: Shares) -> Health {
        Health { shares, size: 0, ejected: 0, kept: 0, away: 0, dark_since: None }
    }

    /// The set has so many endpoints now.
    pub(crate) fn resize(&mut self, size: usize) {
        self.size = size;
    }

    /// How an endpoint stands from now on, given how it stood and whether its circuit is
    /// closed.
    pub(crate) fn judge(&mut self, before: Standing, closed: bool) -> Standing {
        if matches!(before, Standing::Gone | Standing::Away) {
            return before;
        }
        self.forget(before);
        if closed {
            Standing::In
        } else if before == Standing::Ejected || self.ejected < self.quota() {
            self.ejected += 1;
            Standing::Ejected
        } else {
            self.kept += 1;
            Standing::Kept
        }
    }

    /// No connection can be made to an endpoint that stood so.
    pub(crate) fn lose(&mut self, before: Standing, now: Instant) -> Standing {
        if matches!(before, Standing::Gone | Standing::Away) {
            return before;
        }
        self.forget(before);
        self.away += 1;
        if self.present() == 0 {
            self.dark_since = Some(now);
        }
        Standing::Away
    }

    /// A connection can be made again to an endpoint that stood so.
    pub(crate) fn regain(&mut self, before: Standing, closed: bool) -> Standing {
        if before != Standing::Away {
            return before;
        }
        self.forget(before);
        self.judge(Standing::In, closed)
    }

    /// An endpoint that stood so has left the set.
    pub(crate) fn forget(&mut self, standing: Standing) {
        match standing {
            Standing::Ejected => self.ejected = self.ejected.saturating_sub(1),
            Standing::Kept => self.kept = self.kept.saturating_sub(1),
            Standing::Away => self.away = self.away.saturating_sub(1),
            Standing::In | Standing::Gone => {}
        }
    }

    /// Endpoints that no connection can be made to.
    pub(crate) fn away(&self) -> usize {
        self.away
    }

    /// Since when all are away, if they are.
    pub(crate) fn dark_since(&self) -> Option<Instant> {
        self.dark_since.filter(|_| self.present() == 0)
    }

    fn present(&self) -> usize {
        self.size.saturating_sub(self.away)
    }

    pub(crate) fn ejected(&self) -> usize {
        self.ejected
    }

    /// Endpoints whose circuit is closed.
    pub(crate) fn closed(&self) -> usize {
        self.present().saturating_sub(self.ejected + self.kept)
    }

    /// How the next call picks.
    pub(crate) fn mode(&self) -> Mode {
        let closed = self.closed();
        if closed == 0 {
            Mode::Trials
        } else if (closed as f64) < self.shares.panic_below * self.present() as f64 {
            Mode::Panic
        } else {
            Mode::Normal
        }
    }

    fn quota(&self) -> usize {
        if self.shares.max_ejected <= 0.0 {
            return 0;
        }
        ((self.present() as f64 * self.shares.max_ejected) as usize).max(1)
    }
}

/// How a call picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// From those that are in or kept, and those due for a trial call.
    Normal,
    /// From all.
    Panic,
    /// Only from those due for a trial call.
    Trials,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: Shares = Shares { max_ejected: 0.5, panic_below: 0.25 };

    fn health(size: usize) -> Health {
        let mut health = Health::new(SHARES);
        health.resize(size);
        health
    }

    #[test]
    fn no_more_than_the_share_is_ejected_and_the_rest_is_kept() {
        let mut health = health(4);
        let after: Vec<Standing> = (0..3).map(|_| health.judge(Standing::In, false)).collect();
        assert_eq!(after, [Standing::Ejected, Standing::Ejected, Standing::Kept]);
    }

    #[test]
    fn one_may_always_go_unless_none_may() {
        assert_eq!(health(1).judge(Standing::In, false), Standing::Ejected);
        let mut never = Health::new(Shares { max_ejected: 0.0, ..SHARES });
        never.resize(4);
        assert_eq!(never.judge(Standing::In, false), Standing::Kept);
    }

    #[test]
    fn too_few_are_a_panic_and_none_is_none() {
        let mut health = health(10);
        let modes: Vec<Mode> = (0..10)
            .map(|_| {
                health.judge(Standing::In, false);
                health.mode()
            })
            .collect();
        // 3 of 10 are more than a quarter, 2 are not.
        assert_eq!(modes[..7], [Mode::Normal; 7]);
        assert_eq!(modes[7..9], [Mode::Panic; 2]);
        assert_eq!(modes[9], Mode::Trials);
    }

    #[test]
    fn who_is_away_counts_for_no_share_until_it_is_back() {
        let mut health = health(4);
        let now = Instant::now();
        let mut away = [Standing::In; 3].map(|before| health.lose(before, now));
        assert_eq!((away, health.mode()), ([Standing::Away; 3], Mode::Normal));
        assert_eq!(health.lose(away[0], now), Standing::Away, "once");
        assert_eq!(health.judge(away[0], false), Standing::Away, "whatever its circuit says");
        assert_eq!(health.judge(Standing::In, false), Standing::Ejected);
        assert_eq!(health.mode(), Mode::Trials, "the last one that is there");
        away[0] = health.regain(away[0], true);
        assert_eq!((away[0], health.mode()), (Standing::In, Mode::Normal));
        assert_eq!(health.regain(away[1], false), Standing::Kept, "half are ejected already");
        health.forget(away[2]);
        health.resize(3);
        assert_eq!((health.away(), health.closed()), (0, 1));
    }

    #[test]
    fn dark_is_it_from_the_moment_when_the_last_one_went() {
        let (mut health, now) = (health(2), Instant::now());
        let seconds = |n| now + std::time::Duration::from_secs(n);
        let first = health.lose(Standing::In, seconds(0));
        assert_eq!(health.dark_since(), None);
        let second = health.lose(Standing::In, seconds(1));
        assert_eq!(health.lose(second, seconds(2)), Standing::Away);
        assert_eq!(health.dark_since(), Some(seconds(1)));
        let first = health.regain(first, true);
        assert_eq!(health.dark_since(), None);
        health.lose(first, seconds(3));
        assert_eq!(health.dark_since(), Some(seconds(3)));
    }

    #[test]
    fn who_has_left_counts_no_more() {
        let mut health = health(2);
        let standing = health.judge(Standing::In, false);
        health.forget(standing);
        health.resize(1);
        assert_eq!(health.judge(Standing::Gone, false), Standing::Gone);
        assert_eq!((health.ejected(), health.mode()), (0, Mode::Normal));
    }

    /// Changes of circuits as they come, and what is told of them, checked after each.
    #[test]
    fn never_beyond_the_share_in_a_million_changes() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut ejections = 0;
        for _ in 0..1_000 {
            let (size, share) = (random.usize(1..30), random.f64());
            let mut health = Health::new(Shares { max_ejected: share, panic_below: 0.25 });
            health.resize(size);
            let mut all = vec![Standing::In; size];
            let most = (share * size as f64).max(f64::from(u8::from(share > 0.0)));
            for _ in 0..1_000 {
                let index = random.usize(..size);
                let before = all[index];
                all[index] = health.judge(before, random.u32(..3) == 0);
                let count = |standing| all.iter().filter(|s| **s == standing).count();
                assert_eq!(health.ejected(), count(Standing::Ejected));
                assert_eq!(health.closed(), count(Standing::In));
                assert!(health.ejected() as f64 <= most, "{} of {size}", health.ejected());
                let ejected = all[index] == Standing::Ejected && before != Standing::Ejected;
                ejections += usize::from(ejected);
            }
        }
        assert!(ejections > 100_000, "{ejections}");
    }

    proptest! {
        #[test]
        fn never_beyond_the_share_whatever_happens(
            size in 1usize..30,
            share in 0.0f64..1.0,
            changes in proptest::collection::vec((0usize..30, any::<bool>()), 0..300),
        ) {
            let mut health = Health::new(Shares { max_ejected: share, panic_below: 0.25 });
            health.resize(size);
            let mut all = vec![Standing::In; size];
            for (index, closed) in changes {
                let index = index % size;
                all[index] = health.judge(all[index], closed);
                let count = |standing| all.iter().filter(|s| **s == standing).count();
                prop_assert_eq!(health.ejected(), count(Standing::Ejected));
                prop_assert_eq!(health.closed(), count(Standing::In));
                let most = (share * size as f64).max(f64::from(u8::from(share > 0.0)));
                prop_assert!(health.ejected() as f64 <= most);
            }
        }
    }
}
