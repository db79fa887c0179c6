//! What stands in for a collector of spans: one that takes them, one that hangs.

use std::net::{SocketAddr, TcpListener};

use axum::{Router, routing::post};

use crate::{Outcome, child::Server, serve};

/// A collector, for as long as it is held.
pub(crate) enum Collector {
    Takes(Server),
    /// Its connections wait to be accepted, and nobody does.
    Hangs(TcpListener),
}

impl Collector {
    /// One in a process of its own, on the core of the load.
    pub(crate) fn takes(before: &[&str]) -> Outcome<Collector> {
        Server::start("collector", before, "http").map(Collector::Takes)
    }

    pub(crate) fn hangs() -> Outcome<Collector> {
        Ok(Collector::Hangs(TcpListener::bind("127.0.0.1:0")?))
    }

    pub(crate) fn address(&self) -> Outcome<SocketAddr> {
        match self {
            Collector::Takes(server) => server.address("http"),
            Collector::Hangs(listener) => Ok(listener.local_addr()?),
        }
    }
}

/// Serves what takes spans: an empty answer is a whole one to OTLP over HTTP.
pub(crate) async fn serve() -> Outcome<()> {
    let router = Router::new().route("/v1/traces", post(|_: axum::body::Bytes| async {}));
    serve::http_bare(router).await
}
