//! Streams and consumers: their names, and making them where they are missing.

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, consumer};
use chassis_core::{Error, Result};

use super::unavailable;
use crate::broker::{BrokerConfig, Subscription};
use crate::topic::{DEAD_LETTERS, segment};

/// Unanswered messages that a consumer may have over all its subscribers,
/// delayed ones included.
pub(super) const MAX_ACK_PENDING: usize = 4096;

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
    let dead_letters = segment == DEAD_LETTERS;
    let max_age = if dead_letters { config.dead_letter_max_age } else { config.max_age };
    let stream = Config {
        name: segment.to_owned(),
        subjects: vec![segment.to_owned(), format!("{segment}.>")],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_age,
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
///
/// One that is as it should be is left alone: an operator may have changed the rest
/// of it.
pub(super) async fn ensure_consumer(context: &Context, subscription: &Subscription) -> Result<()> {
    let stream = segment(&subscription.topic);
    let name = durable_name(&subscription.group, &subscription.topic);
    let wanted = pull::Config {
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
    if let Ok(consumer) = found
        && is_as_wanted(&consumer.cached_info().config, &wanted)
    {
        return Ok(());
    }
    context.create_consumer_on_stream(wanted, stream).await.map(drop).map_err(|source| {
        unavailable("the JetStream consumer cannot be created").with_source(source)
    })
}

/// Asks the server about the consumer, for the sake of the asking.
pub(super) async fn look_at_consumer(context: &Context, subscription: &Subscription) {
    let name = durable_name(&subscription.group, &subscription.topic);
    let stream = segment(&subscription.topic);
    let found = context.get_consumer_from_stream::<pull::Config, _, _>(&name, stream).await;
    if let Err(error) = found {
        tracing::debug!(%error, "the consumer cannot be seen");
    }
}

fn is_as_wanted(found: &consumer::Config, wanted: &pull::Config) -> bool {
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
