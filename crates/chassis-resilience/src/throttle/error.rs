//! The error of a call that the throttle refused.
//!
//! It carries the share, because "one in ten" and "all but a few" are different news.

/// The callee accepts too little; the call never left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttled {
    /// The share of calls that was being refused, from 0 to 1.
    pub share: f64,
}

impl std::fmt::Display for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "throttled, {:.0} % of calls are refused", self.share * 100.0)
    }
}

impl std::error::Error for Throttled {}
