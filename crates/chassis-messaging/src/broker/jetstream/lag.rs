//! How far a consumer is behind, as the server counts it.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::ConsumerErrorKind;
use chassis_core::{BoxFuture, Result};

use super::{JetStream, closed, streams, unavailable};
use crate::broker::lag::{Lag, MeasureLag, no_such_group};
use crate::topic::{segment, validate_group, validate_topic};

/// How long the server gets for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl MeasureLag for JetStream {
    fn measure(&self, group: String, topic: String) -> BoxFuture<'_, Result<Lag>> {
        Box::pin(async move {
            validate_topic(&topic)?;
            validate_group(&group)?;
            if self.shared.closing.is_cancelled() {
                return Err(closed());
            }
            let name = streams::durable_name(&group, &topic);
            let context = &self.shared.context;
            let asked =
                context.get_consumer_from_stream::<pull::Config, _, _>(&name, segment(&topic));
            let found = tokio::time::timeout(PATIENCE, asked).await;
            let found = found.map_err(|_| unavailable("NATS does not answer"))?;
            let consumer = found.map_err(|error| match error.kind() {
                ConsumerErrorKind::JetStream(cause)
                    if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND]
                        .contains(&cause.error_code()) =>
                {
                    no_such_group().with_source(error)
                }
                _ => unavailable("the JetStream consumer cannot be seen").with_source(error),
            })?;
            let info = consumer.cached_info();
            Ok(Lag { waiting: info.num_pending, unanswered: info.num_ack_pending as u64 })
        })
    }
}
