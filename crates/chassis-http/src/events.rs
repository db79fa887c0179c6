//! Server-sent events that end with a drain.
//!
//! axum's `Sse` goes on until its stream ends, and would hold a drain until its deadline. Here the
//! answer ends, whole, when the process takes itself out of traffic; a browser connects again by
//! itself (with the `Last-Event-ID` that it has) and finds another instance.
//!
//! A client that takes nothing is cut by `send_timeout`. The deadline of a request is for the head
//! of its answer and not for the events.

use std::time::Duration;

pub use axum::response::sse::Event;
use axum::response::sse::{KeepAlive, Sse};
use futures_util::{Stream, StreamExt};

use crate::leaving;

/// How often a quiet stream says that it is there: below the minute after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An answer of these events. To be called in a handler: the drain is that of the process which
/// serves the request.
pub fn sse<S, E>(events: S) -> Sse<impl Stream<Item = Result<Event, E>> + Send + 'static>
where
    S: Stream<Item = Result<Event, E>> + Send + 'static,
    E: Into<chassis_core::BoxError> + 'static,
{
    let ends = leaving::is_near(leaving::health());
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    // The keep-alive is inside of it: it would go on for ever.
    Sse::new(events.take_until(Box::pin(ends))).keep_alive(alive)
}
