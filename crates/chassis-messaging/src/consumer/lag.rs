//! How far the group is behind, asked of the broker now and then.
//!
//! In the background and at an interval, never in a scrape: the broker pays for the
//! answer, and whoever asks for metrics should not wait for it.

use std::time::Duration;

use chassis_core::{Result, Shutdown};
use tokio::time::{MissedTickBehavior, interval};

use crate::broker::Broker;

/// What is to be shown of one topic.
pub(super) struct Shown {
    pub(super) topic: &'static str,
    pub(super) waiting: chassis_core::Gauge,
    pub(super) unanswered: chassis_core::Gauge,
}

/// Asks until shutdown; at once, if the broker cannot say.
pub(super) async fn watch(
    broker: Broker,
    group: String,
    topics: Vec<Shown>,
    every: Duration,
    shutdown: Shutdown,
) -> Result<()> {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.requested() => return Ok(()),
        }
        let Some(broker) = broker.lag() else { return Ok(()) };
        for shown in &topics {
            match broker.measure(group.clone(), shown.topic.to_owned()).await {
                Ok(lag) => {
                    shown.waiting.set(i64::try_from(lag.waiting).unwrap_or(i64::MAX));
                    shown.unanswered.set(i64::try_from(lag.unanswered).unwrap_or(i64::MAX));
                }
                Err(error) => {
                    let topic = shown.topic;
                    tracing::debug!(topic, error = %error.chain(), "the lag is not known");
                }
            }
        }
    }
}
