//! What is looked for.
//!
//! A target is a name in two parts, because one service often listens with two
//! protocols on two ports, and a wish: which of its endpoints may be called.

use std::fmt;

use crate::Selector;

/// What a client looks for: a service and the protocol it wants to speak.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The name of the service, as in its `ServiceInfo`.
    pub service: String,
    /// `"http"` or `"grpc"`, as in the service's `Listener`.
    pub protocol: String,
    /// Which of its endpoints are meant; all of them unless it says something.
    pub selector: Selector,
}

impl Target {
    /// A target from its two parts: every endpoint of it.
    pub fn new(service: impl Into<String>, protocol: impl Into<String>) -> Target {
        Target { service: service.into(), protocol: protocol.into(), selector: Selector::default() }
    }

    /// Only endpoints of this version.
    pub fn version(self, version: impl Into<String>) -> Target {
        self.label("version", version)
    }

    /// Only endpoints in this zone. To prefer a zone and fall back to others is
    /// the balancer's task, not a selector's.
    pub fn zone(self, zone: impl Into<String>) -> Target {
        self.label("zone", zone)
    }

    /// Only endpoints with this label; `version` and `zone` are labels too.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Target {
        self.selector = self.selector.with(name, value);
        self
    }

    /// The same service and protocol, all endpoints: what a source is asked for.
    pub(crate) fn unselected(&self) -> Target {
        Target::new(&self.service, &self.protocol)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.service, self.protocol, self.selector)
    }
}
