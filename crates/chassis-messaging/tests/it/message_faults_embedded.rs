//! Faults of messages on the embedded broker.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use chassis_messaging::{Broker, BrokerConfig};

use crate::message_faults as faults;

macro_rules! on_embedded {
    ($($name:ident,)*) => { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let config = BrokerConfig {
                duplicate_window: Duration::from_millis(100),
                ..BrokerConfig::at("embedded:")
            };
            faults::$name(Broker::connect(&config).await.unwrap()).await;
        })* }
}

on_embedded! {
    three_times_shuffled,
    again_after_the_window,
    paused_past_its_ack_wait,
    poison_of_each_kind,
    a_row_that_is_too_large_is_parked,
}
