//! Saying "I serve this target", for as long as it is true.
//!
//! The answer to a registration is a lease, not an id: whoever holds it is
//! registered, and dropping it, also by a panic, takes the entry away. So
//! nobody can forget to deregister.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{Endpoint, Target};

/// A place where services make themselves known.
pub trait Registrar: Send + Sync + 'static {
    /// Makes an endpoint known under a target until the lease is dropped.
    ///
    /// A place that cannot be reached now is no error: the lease says that it is
    /// lost, and is tried for in the background. A process must be able to start
    /// while its registry is away.
    ///
    /// # Errors
    /// When the place refuses, so that trying again would not help.
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>>;
}

/// A registration that lasts as long as this value.
#[must_use = "dropping the lease deregisters"]
pub struct Lease {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
    gone: Option<oneshot::Receiver<()>>,
    lost: Lost,
}

/// Since when a registration is lost, while it is; shared by a lease and who
/// keeps it.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<Mutex<Option<Instant>>>);

impl Lost {
    /// The place does not hold the entry any more, or may not; whether that is
    /// news.
    pub fn since(&self, now: Instant) -> bool {
        let mut lost = self.0.lock();
        let is_news = lost.is_none();
        lost.get_or_insert(now);
        is_news
    }

    /// The place confirmed the entry; whether that is news.
    pub fn found(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

impl Lease {
    /// A lease that runs `release` once, when it is released or dropped.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Lease {
        Lease { release: Some(Box::new(release)), gone: None, lost: Lost::default() }
    }

    /// A lease that a task keeps: `release` tells the task to take the entry
    /// away, and the task sends to, or drops, the other end of `gone` when it
    /// has. It says in `lost` how things stand.
    pub fn kept(
        release: impl FnOnce() + Send + Sync + 'static,
        gone: oneshot::Receiver<()>,
        lost: Lost,
    ) -> Lease {
        Lease { release: Some(Box::new(release)), gone: Some(gone), lost }
    }

    /// For how long the registration has been lost; none while the place holds it.
    pub fn lost_for(&self, now: Instant) -> Option<Duration> {
        self.lost.0.lock().map(|since| now.saturating_duration_since(since))
    }

    /// Deregisters now; the same as dropping it, but the future ends when the
    /// place has taken the entry away, or has not answered in its time.
    ///
    /// It begins with the call, not with the first poll. Dropping the future
    /// leaves it going on in the background.
    pub fn release(mut self) -> impl Future<Output = ()> + Send + 'static {
        let gone = self.gone.take();
        drop(self);
        async move {
            if let Some(gone) = gone {
                // An error means that the task has ended, which is as well.
                let _ = gone.await;
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("lost", &self.lost).finish_non_exhaustive()
    }
}
