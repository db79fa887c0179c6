//! One HTTP/2 connection to one endpoint, made when the first call needs it and again after it
//! ended.
//!
//! Of hyper, not tonic's channel: that one tries to connect once for each call that waits, one
//! after the other, so that the tenth call to an address which swallows packets waits for ten
//! time-outs; and it hands each call to a task through a queue. Here all calls wait for the
//! same try, and fail with it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::BoxError;
use chassis_net::KeepAlive;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::replay::Replay;

/// Gives calls to the connection.
pub(super) type Sender = http2::SendRequest<Replay>;

/// No connection could be made, so no call was sent.
#[derive(Clone, Debug)]
pub(super) struct ConnectFailed {
    pub(super) address: SocketAddr,
    pub(super) source: Arc<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connect to {}", self.address)
    }
}

impl std::error::Error for ConnectFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// The connection to one endpoint. Clones share it; it is closed when all of them and the calls
/// that are under way have ended.
#[derive(Clone)]
pub(super) struct Line(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    connect_timeout: Duration,
    keep_alive: KeepAlive,
    state: Mutex<State>,
}

type Tried = Option<Result<Sender, ConnectFailed>>;
/// A try to connect that is under way.
pub(super) type Trying = watch::Receiver<Tried>;

enum State {
    Down,
    Connecting(Trying),
    Up(Sender),
}

impl Line {
    pub(super) fn new(
        address: SocketAddr,
        connect_timeout: Duration,
        keep_alive: KeepAlive,
    ) -> Line {
        let state = Mutex::new(State::Down);
        Line(Arc::new(Shared { address, connect_timeout, keep_alive, state }))
    }

    /// Begins to connect, if that is not done yet, before a call has to wait for it.
    pub(super) fn warm(&self) {
        if Handle::try_current().is_ok() {
            drop(self.now());
        }
    }

    /// A sender, as soon as there is a connection. Dropping the future leaves the try to others.
    ///
    /// # Errors
    /// The connection was not made in time; whoever asks next begins anew.
    pub(super) async fn sender(&self) -> Result<Sender, ConnectFailed> {
        match self.now() {
            Ok(sender) => Ok(sender),
            Err(trying) => self.when(trying).await,
        }
    }

    /// The sender that a try gives, with the manners of [`sender`](Line::sender).
    pub(super) async fn when(&self, mut trying: Trying) -> Result<Sender, ConnectFailed> {
        let tried = match trying.wait_for(Option::is_some).await {
            Ok(tried) => tried.clone(),
            Err(_) => None,
        };
        tried.unwrap_or_else(|| Err(self.0.failed("the runtime ends".into())))
    }

    /// The sender of a connection that is there, or what to wait for.
    pub(super) fn now(&self) -> Result<Sender, Trying> {
        let mut state = self.0.state.lock();
        match &*state {
            State::Up(sender) if !sender.is_closed() => return Ok(sender.clone()),
            State::Connecting(trying) => return Err(trying.clone()),
            State::Up(_) | State::Down => {}
        }
        let (told, trying) = watch::channel(None);
        // A task, because who began it may leave while others wait. It ends in time.
        tokio::spawn(Arc::clone(&self.0).connect(told));
        *state = State::Connecting(trying.clone());
        Err(trying)
    }
}

/// Spawns futures in a box. hyper has one for each call, which is large, and tokio moves what
/// it spawns a dozen times.
#[derive(Clone, Copy)]
struct Boxed;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Boxed {
    fn execute(&self, future: F) {
        tokio::spawn(Box::pin(future));
    }
}

impl Shared {
    async fn connect(self: Arc<Self>, told: watch::Sender<Tried>) {
        let tried = match tokio::time::timeout(self.connect_timeout, self.open()).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(late) => Err(self.failed(late.into())),
        };
        *self.state.lock() = match &tried {
            Ok(sender) => State::Up(sender.clone()),
            Err(_) => State::Down,
        };
        told.send_replace(Some(tried));
    }

    async fn open(&self) -> Result<Sender, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(Boxed)
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keep_alive.every)
            .keep_alive_timeout(self.keep_alive.timeout)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends when all senders are gone and all calls have ended.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = chassis_core::error::chain(&error), "connection ended");
            }
        });
        Ok(sender)
    }

    fn failed(&self, source: BoxError) -> ConnectFailed {
        ConnectFailed { address: self.address, source: source.into() }
    }
}
