//! A histogram of durations in fixed memory, which answers "how long do 95 % take?".
//!
//! Buckets are log-linear as in HdrHistogram (Gil Tene): each power of two of microseconds is
//! cut into sixteen parts, so an answer is at most a sixteenth too long and never too short.
//! A sorted list of samples would be exact and would grow, or would forget the tail first.

use std::time::Duration;

/// Parts of one power of two.
const PARTS: u64 = 16;
/// The power of two from which parts are wider than a microsecond.
const EXACT_BITS: u32 = PARTS.ilog2();
/// The largest power of two that is told apart: 2^36 µs, most of a day.
const MAX_BITS: u32 = 36;
const BUCKETS: usize = ((MAX_BITS - EXACT_BITS + 2) as usize) * PARTS as usize;

/// Counts of durations. 2 KiB, whatever is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u32]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn record(&mut self, took: Duration) {
        let slot = &mut self.counts[bucket(took)];
        *slot = slot.saturating_add(1);
        self.total += 1;
    }

    /// How many durations were counted.
    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The duration that `share` (from 0 to 1) of what both counted do not exceed. `None` if
    /// nothing was counted.
    pub(crate) fn quantile_with(&self, other: &Histogram, share: f64) -> Option<Duration> {
        self.find(share, self.total + other.total, |i| {
            u64::from(self.counts[i]) + u64::from(other.counts[i])
        })
    }

    /// The duration that `share` (from 0 to 1) of what was counted do not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        self.find(share, self.total, |i| u64::from(self.counts[i]))
    }

    fn find(&self, share: f64, total: u64, count: impl Fn(usize) -> u64) -> Option<Duration> {
        if total == 0 {
            return None;
        }
        // A float cast saturates, and not-a-number becomes zero.
        let rank = ((share * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        (0..BUCKETS)
            .find(|index| {
                seen += count(*index);
                seen >= rank
            })
            .map(longest)
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.min((1 << (MAX_BITS + 1)) - 1);
    if micros < PARTS {
        return micros as usize;
    }
    let bits = micros.ilog2();
    let part = (micros >> (bits - EXACT_BITS)) - PARTS;
    ((u64::from(bits - EXACT_BITS) + 1) * PARTS + part) as usize
}

/// The longest duration of a bucket.
fn longest(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return Duration::from_micros(bucket);
    }
    let shift = bucket / PARTS - 1;
    let part = bucket % PARTS;
    Duration::from_micros(((PARTS + part + 1) << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_what_it_was_given() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for ms in 1..=100 {
            histogram.record(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.0, 1), (0.5, 50), (0.95, 95), (1.0, 100)] {
            let found = histogram.quantile(share).unwrap();
            let exact = Duration::from_millis(ms);
            assert!(found >= exact && found <= exact + exact / 16, "{share}: {found:?}");
        }
        histogram.clear();
        assert_eq!((histogram.len(), histogram.quantile(0.5)), (0, None));
    }

    #[test]
    fn extremes_stay_in_the_table() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.quantile(f64::NAN), Some(Duration::ZERO));
        histogram.record(Duration::MAX);
        assert!(histogram.quantile(1.0).unwrap() > Duration::from_secs(86_400));
    }

    proptest! {
        #[test]
        fn an_answer_is_never_too_short_and_a_sixteenth_too_long_at_most(
            mut micros in prop::collection::vec(0u64..100_000_000_000, 1..200),
            share in 0.0f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            for value in &micros {
                histogram.record(Duration::from_micros(*value));
            }
            micros.sort_unstable();
            let rank = ((share * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = Duration::from_micros(micros[rank - 1]);
            let found = histogram.quantile(share).unwrap();
            prop_assert!(found >= exact && found <= exact + exact / 16);
        }
    }
}
