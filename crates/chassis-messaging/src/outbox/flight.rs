//! One publish: its trace, its time limit, and whose fault a failure is.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Env, Error, Result, Span, SpanKind, propagation};
use tokio::time::timeout;

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

/// Publishes a row. Dropping the future leaves open whether the broker has it.
pub(crate) async fn publish(
    env: Env,
    publisher: Arc<dyn Publisher>,
    entry: Entry<Message>,
    limit: Duration,
) -> Landed {
    let Entry { seq, item: mut message, .. } = entry;
    let _counted = env.in_flight().enter("outbox");
    // One span deeper than the append, in its trace; the consumer follows below.
    let context = propagation::extract(&env, |name| message.headers.get(name).map(String::as_str));
    propagation::inject(&context, |name, value| match message.headers.get_mut(name) {
        Some(header) => *header = value,
        None => {
            message.headers.insert(name.to_owned(), value);
        }
    });
    if let Some(appended) = context.trace().parent.filter(|_| context.trace().sampled) {
        message.headers.insert(APPENDED_BY.to_owned(), appended.to_string());
    }
    // The name costs something only where somebody reads it.
    let mut span = Span::start(&context, SpanKind::Producer, "publish");
    if span.is_recording() {
        span.rename(format!("publish {}", message.topic));
        span.set("messaging.destination.name", message.topic.clone());
        span.set("messaging.message.id", message.id.clone());
    }
    let time = message.time;
    let send = async {
        failpoint::reach("relay.before_publish").await?;
        publisher.publish(message).await?;
        failpoint::reach("relay.after_publish").await
    };
    let result = match timeout(limit, context.scope(send)).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("the broker did not answer within {limit:?}");
            Err(Error::deadline_exceeded("PUBLISH_TIMEOUT", text))
        }
    };
    if let Err(error) = &result {
        span.fail(error.chain());
    }
    Landed { seq, time, result }
}

/// Whose fault it is: the row's, or a broker's that cannot answer just now.
pub(crate) fn cause(error: &Error) -> Cause {
    match error.code() {
        Code::Cancelled | Code::Unauthenticated => Cause::Unreachable,
        code if code.is_retryable() => Cause::Unreachable,
        _ => Cause::Refused,
    }
}
