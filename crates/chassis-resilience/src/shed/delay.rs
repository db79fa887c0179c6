//! The brain: whether tasks wait for a processor, and which part of the limit is left then.
//!
//! CoDel's rule tells a queue that only smooths a burst from one that stands: if the least
//! delay of a whole interval is above the target, the queue never drained (RFC 8289, 4.1 and
//! 4.2: 5 ms, 100 ms). The part of the limit then shrinks step by step and grows back the same
//! way; go-zero bounds it to a tenth and the whole.

use std::time::{Duration, Instant};

/// How long is long.
const INTERVAL: Duration = Duration::from_millis(100);
/// One step, as a part of the limit.
const STEP: f64 = 0.1;
const LEAST: f64 = 0.1;

/// The delay of the run queue of this process.
#[derive(Debug)]
pub(super) struct QueueDelay {
    /// The delay that a queue may have for long.
    target: Duration,
    part: f64,
    began: Option<Instant>,
    least: Duration,
}

impl QueueDelay {
    pub(super) fn new(target: Duration) -> Self {
        QueueDelay { target, part: 1.0, began: None, least: Duration::MAX }
    }

    /// Takes in how long one task had to wait.
    pub(super) fn observe(&mut self, now: Instant, delay: Duration) {
        let began = *self.began.get_or_insert(now);
        self.least = self.least.min(delay);
        if now.saturating_duration_since(began) < INTERVAL {
            return;
        }
        let step = if self.least > self.target { -STEP } else { STEP };
        self.part = (self.part + step).clamp(LEAST, 1.0);
        self.began = Some(now);
        self.least = Duration::MAX;
    }

    /// The part of the limit that may be used, from 0.1 to 1.
    pub(super) fn part(&self) -> f64 {
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A delay every 10 ms.
    fn observe(queue: &mut QueueDelay, from: Instant, delays: impl IntoIterator<Item = u32>) {
        for (n, delay) in delays.into_iter().enumerate() {
            queue.observe(from + 10 * MS * n as u32, delay * MS);
        }
    }

    #[test]
    fn a_queue_that_drains_now_and_then_is_no_overload() {
        let mut queue = QueueDelay::new(5 * MS);
        let burst = (0..1_000).map(|n| if n % 10 == 0 { 1 } else { 80 });
        observe(&mut queue, tokio::time::Instant::now().into_std(), burst);
        assert_eq!(queue.part(), 1.0);
    }

    #[test]
    fn a_queue_that_stands_shrinks_the_limit_and_it_comes_back() {
        let mut queue = QueueDelay::new(5 * MS);
        let now = tokio::time::Instant::now().into_std();
        observe(&mut queue, now, [20; 31]);
        assert!((queue.part() - 0.7).abs() < 1e-9, "{}", queue.part());
        observe(&mut queue, now + 1_000 * MS, [20; 1_000]);
        assert!((queue.part() - 0.1).abs() < 1e-9, "{}", queue.part());
        observe(&mut queue, now + 20_000 * MS, [0; 200]);
        assert!((queue.part() - 1.0).abs() < 1e-9, "{}", queue.part());
    }
}
