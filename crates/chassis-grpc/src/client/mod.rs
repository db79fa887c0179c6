//! The calling side: a channel that knows services by name.
//!
//! A generated client is built on a [`Channel`] as it would be on tonic's own.
//! Behind it stands the column of `channel::column`, the same for every call.

mod answer;
mod call;
mod channel;
mod classify;
mod connection;
mod error;
mod fallback;
mod replay;
mod retry;
mod transport;

pub use channel::{Channel, ChannelBuilder};
pub use fallback::{or_else, or_last_good, or_later};

/// Put into a request's extensions, it says that the call may be repeated
/// although it was sent: doing it twice is the same as doing it once.
///
/// A request with an `idempotency-key` in its metadata is treated alike.
#[derive(Clone, Copy, Debug)]
pub struct Idempotent;

/// Put into a request's extensions, it says that the answer is a stream that is
/// meant to last: the client's own timeout does not apply to it, only the
/// deadline of the context and the request's own timeout, if there are any.
#[derive(Clone, Copy, Debug)]
pub struct LongLived;
