//! The errors of chaos: the one that is injected, and rules that are refused.
//!
//! The injected one says that it was, so that nobody looks for its cause.

/// A failure on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The target of the rule.
    pub target: String,
}

impl std::fmt::Display for Injected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a fault was injected into {}", self.target)
    }
}

impl std::error::Error for Injected {}

/// A rule was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChaosRefused {
    /// The configuration does not enable it.
    Disabled,
    /// There are as many rules as there may be.
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// A part of the rule is out of its range.
    OutOfRange {
        /// Its name.
        setting: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl std::fmt::Display for ChaosRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChaosRefused::Disabled => f.write_str("the configuration does not enable chaos"),
            ChaosRefused::TooMany { limit } => write!(f, "there are {limit} rules already"),
            ChaosRefused::OutOfRange { setting, expected } => {
                write!(f, "{setting} must be {expected}")
            }
        }
    }
}

impl std::error::Error for ChaosRefused {}
