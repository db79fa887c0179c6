//! Why a socket could not be had, and what to do about it.

use std::{fmt::Display, io, path::Path};

use chassis_core::Error;

/// The variable of a setting of this server, such as `HTTP__PORT`.
pub(crate) fn variable(server: &str, key: &str) -> String {
    format!("{}__{key}", server.to_ascii_uppercase())
}

/// Why a host and a port could not be had.
pub(crate) fn port(place: impl Display, server: &str, error: io::Error) -> Error {
    let setting = variable(server, "PORT");
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
    refused(place, reason, &advice).with_source(error)
}

/// Why a Unix socket could not be had.
pub(crate) fn unix(path: &Path, server: &str, error: io::Error) -> Error {
    let setting = variable(server, "SOCKET__UNIX");
    let (reason, advice) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "ADDRESS_IN_USE",
            format!("another process answers there; stop it or set {setting} to another path"),
        ),
        io::ErrorKind::AlreadyExists => (
            "ADDRESS_IN_USE",
            format!(
                "there is a file that is no socket; remove it or set {setting} to another path"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            "ADDRESS_FORBIDDEN",
            "this user needs to read and to write the folder of the socket".to_owned(),
        ),
        io::ErrorKind::NotFound => {
            ("ADDRESS_NOT_HERE", "make the folder that the socket is to be in".to_owned())
        }
        _ => ("BIND_FAILED", "the system refused".to_owned()),
    };
    refused(format_args!("unix:{}", path.display()), reason, &advice).with_source(error)
}

/// Why a socket of systemd could not be had.
pub(crate) fn systemd(name: &str, advice: &str) -> Error {
    let message = format!("cannot listen on systemd:{name}: {advice}");
    Error::failed_precondition("SOCKET_NOT_HANDED_OVER", message)
}

fn refused(place: impl Display, reason: &'static str, advice: &str) -> Error {
    Error::failed_precondition(reason, format!("cannot listen on {place}: {advice}"))
}
