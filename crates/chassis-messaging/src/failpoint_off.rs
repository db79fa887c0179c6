//! The points of `failpoint` in a build without them: nothing happens.
//!
//! A twin of one function, so that who passes a point need not know which build it is.

use std::future::{Ready, ready};

use chassis_core::Result;

/// Passes a point. Never fails.
#[inline]
pub(crate) fn reach(_point: &'static str) -> Ready<Result<()>> {
    ready(Ok(()))
}
