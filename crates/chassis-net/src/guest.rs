//! A second protocol on the socket of a server: gRPC beside HTTP on one port.
//!
//! The two servers are siblings that do not know each other, so what they need of each other is
//! said here. The guest keeps its own layer around each of its calls; the host has the socket,
//! its limits and its drain.

use bytes::Bytes;
use chassis_core::{BoxError, BoxFuture, Env, Result, Shutdown};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use crate::Peer;

/// A server that can do without a socket of its own.
pub trait Guest: Send + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// What it speaks, such as `grpc`.
    fn protocol(&self) -> &'static str;

    /// Itself in words, for the plan.
    fn describe(&self) -> String;

    /// Checks its settings.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key.
    fn validate(&self) -> Result<()>;

    /// Makes what answers. `shutdown` is that of its host.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    fn open(self, env: &Env, shutdown: Shutdown) -> Result<Opened<Self::Body>>;
}

/// A guest that answers.
pub struct Opened<B> {
    /// Whether a request is for it.
    pub is_for: fn(&Request<Incoming>) -> bool,
    /// Makes what answers on a connection. Dropping the future of a call cancels it.
    pub connection: Connect<B>,
    /// To be polled as long as the host serves; it does not end.
    pub work: BoxFuture<'static, ()>,
}

/// What answers on a connection.
pub type Calls<B> = Box<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<B>> + Send>;

/// Makes what answers on a connection.
pub type Connect<B> = Box<dyn Fn(&Peer) -> Calls<B> + Send + Sync>;
