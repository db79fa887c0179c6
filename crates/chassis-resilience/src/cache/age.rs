//! The brain: what a value of some age is good for.
//!
//! The two stale spans begin when the fresh one ends, as RFC 5861 has it, and they may overlap.

use std::time::{Duration, Instant};

/// For how long a value is good, and for what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheSettings {
    /// So long a value is given without asking the callee.
    pub fresh_for: Duration,
    /// So long after that it is still given at once, while it is fetched anew.
    pub stale_while_revalidate: Duration,
    /// So long after the fresh time it is given if the callee fails.
    pub stale_if_error: Duration,
    /// By up to this part the fresh time is shortened, from 0 to 1, so that what was stored
    /// together does not expire together.
    pub jitter: f64,
    /// So many values are kept, at least 1; then those that were not asked for longest go.
    pub max_entries: usize,
    /// No fetch takes longer.
    pub fetch_timeout: Duration,
    /// So many fetches may be under way; a further one is refused.
    pub max_fetches: usize,
}

impl Default for CacheSettings {
    /// A minute fresh, ten seconds more while it is fetched, ten minutes if the callee fails.
    ///
    /// A minute is what people take a page to be current; ten seconds are longer than a fetch
    /// takes; ten minutes outlast a release. The jitter of 5 % is go-zero's.
    fn default() -> Self {
        CacheSettings {
            fresh_for: Duration::from_secs(60),
            stale_while_revalidate: Duration::from_secs(10),
            stale_if_error: Duration::from_secs(600),
            jitter: 0.05,
            max_entries: 10_000,
            fetch_timeout: Duration::from_secs(5),
            max_fetches: 1_000,
        }
    }
}

/// A value with what is to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<V> {
    /// The value.
    pub value: V,
    /// How long ago it was fetched.
    pub age: Duration,
    /// Why it is given.
    pub freshness: Freshness,
}

/// Why a value is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// It was fetched for this call, or it is still fresh.
    Fresh,
    /// It is no longer fresh and is being fetched anew.
    Stale,
    /// It is no longer fresh, and the callee failed.
    StaleOnError,
    /// The callee gave it now, and it is not worth keeping.
    Uncached,
}

/// What a value may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Give,
    GiveAndFetch,
    OnlyOnError,
    Nothing,
}

/// A value with the times that decide about it.
#[derive(Clone, Debug)]
pub(super) struct Entry<V> {
    pub(super) value: V,
    stored: Instant,
    fresh_for: Duration,
}

impl<V> Entry<V> {
    /// `random` is from 0 up to 1.
    pub(super) fn new(value: V, now: Instant, settings: &CacheSettings, random: f64) -> Self {
        let part = 1.0 - settings.jitter.clamp(0.0, 1.0) * random;
        let fresh_for = settings.fresh_for.min(MOST).mul_f64(if part > 0.0 { part } else { 0.0 });
        Entry { value, stored: now, fresh_for }
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored)
    }

    pub(super) fn good_for(&self, now: Instant, settings: &CacheSettings) -> Use {
        let age = self.age(now);
        let beyond = age.saturating_sub(self.fresh_for);
        if age < self.fresh_for {
            Use::Give
        } else if beyond < settings.stale_while_revalidate {
            Use::GiveAndFetch
        } else if beyond < settings.stale_if_error {
            Use::OnlyOnError
        } else {
            Use::Nothing
        }
    }

    /// Whether it may stand in for a callee that fails.
    pub(super) fn outlasts_error(&self, now: Instant, settings: &CacheSettings) -> bool {
        self.age(now).saturating_sub(self.fresh_for) < settings.stale_if_error
    }
}

/// A century: what is longer cannot be multiplied without care, and nobody waits for it.
const MOST: Duration = Duration::from_secs(3_155_760_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_value_of_some_age_is_good_for() {
        let now = tokio::time::Instant::now().into_std();
        let settings = CacheSettings { jitter: 0.0, ..CacheSettings::default() };
        let entry = Entry::new((), now, &settings, 0.9);
        for (seconds, expected, on_error) in [
            (0, Use::Give, true),
            (59, Use::Give, true),
            (60, Use::GiveAndFetch, true),
            (69, Use::GiveAndFetch, true),
            (70, Use::OnlyOnError, true),
            (659, Use::OnlyOnError, true),
            (660, Use::Nothing, false),
        ] {
            let later = now + Duration::from_secs(seconds);
            assert_eq!(entry.good_for(later, &settings), expected, "after {seconds} s");
            assert_eq!(entry.outlasts_error(later, &settings), on_error, "after {seconds} s");
        }
    }

    #[test]
    fn jitter_only_shortens() {
        let now = tokio::time::Instant::now().into_std();
        let settings = CacheSettings { jitter: 0.5, ..CacheSettings::default() };
        for (random, seconds) in [(0.0, 60), (0.5, 45), (0.999, 31)] {
            let entry = Entry::new((), now, &settings, random);
            let edge = now + Duration::from_secs(seconds);
            assert_eq!(entry.good_for(edge - Duration::from_secs(2), &settings), Use::Give);
            assert_ne!(entry.good_for(edge, &settings), Use::Give);
        }
        let all = CacheSettings { jitter: f64::NAN, fresh_for: Duration::MAX, ..settings };
        Entry::new((), now, &all, 0.5);
    }
}
