//! Sockets that systemd, or whoever speaks as it does, hands over to the process.
//!
//! They begin at file descriptor 3; `LISTEN_FDS` says how many there are, `LISTEN_PID` for
//! whom, `LISTEN_FDNAMES` how they are called (`sd_listen_fds(3)`). A descriptor belongs to one
//! owner, so there is one list for the whole process, from which each socket is taken once.

use std::{io, net::TcpListener, os::unix::net::UnixListener, sync::LazyLock};

use chassis_core::Result;
use listenfd::ListenFd;
use parking_lot::Mutex;

use crate::bind;

static HANDED: LazyLock<Mutex<Handed>> = LazyLock::new(|| Mutex::new(Handed::read()));

struct Handed {
    sockets: ListenFd,
    names: Vec<String>,
}

/// A socket that somebody else has made, and that goes on without us.
pub(crate) enum Given {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The socket of this name or number.
///
/// # Errors
/// `SOCKET_NOT_HANDED_OVER`; the message says which there are.
pub(crate) fn take(name: &str) -> Result<Given> {
    HANDED.lock().take(name)
}

impl Handed {
    fn read() -> Handed {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        // It looks at whom the sockets are for, and removes the variables: they are not for the
        // processes that this one may start.
        Handed { sockets: ListenFd::from_env(), names }
    }

    fn take(&mut self, name: &str) -> Result<Given> {
        let by_name = self.names.iter().position(|known| known == name);
        let Some(number) = by_name.or_else(|| name.parse().ok()) else {
            return Err(bind::systemd(name, &self.advice()));
        };
        let given = self.given(number).map_err(|error| {
            bind::systemd(name, "it is no stream socket; ListenStream= makes one")
                .with_source(error)
        })?;
        given.ok_or_else(|| bind::systemd(name, &self.advice()))
    }

    /// `None` if there is none of this number, or it was taken.
    fn given(&mut self, number: usize) -> io::Result<Option<Given>> {
        if let Ok(tcp) = self.sockets.take_tcp_listener(number) {
            return match tcp {
                Some(tcp) => tcp.set_nonblocking(true).map(|()| Some(Given::Tcp(tcp))),
                None => Ok(None),
            };
        }
        let Some(unix) = self.sockets.take_unix_listener(number)? else { return Ok(None) };
        unix.set_nonblocking(true).map(|()| Some(Given::Unix(unix)))
    }

    fn advice(&self) -> String {
        match (self.sockets.len(), self.names.as_slice()) {
            (0, _) => "no socket was handed over; start it by a .socket unit, or unset this".into(),
            (count, []) => {
                format!("{count} were handed over, without names; use 0 to {}", count - 1)
            }
            (_, names) => format!(
                "what was handed over and is not taken yet may be: {}; a socket serves once",
                names.join(", ")
            ),
        }
    }
}
