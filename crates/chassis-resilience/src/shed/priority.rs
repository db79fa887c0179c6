//! Who is refused first.
//!
//! Few classes, because whoever must choose from ten chooses the highest.

/// How important a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be left out: a prefetch, a batch, a decoration.
    Sheddable,
    /// The usual request.
    #[default]
    Normal,
    /// Refused last: a payment, the step of a saga that undoes another.
    Critical,
    /// Never refused and not counted: health checks, the admin port.
    Exempt,
}

impl Priority {
    /// The name in metrics and logs: `sheddable`, `normal`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Sheddable => "sheddable",
            Priority::Normal => "normal",
            Priority::Critical => "critical",
            Priority::Exempt => "exempt",
        }
    }
}
