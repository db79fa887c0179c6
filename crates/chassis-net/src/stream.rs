//! A connection, over an address or a path, plain or with TLS, as one type: HTTP is compiled once
//! for all.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// What a connection comes over.
pub(crate) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// The address of ours that it came to.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Wire::Tcp(stream) => stream.local_addr().ok(),
            Wire::Unix(_) => None,
        }
    }

    /// Answers are written whole; waiting for more bytes only delays them.
    pub(crate) fn no_delay(&self) {
        if let Wire::Tcp(stream) = self
            && let Err(error) = stream.set_nodelay(true)
        {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    }
}

pub(crate) enum Stream {
    Plain(Wire),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<Wire>>),
}

/// Reads and writes by whichever it is.
macro_rules! pass_on {
    ($kind:ident { $($(#[$attr:meta])* $variant:ident),+ }) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attr])* $kind::$variant(inner) => Pin::new(inner).poll_read(cx, buf),)+
                }
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$attr])* $kind::$variant(inner) => Pin::new(inner).poll_write(cx, buf),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attr])* $kind::$variant(inner) => Pin::new(inner).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attr])* $kind::$variant(inner) => Pin::new(inner).poll_shutdown(cx),)+
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$attr])* $kind::$variant(inner) => {
                        Pin::new(inner).poll_write_vectored(cx, bufs)
                    })+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $($(#[$attr])* $kind::$variant(inner) => inner.is_write_vectored(),)+
                }
            }
        }
    };
}

pass_on!(Wire { Tcp, Unix });
pass_on!(Stream {
    Plain,
    #[cfg(feature = "tls")]
    Tls
});
