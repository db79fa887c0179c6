//! What an operator sees of the connections.

use chassis_core::{Counter, Gauge, Metrics};

/// The connections of one server.
#[derive(Clone)]
pub(crate) struct Meters {
    open: Gauge,
    pub(crate) crowded: Counter,
    pub(crate) handshakes: Counter,
}

impl Meters {
    /// `server` is its label, such as `http`.
    pub(crate) fn new(metrics: &Metrics, server: &str) -> Meters {
        let refused = |reason| {
            metrics.counter(
                "server_connections_refused",
                "Connections that were closed unserved: too many of an address, no TLS.",
                &[("server", server), ("reason", reason)],
            )
        };
        Meters {
            open: metrics.gauge("server_connections", "Open connections.", &[("server", server)]),
            crowded: refused("address"),
            handshakes: refused("tls"),
        }
    }

    /// Counts a connection until it is dropped, also by a panic of a body that streams.
    pub(crate) fn enter(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }
}

pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
