//! Binding a socket, with an error that says what to do.

use std::{io, net::SocketAddr};

use chassis_core::{Error, Result};
use tokio::net::TcpListener;

/// Binds an address; `setting` is the usual name of the port's setting in the environment.
///
/// Dropping the future binds nothing.
///
/// # Errors
/// `ADDRESS_IN_USE`, `ADDRESS_FORBIDDEN`, `ADDRESS_NOT_HERE` or `BIND_FAILED`; the message says
/// what to do.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| explain(address, setting, error))
}

fn explain(address: SocketAddr, setting: &str, error: io::Error) -> Error {
    let (reason, advice) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "ADDRESS_IN_USE",
            format!(
                "another process listens there; stop it or set {setting} (0 takes a free port)"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            "ADDRESS_FORBIDDEN",
            format!("this user may not listen there; set {setting} to a port above 1023"),
        ),
        io::ErrorKind::AddrNotAvailable => (
            "ADDRESS_NOT_HERE",
            "this machine has no such address; set the host to one that it has, or 0.0.0.0"
                .to_owned(),
        ),
        _ => ("BIND_FAILED", "the system refused".to_owned()),
    };
    Error::failed_precondition(reason, format!("cannot listen on {address}: {advice}"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let taken = bind(([127, 0, 0, 1], 0).into(), "HTTP__PORT").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "HTTP__PORT").await.unwrap_err();
        assert_eq!(error.reason(), "ADDRESS_IN_USE");
        assert!(error.message().contains(&address.to_string()), "{error}");
        assert!(error.message().contains("HTTP__PORT"), "{error}");
    }
}
