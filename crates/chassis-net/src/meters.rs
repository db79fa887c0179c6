//! What an operator sees of the connections.

use chassis_core::{Counter, Gauge, Metrics};

/// The connections of one server.
#[derive(Clone)]
pub(crate) struct Meters {
    open: Gauge,
    pub(crate) crowded: Counter,
    pub(crate) handshakes: Counter,
    pub(crate) broken: Broken,
}

/// Connections that ended by an error of the client. hyper answers what is no request by itself, so
/// that neither the access log nor the metrics of requests know of it.
#[derive(Clone)]
pub(crate) struct Broken {
    malformed: Counter,
    too_large: Counter,
    pub(crate) slow: Counter,
    pub(crate) silent: Counter,
    other: Counter,
}

impl Broken {
    pub(crate) fn count(&self, error: &(dyn std::error::Error + 'static)) {
        let counter = match error.downcast_ref::<hyper::Error>() {
            // It is a parse error too.
            Some(error) if error.is_parse_too_large() => &self.too_large,
            Some(error) if error.is_parse() => &self.malformed,
            Some(error) if error.is_timeout() => &self.slow,
            _ => &self.other,
        };
        counter.inc();
    }
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
        let broken = |reason| {
            metrics.counter(
                "server_connections_broken",
                "Connections that ended by an error of the client, such as what is no HTTP.",
                &[("server", server), ("reason", reason)],
            )
        };
        Meters {
            open: metrics.gauge("server_connections", "Open connections.", &[("server", server)]),
            crowded: refused("address"),
            handshakes: refused("tls"),
            broken: Broken {
                malformed: broken("malformed"),
                too_large: broken("too_large"),
                slow: broken("slow"),
                silent: broken("silent"),
                other: broken("other"),
            },
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
