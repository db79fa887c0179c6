//! A window over the recent past, cut into slots that expire one by one.
//!
//! Both the breaker's rates and the retry budget ask "how much in the last ten
//! seconds?". A ring of slots answers with fixed memory and no timer: slots are
//! cleared when the next event finds that their time is over. The price is
//! grain: the window spans between `slots - 1` and `slots` slot widths.

use std::time::{Duration, Instant};

/// A ring of time slots. The newest slot is written, all are read.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    slots: Vec<T>,
    width: Duration,
    head: usize,
    head_start: Option<Instant>,
}

impl<T: Default> Ring<T> {
    /// `span` is cut into `slots` slots. Both are at least one (nanosecond).
    pub(crate) fn new(span: Duration, slots: usize) -> Self {
        let slots = slots.max(1);
        let divisor = u32::try_from(slots).unwrap_or(u32::MAX);
        Ring {
            slots: std::iter::repeat_with(T::default).take(slots).collect(),
            width: (span / divisor).max(Duration::from_nanos(1)),
            head: 0,
            head_start: None,
        }
    }

    /// Clears what is over at `now`. A `now` in the past changes nothing.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.advance_with(now, |_| {});
    }

    /// As [`Ring::advance`], and shows each slot before it is cleared, for who keeps a sum.
    pub(crate) fn advance_with(&mut self, now: Instant, mut expired: impl FnMut(&T)) {
        let start = *self.head_start.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed < self.width {
            return;
        }
        let passed = elapsed.as_nanos() / self.width.as_nanos();
        match u32::try_from(passed) {
            Ok(passed) if (passed as usize) < self.slots.len() => {
                for _ in 0..passed {
                    self.head = (self.head + 1) % self.slots.len();
                    expired(&std::mem::take(&mut self.slots[self.head]));
                }
                self.head_start = Some(start + self.width * passed);
            }
            _ => {
                self.slots.iter().for_each(expired);
                self.clear();
                self.head_start = Some(now);
            }
        }
    }

    /// The slot that `now` belongs to.
    pub(crate) fn current(&mut self, now: Instant) -> &mut T {
        self.advance(now);
        self.newest()
    }

    /// The newest slot. Call [`Ring::advance`] before.
    pub(crate) fn newest(&mut self) -> &mut T {
        &mut self.slots[self.head]
    }

    /// All slots, in no particular order. Call [`Ring::advance`] before.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots.fill_with(T::default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(ring: &mut Ring<u32>, now: Instant) -> u32 {
        ring.advance(now);
        ring.iter().sum()
    }

    #[test]
    fn slots_expire_one_by_one() {
        let start = tokio::time::Instant::now().into_std();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut ring = Ring::new(Duration::from_secs(1), 10);
        *ring.current(at(0)) += 1;
        *ring.current(at(550)) += 10;
        for (ms, expected) in [(550, 11), (999, 11), (1_000, 10), (1_499, 10), (1_500, 0)] {
            assert_eq!(sum(&mut ring, at(ms)), expected, "at {ms} ms");
        }
    }

    #[test]
    fn a_long_silence_clears_all() {
        let start = tokio::time::Instant::now().into_std();
        let mut ring = Ring::new(Duration::from_secs(1), 10);
        *ring.current(start) += 7;
        assert_eq!(sum(&mut ring, start + Duration::from_secs(86_400 * 400)), 0);
    }

    #[test]
    fn a_clock_that_steps_back_is_harmless() {
        let start = tokio::time::Instant::now().into_std() + Duration::from_secs(10);
        let mut ring = Ring::new(Duration::from_secs(1), 10);
        *ring.current(start) += 1;
        *ring.current(start - Duration::from_secs(5)) += 1;
        assert_eq!(sum(&mut ring, start), 2);
    }
}
