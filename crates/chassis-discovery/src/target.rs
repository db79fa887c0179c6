//! What is looked for, and what is found.
//!
//! A target is a name in two parts, because one service often listens with two
//! protocols on two ports. An endpoint is one address that serves a target.

use std::fmt;
use std::net::SocketAddr;

/// What a client looks for: a service and the protocol it wants to speak.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    /// The name of the service, as in its `ServiceInfo`.
    pub service: String,
    /// `"http"` or `"grpc"`, as in the service's `Listener`.
    pub protocol: String,
}

impl Target {
    /// A target from its two parts.
    pub fn new(service: impl Into<String>, protocol: impl Into<String>) -> Target {
        Target { service: service.into(), protocol: protocol.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.protocol)
    }
}

/// One address that serves a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the calls in relation to the others; at least 1.
    pub weight: u32,
}

impl Endpoint {
    /// An endpoint of weight 1.
    pub fn new(address: SocketAddr) -> Endpoint {
        Endpoint { address, weight: 1 }
    }

    /// The same endpoint with another weight; 0 counts as 1.
    pub fn with_weight(self, weight: u32) -> Endpoint {
        Endpoint { weight: weight.max(1), ..self }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::new(address)
    }
}
