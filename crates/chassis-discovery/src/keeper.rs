//! What every registration over a network does, whatever it writes.
//!
//! One task per entry: write it, keep it alive, and write it again when the
//! registry lost it or was away. It takes the entry back when the lease is
//! dropped. What is left to a backend is how to do these two things once.

use std::future::Future;
use std::time::Duration;

use chassis_core::{Code, Error, Result};
use chassis_resilience::retry::Backoff;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::registrar::Lost;
use crate::{Lease, Target};

/// Shorter than a resolver's: an instance that is not registered gets no calls.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2), factor: 2.0 };

/// One entry in a registry.
pub(crate) trait Entry: Send + 'static {
    /// Writes the entry and keeps it, and calls [`Held::confirmed`] each time the
    /// registry confirmed it. Returns only with what took it away. The future may
    /// be dropped at any await; `remove` must then still find what was written.
    fn hold(&mut self, held: &Held) -> impl Future<Output = Error> + Send;

    /// Takes the entry away.
    fn remove(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How a backend says that the registry holds the entry.
pub(crate) struct Held {
    target: Target,
    lost: Lost,
    /// The outcome of the first attempt, once it is known.
    first: Mutex<Option<oneshot::Sender<Result<()>>>>,
}

impl Held {
    /// The registry has the entry at this moment.
    pub(crate) fn confirmed(&self) {
        if self.lost.found() {
            tracing::info!(registered = %self.target, "registered");
        }
        self.settle(Ok(()));
    }

    fn lost(&self, error: Error) {
        if self.lost.since(Instant::now()) || self.is_first() {
            tracing::warn!(
                registered = %self.target,
                error = error.chain(),
                "not registered; it is tried again"
            );
        }
        self.settle(Err(error));
    }

    fn is_first(&self) -> bool {
        self.first.lock().is_some()
    }

    fn settle(&self, outcome: Result<()>) {
        if let Some(first) = self.first.lock().take() {
            // Nobody may wait for it any more.
            let _ = first.send(outcome);
        }
    }
}

/// Begins to keep an entry and waits for the outcome of the first attempt, but
/// not longer than two requests may take. `timeout` also bounds taking it back.
///
/// Dropping the future takes the entry back in the background.
pub(crate) async fn keep(target: Target, entry: impl Entry, timeout: Duration) -> Result<Lease> {
    let (release, released) = oneshot::channel();
    let (gone, is_gone) = oneshot::channel();
    let lost = Lost::default();
    lost.since(Instant::now());
    let (first, outcome) = oneshot::channel();
    let held = Held { target, lost: lost.clone(), first: Mutex::new(Some(first)) };
    tokio::spawn(async move {
        run(entry, held, released, timeout).await;
        // Nobody may wait for it any more.
        let _ = gone.send(());
    });
    // An entry whose task has ended is gone already.
    let tell = move || {
        let _ = release.send(());
    };
    let lease = Lease::kept(tell, is_gone, lost);
    // What takes longer goes on in the background.
    match tokio::time::timeout(timeout * 2, outcome).await {
        Ok(Ok(Err(error))) if is_final(error.code()) => Err(error),
        _ => Ok(lease),
    }
}

async fn run(
    mut entry: impl Entry,
    held: Held,
    mut released: oneshot::Receiver<()>,
    timeout: Duration,
) {
    let mut failures = 0u32;
    loop {
        let began = Instant::now();
        let error = tokio::select! {
            biased;
            // An error means that the lease was dropped without a word.
            _ = &mut released => break,
            error = entry.hold(&held) => error,
        };
        held.lost(error);
        failures = if began.elapsed() > BACKOFF.cap { 1 } else { failures.saturating_add(1) };
        let pause = BACKOFF.ceiling(failures).mul_f64(0.5 + 0.5 * fastrand::f64());
        tokio::select! {
            biased;
            _ = &mut released => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    match tokio::time::timeout(timeout, entry.remove()).await {
        Ok(Ok(())) => tracing::info!(registered = %held.target, "deregistered"),
        Ok(Err(error)) => tracing::warn!(
            registered = %held.target,
            error = error.chain(),
            "deregistering failed; the entry goes with its lease"
        ),
        Err(_) => tracing::warn!(
            registered = %held.target,
            "the registry did not answer; the entry goes with its lease"
        ),
    }
}

/// Whether trying again would not help: the registry or we are set up wrong.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}
