//! An address that swallows packets, as that of a container that is gone does.
//!
//! A port where nobody listens says so at once. What costs callers dearly is silence: it takes
//! a time-out to notice.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// As long as this without an answer, and the queue is full.
const PATIENCE: Duration = Duration::from_millis(100);

/// A socket whose queue is full and from which nobody accepts, so that what asks for a
/// connection hears nothing. Dropping it closes the port.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one on a free port of the loopback. Dropping the future closes it.
    ///
    /// # Panics
    /// Where no socket can be had.
    pub async fn open() -> BlackHole {
        let opened = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            let listener = socket.listen(1)?;
            let address = listener.local_addr()?;
            let mut queue = Vec::new();
            while let Ok(stream) = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await
            {
                queue.push(stream?);
            }
            Ok::<_, std::io::Error>(BlackHole { address, _listener: listener, _queue: queue })
        };
        opened.await.unwrap_or_else(|error| panic!("a black hole needs a socket: {error}"))
    }

    /// The address that never answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_connects_hears_nothing() {
        let hole = BlackHole::open().await;
        let connect = TcpStream::connect(hole.address());
        assert!(tokio::time::timeout(2 * PATIENCE, connect).await.is_err());
    }
}
