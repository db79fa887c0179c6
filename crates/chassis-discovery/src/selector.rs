//! Which endpoints of a target may be called: those that carry all given labels.
//!
//! Equality alone, joined by "and". That is what a rollout by version and a
//! pinned zone need; anything richer is routing, and belongs to who routes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Endpoint;

/// Labels that an endpoint must carry; an empty one selects every endpoint.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector {
    labels: BTreeMap<String, String>,
}

impl Selector {
    /// The same and this label too; a label named twice has the later value.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Selector {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Both together; where both name a label, `other` decides.
    pub fn and(mut self, other: &Selector) -> Selector {
        self.labels.extend(other.labels.clone());
        self
    }

    /// Whether it selects every endpoint.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether an endpoint carries all the labels. One of which nothing is known
    /// is not selected by a label.
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        self.labels.iter().all(|(name, value)| endpoint.label(name) == Some(value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { "[" } else { "," })?;
        }
        if self.labels.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    #[test]
    fn all_labels_must_match() {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into())
            .with_version("2")
            .with_zone("a")
            .with_label("tier", "gold");
        let target = || Target::new("greeter", "http");
        for (selects, target) in [
            (true, target()),
            (true, target().version("2")),
            (true, target().version("2").zone("a").label("tier", "gold")),
            (false, target().version("1")),
            (false, target().version("2").zone("b")),
            (false, target().label("unknown", "x")),
        ] {
            assert_eq!(target.selector.matches(&endpoint), selects, "{target}");
        }
        let bare = Endpoint::new(([127, 0, 0, 1], 1).into());
        assert!(!target().version("2").selector.matches(&bare));
        assert_eq!(target().version("2").zone("a").to_string(), "greeter/http[version=2,zone=a]");
    }
}
