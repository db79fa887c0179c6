//! An answer that says whether it is one.
//!
//! A wrapper and not a mark inside the value, because only then the type tells every reader
//! that there is a question.

use std::time::Duration;

/// An answer, or what stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What the caller asked for, or something less.
    pub value: T,
    /// How it is less. `None` for the callee's own answer.
    pub degraded: Option<Degraded>,
}

/// How an answer is less than what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// It is an earlier answer.
    Cached {
        /// How long ago the callee gave it.
        age: Duration,
    },
    /// It is what is always given when the callee fails.
    Default,
    /// Nothing was done yet; it will be done later.
    Queued,
}

impl Degraded {
    /// The name in metrics, logs and headers: `cached`, `default`, `queued`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Degraded::Cached { .. } => "cached",
            Degraded::Default => "default",
            Degraded::Queued => "queued",
        }
    }
}
