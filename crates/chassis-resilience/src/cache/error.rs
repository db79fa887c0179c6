//! The error of a fetch, which all that waited for it share.
//!
//! An error in a box cannot be copied, so it is shared; the original is its source.

use std::sync::Arc;

use crate::BoxError;

/// The value could not be fetched, and none was there to stand in for it.
#[derive(Clone, Debug)]
pub enum FetchFailed {
    /// The callee failed.
    Failed(Arc<BoxError>),
    /// The fetch took longer than it may.
    TimedOut,
    /// The fetch ended without an answer: it panicked, or the runtime stops.
    Lost,
    /// Too many fetches are under way; nothing was sent.
    TooMany,
}

impl std::fmt::Display for FetchFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FetchFailed::Failed(_) => "the value could not be fetched",
            FetchFailed::TimedOut => "fetching the value took too long",
            FetchFailed::Lost => "fetching the value ended without an answer",
            FetchFailed::TooMany => "too many values are being fetched",
        })
    }
}

impl std::error::Error for FetchFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FetchFailed::Failed(error) => Some(&***error),
            _ => None,
        }
    }
}
