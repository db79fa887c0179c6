//! WebSockets that end: with a drain, and when the other side is gone.
//!
//! axum's `WebSocket` is a stream that knows neither. A [`Socket`] asks a quiet peer whether it is
//! there, and says goodbye (1001) when the process takes itself out of traffic; what the handler
//! does not end by then is cut with the drain. The connection keeps its place among
//! `max_connections` for as long as it lives. HTTP/1.1 alone can be upgraded.

use std::time::Duration;

pub use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::{
    extract::ws::{CloseFrame, WebSocket, close_code},
    response::{IntoResponse, Response},
};
use chassis_core::{Context, Error, InFlightGuard, Result, Status};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{Problem, leaving};

/// Time for a message to be taken by the other side.
const SEND: Duration = Duration::from_secs(10);

/// What a WebSocket may do.
#[derive(Clone, Debug)]
pub struct WebSockets {
    /// Largest message that is taken, in bytes.
    pub max_message_bytes: usize,
    /// A peer that is silent for this long is gone; it is asked (ping) after half of it.
    pub idle_timeout: Duration,
}

impl Default for WebSockets {
    fn default() -> WebSockets {
        WebSockets { max_message_bytes: 64 * 1024, idle_timeout: Duration::from_secs(60) }
    }
}

impl WebSockets {
    /// Answers an upgrade; `handler` has the socket then, in the context of the request and
    /// without its deadline. A process that is about to end refuses (503).
    pub fn accept<F, Fut>(&self, upgrade: WebSocketUpgrade, handler: F) -> Response
    where
        F: FnOnce(Socket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let health = leaving::health();
        if *health.borrow() == Status::Draining {
            return Problem::from(Error::unavailable("SERVER_DRAINING", "this instance is ending"))
                .into_response();
        }
        let context = Context::current().without_deadline();
        let idle = self.idle_timeout;
        upgrade
            .max_message_size(self.max_message_bytes)
            .max_frame_size(self.max_message_bytes)
            .on_upgrade(move |inner| {
                let _in_flight = context.env().in_flight().enter("websocket");
                let heard = Instant::now();
                context.scope(async move {
                    handler(Socket { inner, health, idle, heard, asked: false, _in_flight }).await;
                })
            })
    }
}

/// A WebSocket that is open. Dropping it closes the connection.
pub struct Socket {
    inner: WebSocket,
    health: watch::Receiver<Status>,
    idle: Duration,
    heard: Instant,
    asked: bool,
    _in_flight: InFlightGuard,
}

impl Socket {
    /// The next text or bytes; `None` when it is over, for whatever reason: the other side has
    /// closed it or is gone, or this process is about to end. Dropping the future loses nothing,
    /// so it can stand beside other work in a `select!`.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            let next = match self.asked {
                false => self.heard + self.idle / 2,
                true => self.heard + self.idle,
            };
            tokio::select! {
                message = self.inner.recv() => {
                    (self.heard, self.asked) = (Instant::now(), false);
                    match message {
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                            return Some(message);
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return None,
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a WebSocket broke");
                            return None;
                        }
                    }
                }
                () = leaving::is_near(self.health.clone()) => {
                    self.close(close_code::AWAY, "this instance is ending").await;
                    return None;
                }
                () = sleep_until(next) => {
                    if self.asked {
                        self.close(close_code::POLICY, "nothing came for too long").await;
                        return None;
                    }
                    self.asked = true;
                    self.send(Message::Ping(bytes::Bytes::new())).await.ok()?;
                }
            }
        }
    }

    /// Sends a message; waits up to ten seconds until the other side takes it. Dropping the future
    /// may leave half of it sent: then only dropping the socket is left to do.
    ///
    /// # Errors
    /// `WEBSOCKET_CLOSED`: the other side is gone, or takes nothing.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        let closed = || Error::unavailable("WEBSOCKET_CLOSED", "the other side is gone");
        match timeout(SEND, self.inner.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(closed().with_source(error)),
            Err(late) => Err(closed().with_source(late)),
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let goodbye = CloseFrame { code, reason: reason.into() };
        // Whether it hears it or not, this was the last word.
        let _ = self.send(Message::Close(Some(goodbye))).await;
    }
}
