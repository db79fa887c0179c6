//! The layer that puts a fallback on a service.
//!
//! It keeps the counts: how often an answer was less than one is the figure to alert on.

use std::sync::Arc;

use tower::Layer;

use super::{Degraded, FallbackService};
use crate::sync::{AtomicU64, Ordering};

/// Puts a [`Substitute`](super::Substitute) behind a service.
#[derive(Clone, Debug)]
pub struct FallbackLayer<F, C> {
    substitute: F,
    classify: C,
    counts: Arc<Counts>,
}

/// What a fallback has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FallbackStats {
    /// Calls that were answered with an earlier answer.
    pub cached: u64,
    /// Calls that were answered with what is always given.
    pub default: u64,
    /// Calls that were written down for later.
    pub queued: u64,
    /// Calls that failed, because nothing could stand in.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    cached: AtomicU64,
    default: AtomicU64,
    queued: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    pub(super) fn count(&self, degraded: Option<&Degraded>) {
        let counter = match degraded {
            Some(Degraded::Cached { .. }) => &self.cached,
            Some(Degraded::Default) => &self.default,
            Some(Degraded::Queued) => &self.queued,
            None => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl<F, C> FallbackLayer<F, C> {
    /// `substitute` stands in for what `classify` does not call a success, but for what it
    /// ignores.
    pub fn new(substitute: F, classify: C) -> Self {
        FallbackLayer { substitute, classify, counts: Arc::default() }
    }

    /// The counts, for metrics.
    pub fn stats(&self) -> FallbackStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FallbackStats {
            cached: count(&self.counts.cached),
            default: count(&self.counts.default),
            queued: count(&self.counts.queued),
            failed: count(&self.counts.failed),
        }
    }
}

impl<F: Clone, C: Clone, S> Layer<S> for FallbackLayer<F, C> {
    type Service = FallbackService<S, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService {
            inner,
            substitute: self.substitute.clone(),
            classify: self.classify.clone(),
            counts: self.counts.clone(),
        }
    }
}
