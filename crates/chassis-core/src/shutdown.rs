//! The signal to stop, and by when.
//!
//! A [`Shutdown`] is a level, not an event: whoever asks late still learns of it. It carries
//! the deadline of the drain, so that every component gives up at the same moment and the
//! process ends before the orchestrator kills it.

use std::time::Duration;

use tokio::sync::watch;

use crate::{Context, Deadline};

/// The time to drain that is assumed before a shutdown was requested.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Tells a component when to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Option<Deadline>>);

/// Requests the shutdown. Dropping it requests one too: nobody is left who could.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<Option<Deadline>>);

impl Shutdown {
    /// A new pair.
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // like a channel: the two halves are made together
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(None);
        (ShutdownTrigger(sender), Shutdown(receiver))
    }

    /// Waits until a shutdown is requested; returns at once if it already was.
    ///
    /// Dropping it loses nothing.
    pub async fn requested(&self) {
        // An error means that the trigger is gone, which is a request too.
        let _ = self.0.clone().wait_for(Option::is_some).await;
    }

    /// Whether a shutdown was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// By when the drain must end; thirty seconds from now before a shutdown was requested.
    #[must_use]
    pub fn drain_deadline(&self) -> Deadline {
        (*self.0.borrow()).unwrap_or_else(|| Deadline::after(DEFAULT_DRAIN))
    }
}

impl ShutdownTrigger {
    /// Requests the shutdown, with this much time to drain. A second request changes nothing.
    pub fn shutdown(&self, drain: Duration) {
        self.shutdown_by(Deadline::after(drain));
    }

    /// Requests the shutdown, to be done by `deadline`. A second request changes nothing.
    pub fn shutdown_by(&self, deadline: Deadline) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(deadline);
            }
            first
        });
    }
}

/// A shutdown that SIGTERM or SIGINT (Ctrl-C) requests, with this much time to drain.
///
/// A second signal ends the process at once with exit code 130, after `goodbye`, which gets
/// the number of the signal: 1 for the one that began the drain, 2 for the one that ends it.
/// No destructor runs after it: what must still be written, such as buffered log lines, it
/// has to write itself. It runs in the [`Context`] that is ambient here, so that what it logs has a service name.
/// Must be called inside a tokio runtime.
///
/// # Errors
/// Fails if the handlers cannot be installed.
pub fn on_signal(
    drain: Duration,
    goodbye: impl Fn(u32) + Send + Sync + 'static,
) -> std::io::Result<Shutdown> {
    let (trigger, shutdown) = Shutdown::new();
    let mut signals = Signals::new()?;
    let watch = async move {
        signals.next().await;
        goodbye(1);
        trigger.shutdown(drain);
        signals.next().await;
        goodbye(2);
        std::process::exit(130);
    };
    match Context::try_current() {
        Some(context) => tokio::spawn(context.scope(watch)),
        None => tokio::spawn(watch),
    };
    Ok(shutdown)
}

#[cfg(unix)]
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_late_still_learns_of_it() {
        let (trigger, shutdown) = Shutdown::new();
        assert!(!shutdown.is_requested());
        trigger.shutdown(Duration::from_secs(5));
        trigger.shutdown(Duration::from_secs(500));
        shutdown.requested().await;
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.drain_deadline().remaining(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_lost_trigger_is_a_request() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
