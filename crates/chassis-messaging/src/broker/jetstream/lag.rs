//! How far a consumer is behind, as the server counts it.

use std::time::Duration;

use chassis_core::{BoxFuture, Result};

use super::{JetStream, closed, streams, unavailable};
use crate::broker::lag::{Lag, MeasureLag, no_such_group};
use crate::topic::{validate_group, validate_topic};

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
            let asked = streams::find_consumer(&self.shared.context, &group, &topic);
            let found = tokio::time::timeout(PATIENCE, asked).await;
            let found = found.map_err(|_| unavailable("NATS does not answer"))?;
            let info = found?.ok_or_else(no_such_group)?;
            Ok(Lag { waiting: info.num_pending, unanswered: info.num_ack_pending as u64 })
        })
    }
}
