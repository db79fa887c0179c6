//! The time for the head of a request, without a timer for each.
//!
//! hyper makes a timer anew for each head that it waits for, and tokio's would be entered into its
//! wheel and taken out again with every request. Here it is a note: when the head is due. A
//! connection has one timer, which looks at the note when it is due itself.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::time::Instant;

/// When the head is due that a connection waits for.
#[derive(Clone, Default)]
pub(crate) struct Heads(Arc<Mutex<Waited>>);

#[derive(Default)]
enum Waited {
    #[default]
    Nothing,
    Until(Instant),
    /// It was not here when it was due.
    Late,
}

impl Heads {
    pub(crate) fn due(&self) -> Option<Instant> {
        match *self.0.lock() {
            Waited::Until(due) => Some(due),
            Waited::Nothing | Waited::Late => None,
        }
    }

    /// Ends the wait if it is over by now. hyper learns of it when the connection is polled next.
    pub(crate) fn look(&self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            *self.0.lock() = Waited::Late;
        }
    }
}

impl Timer for Heads {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait { waited: self.0.clone(), due: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

/// What hyper polls while it waits for a head.
struct Wait {
    waited: Arc<Mutex<Waited>>,
    due: Instant,
}

impl Future for Wait {
    type Output = ();

    /// Its waker is that of the connection, which the connection's timer wakes.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut waited = self.waited.lock();
        if matches!(*waited, Waited::Late) {
            return Poll::Ready(());
        }
        *waited = Waited::Until(self.due);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        *self.waited.lock() = Waited::Nothing;
    }
}

impl Sleep for Wait {}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_is_late_when_it_is_due_and_not_when_an_earlier_one_was() {
        let heads = Heads::default();
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
