//! The time for the head of a request, without a timer for each.
//!
//! hyper makes a timer anew for each head that it waits for, and tokio's would be entered into its
//! wheel and taken out again with every request. Here it is a number: when the head is due. A
//! connection has one timer, which looks at the number when it is due itself, and is right if the
//! head that it was set for came long ago.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// When the head is due that a connection waits for.
#[derive(Clone)]
pub(crate) struct Heads(Arc<Waited>);

struct Waited {
    begun: Instant,
    /// Nanoseconds from the beginning of the connection; [`NONE`] while none is waited for.
    due: AtomicU64,
    is_late: AtomicBool,
}

const NONE: u64 = u64::MAX;

impl Heads {
    pub(crate) fn new() -> Heads {
        let due = AtomicU64::new(NONE);
        Heads(Arc::new(Waited { begun: Instant::now(), due, is_late: AtomicBool::new(false) }))
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let due = Some(self.0.due.load(Relaxed)).filter(|due| *due != NONE);
        due.map(|due| self.0.begun + Duration::from_nanos(due))
    }

    /// Ends the wait if it is over by now. hyper learns of it when the connection is polled next.
    pub(crate) fn look(&self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.0.is_late.store(true, Relaxed);
            self.0.due.store(NONE, Relaxed);
        }
    }
}

impl Timer for Heads {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.0.is_late.store(false, Relaxed);
        Box::pin(Wait { waited: self.0.clone(), due: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

/// What hyper polls while it waits for a head.
struct Wait {
    waited: Arc<Waited>,
    due: Instant,
}

impl Future for Wait {
    type Output = ();

    /// Its waker is that of the connection, which the connection's timer wakes.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.waited.is_late.load(Relaxed) {
            return Poll::Ready(());
        }
        let due = self.due.saturating_duration_since(self.waited.begun).as_nanos();
        self.waited.due.store(u64::try_from(due).unwrap_or(NONE), Relaxed);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waited.due.store(NONE, Relaxed);
    }
}

impl Sleep for Wait {}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_is_late_when_it_is_due_and_not_when_an_earlier_one_was() {
        let heads = Heads::new();
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = heads.sleep_until(at(10).into());
        assert_eq!(heads.due(), None);
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert_eq!(heads.due(), Some(at(10)));
        drop(first);
        assert_eq!(heads.due(), None);
        let mut second = heads.sleep_until(at(15).into());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        heads.look(at(10));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        heads.look(at(15));
        assert!(second.as_mut().poll(&mut cx).is_ready());
        drop(second);
        let mut third = heads.sleep_until(at(30).into());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        assert_eq!(heads.due(), Some(at(30)));
    }
}
