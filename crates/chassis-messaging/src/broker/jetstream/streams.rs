//! Streams and consumers: their names, and making them where they are missing.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, consumer::PullConsumer};
use chassis_core::{Error, Result};

use super::unavailable;
use crate::broker::{BrokerConfig, Subscription};
use crate::topic::segment;

/// Unanswered messages that a consumer may have over all its subscribers,
/// delayed ones included.
const MAX_ACK_PENDING: i64 = 4096;

/// Makes the stream of a first segment, or checks the one that is there.
pub(super) async fn ensure_stream(
    context: &Context,
    segment: &str,
    config: &BrokerConfig,
) -> Result<()> {
    match context.get_stream(segment).await {
        Ok(stream) => {
            let window = stream.cached_info().config.duplicate_window;
            if window < config.duplicate_window {
                tracing::warn!(
                    stream = segment,
                    ?window,
                    asked = ?config.duplicate_window,
                    "the stream remembers message ids for a shorter time than configured"
                );
            }
            Ok(())
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                create_stream(context, segment, config).await
            }
            _ => Err(unavailable("JetStream does not answer").with_source(error)),
        },
    }
}

async fn create_stream(context: &Context, segment: &str, config: &BrokerConfig) -> Result<()> {
    let stream = Config {
        name: segment.to_owned(),
        subjects: vec![segment.to_owned(), format!("{segment}.>")],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_age: config.max_age,
        duplicate_window: config.duplicate_window,
        num_replicas: config.replicas,
        ..Config::default()
    };
    context.create_stream(stream).await.map_err(|source| {
        let message = format!(
            "the JetStream stream {segment} cannot be created; another stream may hold \
             its subjects, or the server has no room for it"
        );
        Error::failed_precondition("STREAM_NOT_CREATED", message).with_source(source)
    })?;
    tracing::info!(stream = segment, "created a JetStream stream");
    Ok(())
}

/// Makes the durable consumer of a (group, topic), or brings it up to date.
pub(super) async fn ensure_consumer(
    context: &Context,
    subscription: &Subscription,
) -> Result<PullConsumer> {
    let consumer = pull::Config {
        durable_name: Some(durable_name(&subscription.group, &subscription.topic)),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: subscription.ack_wait,
        max_deliver: subscription.max_deliver.map_or(-1, i64::from),
        filter_subject: subscription.topic.clone(),
        max_ack_pending: MAX_ACK_PENDING,
        inactive_threshold: Duration::ZERO,
        ..pull::Config::default()
    };
    let stream = segment(&subscription.topic);
    context.create_consumer_on_stream(consumer, stream).await.map_err(|source| {
        unavailable("the JetStream consumer cannot be created").with_source(source)
    })
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
