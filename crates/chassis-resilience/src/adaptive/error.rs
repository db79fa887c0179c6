//! The error of a call above the measured limit.
//!
//! It carries the limit of that moment, because it moves.

/// As many calls are under way as there is room for; the call never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimited {
    /// How many calls may be under way now.
    pub limit: u32,
}

impl std::fmt::Display for ConcurrencyLimited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "room for {} calls at a time is taken", self.limit)
    }
}

impl std::error::Error for ConcurrencyLimited {}
