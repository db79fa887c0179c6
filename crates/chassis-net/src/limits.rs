//! What a server allows its connections.

use std::time::Duration;

/// What a server allows its connections. Each bound holds for plain and for TLS alike.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; those beyond it wait in the queue of the system.
    pub max_connections: usize,
    /// Connections at a time from one address (of IPv6, one network of 64 bits); those beyond
    /// it are closed. `None`: no limit but the one above.
    pub max_per_address: Option<usize>,
    /// Time for the TLS handshake, and after it for the bytes that tell the version of HTTP.
    pub first_bytes: Duration,
    /// HTTP/1: time for each head of a request, and for the next one to begin.
    pub head: Duration,
    /// Time for the first request to begin. `None`: as for any other.
    pub first_request: Option<Duration>,
    /// Time in which the other side must take some of what is sent to it; who takes nothing is
    /// cut off. `None`: it may take as long as it likes.
    pub send: Option<Duration>,
    /// A connection on which no request began for this long, up to twice as long, is asked to
    /// end. `None`: it may stay.
    pub idle: Option<Duration>,
    /// Age at which a connection is asked to end, up to a tenth more at random, so that load
    /// spreads over new instances. `None`: it may grow old.
    pub max_age: Option<Duration>,
}
