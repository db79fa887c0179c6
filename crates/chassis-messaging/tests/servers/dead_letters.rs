//! Dead letters on JetStream: the scenarios of `tests/it`.
// What they share is more than these need.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use chassis_messaging::{Broker, BrokerConfig};
use chassis_test::servers::Nats;

use crate::world;

#[path = "../it/dead_letter_scenarios.rs"]
mod dead_letter_scenarios;

macro_rules! on_jetstream {
    ($($name:ident,)*) => { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            // A server of its own: the topics have the same names in each scenario.
            let nats = Nats::start().await;
            let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
            dead_letter_scenarios::$name(broker).await;
        })* }
}

on_jetstream! {
    edited_and_redriven_it_is_handled_once,
    one_that_dies_again_is_there_again,
    many_are_redriven_at_a_rate_or_discarded,
    letters_of_another_group_are_out_of_reach,
}
