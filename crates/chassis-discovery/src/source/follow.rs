//! The task of one target: follow, and after a failure, pause and follow again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::Result;
use chassis_resilience::retry::Backoff;

use super::{Sink, Watched};
use crate::{Feed, Resolver, Target, Updates};

/// Between two sessions: soon, for a connection that was only moved; and not
/// more often than a registry that struggles can bear.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5), factor: 2.0 };

/// A backend's way to ask.
pub(crate) trait Source: Send + Sync + 'static {
    /// Follows one target and gives each complete set to `sink`. Ends well where
    /// the set must be asked for anew, and with an error where the source fails.
    /// Dropping the future ends the session.
    fn follow(&self, target: &Target, sink: &Sink) -> impl Future<Output = Result<()>> + Send;
}

/// A resolver over a source.
pub(crate) struct Following<S> {
    source: Arc<S>,
    grace: Duration,
    watched: Watched,
}

impl<S: Source> Following<S> {
    pub(crate) fn new(source: Arc<S>, grace: Duration) -> Following<S> {
        Following { source, grace, watched: Watched::default() }
    }
}

impl<S: Source> Resolver for Following<S> {
    fn watch(&self, target: &Target) -> Updates {
        self.watched.watch(target, |target, feed| {
            tokio::spawn(run(Arc::clone(&self.source), target, feed, self.grace));
        })
    }
}

/// Lives until nobody reads the feed.
async fn run<S: Source>(source: Arc<S>, target: Target, feed: Feed, grace: Duration) {
    let sink = Sink::new(target.clone(), feed, grace);
    tokio::select! {
        () = sessions(&*source, &target, &sink) => {}
        () = sink.forget() => {}
    }
}

async fn sessions<S: Source>(source: &S, target: &Target, sink: &Sink) {
    let mut failures = 0u32;
    loop {
        let ended = source.follow(target, sink).await;
        // A session that gave a set was a good one, however it ended.
        if sink.take_answered() {
            failures = 0;
        }
        if let Err(error) = ended {
            sink.failed();
            if failures == 0 {
                tracing::warn!(
                    sought = %target,
                    error = error.chain(),
                    "discovery fails, the last known endpoints stay"
                );
            }
        }
        failures = failures.saturating_add(1);
        // At least half of it, so that a source that ends every session at once
        // is not asked in a loop.
        let ceiling = BACKOFF.ceiling(failures);
        tokio::time::sleep(ceiling.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
    }
}
