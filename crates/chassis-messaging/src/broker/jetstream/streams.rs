//! Streams and consumers: their names, and making them where they are missing.

use async_nats::jetstream::consumer as consumers;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use chassis_core::{Error, Result};

use super::unavailable;
use crate::broker::{BrokerConfig, Subscription};
use crate::topic::{DEAD_LETTERS, segment};

/// Unanswered messages that a consumer may have over all its subscribers,
/// delayed ones included.
pub(super) const MAX_ACK_PENDING: usize = 4096;

/// Says where a stream that is there keeps less than was asked for.
pub(super) fn check(stream: &Stream, config: &BrokerConfig) {
    let found = &stream.cached_info().config;
    let window = found.duplicate_window;
    if window < config.duplicate_window {
        tracing::warn!(
            stream = %found.name,
            ?window,
            asked = ?config.duplicate_window,
            "the stream remembers message ids for a shorter time than configured"
        );
    }
    let bounded = found.max_bytes > 0 || found.max_messages > 0;
    if bounded && found.discard == DiscardPolicy::Old {
        tracing::warn!(
            stream = %found.name,
            "the stream drops its oldest messages when it is full, also those that a group \
             has not had yet; set its discard policy to `new`"
        );
    }
}

/// Makes the stream of a first segment.
pub(super) async fn create(context: &Context, segment: &str, config: &BrokerConfig) -> Result<()> {
    let dead_letters = segment == DEAD_LETTERS;
    let max_age = if dead_letters { config.dead_letter_max_age } else { config.max_age };
    let stream = Config {
        name: segment.to_owned(),
        subjects: vec![segment.to_owned(), format!("{segment}.>")],
        retention: RetentionPolicy::Limits,
        // To drop the oldest would lose what some group has not had.
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        max_age,
        max_bytes: match config.max_stream_bytes {
            0 => -1,
            most => i64::try_from(most).unwrap_or(i64::MAX),
        },
        duplicate_window: config.duplicate_window,
        num_replicas: config.replicas,
        ..Config::default()
    };
    context.create_stream(stream).await.map_err(|source| {
        let max_bytes = config.max_stream_bytes;
        let message = format!(
            "the JetStream stream {segment} cannot be created; another stream may hold \
             its subjects, or the server has no room for {max_bytes} bytes \
             (broker.max_stream_bytes)"
        );
        Error::failed_precondition("STREAM_NOT_CREATED", message).with_source(source)
    })?;
    tracing::info!(stream = segment, "created a JetStream stream");
    Ok(())
}

/// Makes the durable consumer of a (group, topic), or brings it up to date.
///
/// One that is as it should be is left alone: an operator may have changed the rest
/// of it.
pub(super) async fn ensure_consumer(context: &Context, subscription: &Subscription) -> Result<()> {
    let stream = segment(&subscription.topic);
    let name = durable_name(&subscription.group, &subscription.topic);
    let mut wanted = pull::Config {
        durable_name: Some(name.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: subscription.ack_wait,
        max_deliver: subscription.max_deliver.map_or(-1, i64::from),
        filter_subject: subscription.topic.clone(),
        max_ack_pending: MAX_ACK_PENDING as i64,
        ..pull::Config::default()
    };
    let found = context.get_consumer_from_stream::<pull::Config, _, _>(&name, stream).await;
    if let Ok(consumer) = found {
        let found = &consumer.cached_info().config;
        if is_as_wanted(found, &wanted) {
            return Ok(());
        }
        // Where it began cannot be changed; one that was turned back began later.
        wanted.deliver_policy = found.deliver_policy;
    }
    context.create_consumer_on_stream(wanted, stream).await.map(drop).map_err(|source| {
        unavailable("the JetStream consumer cannot be created").with_source(source)
    })
}

/// When the stream of a topic was made, and the number of its newest message.
pub(super) async fn state(context: &Context, topic: &str) -> Result<(i128, u64)> {
    let stream = context.get_stream(segment(topic)).await;
    let stream = stream
        .map_err(|source| unavailable("the JetStream stream cannot be seen").with_source(source))?;
    let info = stream.cached_info();
    Ok((info.created.unix_timestamp_nanos(), info.state.last_sequence))
}

/// The durable consumer of a (group, topic) as it is now; `None` where there is none.
pub(super) async fn find_consumer(
    context: &Context,
    group: &str,
    topic: &str,
) -> Result<Option<consumers::Info>> {
    let name = durable_name(group, topic);
    let found = context.get_consumer_from_stream::<pull::Config, _, _>(&name, segment(topic));
    match found.await {
        Ok(consumer) => Ok(Some(consumer.cached_info().clone())),
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(cause)
                if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND]
                    .contains(&cause.error_code()) =>
            {
                Ok(None)
            }
            _ => Err(unavailable("the JetStream consumer cannot be seen").with_source(error)),
        },
    }
}

fn is_as_wanted(found: &consumers::Config, wanted: &pull::Config) -> bool {
    found.filter_subject == wanted.filter_subject
        && found.ack_policy == wanted.ack_policy
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
}

/// The durable name: dots are not allowed in it, and neither group nor topic may
/// contain `=`, so no two pairs share a name.
pub(super) fn durable_name(group: &str, topic: &str) -> String {
    format!("{group}={}", topic.replace('.', "="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_names_are_told_apart() {
        assert_eq!(durable_name("group", "greetings.said"), "group=greetings=said");
        assert_ne!(durable_name("a", "b.c_d"), durable_name("a", "b_c.d"));
    }
}
