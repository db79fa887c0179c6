//! The error of a request that was shed.
//!
//! It carries the priority: that critical ones are shed is worth an alert, others are routine.

use super::Priority;

/// There is no room; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The priority of the request.
    pub priority: Priority,
    /// How many requests of this priority have room now.
    pub limit: u32,
}

impl std::fmt::Display for Shed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "overloaded, {} requests are shed", self.priority.as_str())
    }
}

impl std::error::Error for Shed {}
