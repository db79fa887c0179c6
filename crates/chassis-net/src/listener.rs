//! The socket that a server listens on: of an address, of a path, or handed over.

use std::{io, net::SocketAddr, path::PathBuf};

use chassis_core::{Env, Error, Listener as Announced, Result, config::SocketConfig};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::{
    bind,
    stream::Wire,
    systemd::{self, Given},
    unix::{self, SocketFile},
};

/// A connection that was accepted, and where it comes from. Who comes over a Unix socket has no
/// address.
pub(crate) type Arrived = (Wire, Option<SocketAddr>);

/// A socket that is bound.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With its file, if we have made it.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Binds what the settings ask for. Dropping the future leaves nothing bound.
    ///
    /// # Errors
    /// `ADDRESS_IN_USE`, `ADDRESS_FORBIDDEN`, `ADDRESS_NOT_HERE`, `SOCKET_NOT_HANDED_OVER` or
    /// `BIND_FAILED`; the message says what to do.
    pub(crate) async fn open(
        server: &str,
        address: SocketAddr,
        socket: &SocketConfig,
    ) -> Result<Listener> {
        if let Some(path) = socket.unix() {
            let mode = socket.permissions(&format!("{server}.socket"))?;
            let bound = {
                let path = path.to_owned();
                tokio::task::spawn_blocking(move || unix::open(&path, mode)).await
            };
            let explain = |error| bind::unix(path, server, error);
            let (listener, file) = bound.map_err(Error::internal)?.map_err(explain)?;
            let listener = UnixListener::from_std(listener).map_err(explain)?;
            return Ok(Listener::Unix(listener, Some(file)));
        }
        let given = match socket.systemd() {
            Some(name) => systemd::take(name)?,
            None => {
                let explain = |error| bind::port(address, server, error);
                return tcp(address, socket.reuse_port).map(Listener::Tcp).map_err(explain);
            }
        };
        match given {
            Given::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Given::Unix(listener) => {
                UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, None))
            }
        }
        .map_err(Error::internal)
    }

    /// The bound address, with the real port; `None` for a Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Tells the process of it.
    pub(crate) fn announce(&self, protocol: &'static str, env: &Env) {
        match self {
            Listener::Tcp(_) => {
                if let Some(address) = self.address() {
                    env.announce(Announced { protocol, address });
                }
            }
            Listener::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.and_then(|address| address.as_pathname().map(PathBuf::from));
                let path = path.unwrap_or_default();
                env.announce_unix(chassis_core::UnixListener { protocol, path });
            }
        }
    }

    /// Waits for the next connection. Dropping the future loses none.
    pub(crate) async fn accept(&self) -> io::Result<Arrived> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Wire::Tcp(stream), Some(peer)))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Wire::Unix(stream), None))
            }
        }
    }

    /// Closes it; gives those who were connected by then, `most` at most. To them the connection
    /// stands, and they may have sent: closing alone would cut them off without a word.
    pub(crate) fn close(self, most: usize) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        // Asked without the runtime, which may not have heard of them yet.
        match self {
            Listener::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return arrived };
                while arrived.len() < most
                    && let Ok((stream, peer)) = listener.accept()
                {
                    let stream =
                        stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    keep(&mut arrived, stream.map(|stream| (Wire::Tcp(stream), Some(peer))));
                }
            }
            Listener::Unix(listener, file) => {
                // First of all nobody finds it any more.
                drop(file);
                let Ok(listener) = listener.into_std() else { return arrived };
                while arrived.len() < most
                    && let Ok((stream, _)) = listener.accept()
                {
                    let stream =
                        stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                    keep(&mut arrived, stream.map(|stream| (Wire::Unix(stream), None)));
                }
            }
        }
        arrived
    }
}

fn keep(arrived: &mut Vec<Arrived>, next: io::Result<Arrived>) {
    match next {
        Ok(next) => arrived.push(next),
        Err(error) => tracing::debug!(%error, "a queued connection is lost"),
    }
}

fn tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Else a port is not to be had for a minute after its connections ended.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(unix::QUEUE.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let socket = SocketConfig::default();
        let taken = Listener::open("http", ([127, 0, 0, 1], 0).into(), &socket).await.unwrap();
        let address = taken.address().unwrap();
        let error = Listener::open("http", address, &socket).await.err().unwrap();
        assert_eq!(error.reason(), "ADDRESS_IN_USE");
        assert!(error.message().contains(&address.to_string()), "{error}");
        assert!(error.message().contains("HTTP__PORT"), "{error}");
    }
}
