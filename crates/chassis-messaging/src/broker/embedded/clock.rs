//! Milliseconds since 1970 that follow tokio's clock.
//!
//! Delays must survive a restart, so they are stored as wall-clock time; but a
//! wall clock jumps, and a test must be able to pause it. So it is read once.

use std::time::Duration;

use tokio::time::Instant;

use chassis_core::unix_ms;

pub(super) struct Clock {
    base: i64,
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { base: unix_ms(), start: Instant::now() }
    }

    pub(super) fn now(&self) -> i64 {
        self.base.saturating_add(millis(self.start.elapsed()))
    }

    /// The instant at which [`now`](Clock::now) reaches `at`.
    pub(super) fn instant(&self, at: i64) -> Instant {
        let since = u64::try_from(at.saturating_sub(self.base)).unwrap_or(0);
        // At most thirty years ahead, so that the addition cannot overflow.
        self.start + Duration::from_millis(since).min(Duration::from_secs(30 * 365 * 86_400))
    }

    pub(super) fn after(&self, time: Duration) -> i64 {
        self.now().saturating_add(millis(time))
    }

    pub(super) fn before(&self, time: Duration) -> i64 {
        self.now().saturating_sub(millis(time))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
