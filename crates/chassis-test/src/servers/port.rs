//! A port that is free now.
//!
//! Another process may take it before the server binds it; whoever starts a server tries
//! again with another one.

use std::net::{Ipv4Addr, TcpListener};

/// A loopback port that nobody listens on at this moment.
pub(super) fn free() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|error| panic!("no free loopback port: {error}"))
        .port()
}
