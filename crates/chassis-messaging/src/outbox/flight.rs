//! One publish: its trace, its time limit, and whose fault a failure is.
//!
//! The time limit is a look at the clock now and then, not a timer for each: thousands are
//! under way at once, and nearly all land within milliseconds. For the same reason what one
//! holds is kept small: memory in pieces of some kilobytes costs more than all that is done here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use chassis_core::{
    BoxFuture, Code, Context, Env, Error, InFlightGuard, Result, Span, SpanKind, propagation,
};
use tokio::time::Instant;

use super::lanes::{Cause, Entry};
use crate::broker::Publisher;
use crate::failpoint;
use crate::message::{APPENDED_BY, Message};

/// What became of a publish.
pub(crate) struct Landed {
    pub(crate) seq: i64,
    /// When the event happened.
    pub(crate) time: i64,
    pub(crate) result: Result<()>,
}

/// A publish under way. Dropping it leaves open whether the broker has the row.
pub(crate) struct Flight {
    seq: i64,
    time: i64,
    until: Instant,
    span: Span,
    _counted: InFlightGuard,
    publish: BoxFuture<'static, Result<()>>,
}

impl Flight {
    /// A row takes off.
    pub(crate) fn new(
        env: &Env,
        publisher: Arc<dyn Publisher>,
        entry: Entry<Box<Message>>,
        now: Instant,
        limit: Duration,
    ) -> Flight {
        let Entry { seq, item: mut message, .. } = entry;
        let context = go_on(env, &mut message);
        // The name costs something only where somebody reads it.
        let mut span = Span::start(&context, SpanKind::Producer, "publish");
        if span.is_recording() {
            span.rename(format!("publish {}", message.topic));
            span.set("messaging.destination.name", message.topic.clone());
            span.set("messaging.message.id", message.id.clone());
        }
        let time = message.time;
        let publish = async move {
            failpoint::reach("relay.before_publish").await?;
            publisher.publish(*message).await?;
            failpoint::reach("relay.after_publish").await
        };
        Flight {
            seq,
            time,
            until: now + limit,
            span,
            _counted: env.in_flight().enter("outbox"),
            publish: Box::pin(context.scope(publish)),
        }
    }

    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Gives it up.
    pub(crate) fn give_up(self) -> Landed {
        let late = Error::deadline_exceeded("PUBLISH_TIMEOUT", "the broker did not answer in time");
        Landed { seq: self.seq, time: self.time, result: Err(late) }
    }
}

impl Future for Flight {
    type Output = Landed;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Landed> {
        let (seq, time) = (self.seq, self.time);
        self.publish.as_mut().poll(task).map(|result| {
            if let Err(error) = &result {
                self.span.fail(error.chain());
            }
            Landed { seq, time, result }
        })
    }
}

/// The trace goes on one span deeper than the append; the consumer follows below.
fn go_on(env: &Env, message: &mut Message) -> Context {
    let context = propagation::extract(env, |name| message.headers.get(name).map(String::as_str));
    propagation::inject(&context, |name, value| match message.headers.get_mut(name) {
        Some(header) => value.clone_into(header),
        None => {
            message.headers.insert(name.to_owned(), value.to_owned());
        }
    });
    if let Some(appended) = context.trace().parent.filter(|_| context.trace().sampled) {
        message.headers.insert(APPENDED_BY.to_owned(), appended.to_string());
    }
    context
}

/// Whose fault it is: the row's, or a broker's that cannot answer just now.
pub(crate) fn cause(error: &Error) -> Cause {
    match error.code() {
        Code::Cancelled | Code::Unauthenticated => Cause::Unreachable,
        code if code.is_retryable() => Cause::Unreachable,
        _ => Cause::Refused,
    }
}
