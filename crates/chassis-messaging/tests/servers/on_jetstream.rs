//! Consumers and requests on JetStream: the scenarios of `tests/it`.
// What they share is more than these need.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use chassis_messaging::{Broker, BrokerConfig};
use chassis_test::servers::Nats;

use crate::world;

#[path = "../it/consumer_scenarios.rs"]
mod consumer_scenarios;
#[path = "../it/request_scenarios.rs"]
mod request_scenarios;

macro_rules! on_jetstream {
    ($scenarios:ident: $($name:ident,)*) => { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            // A server of its own: the topics have the same names in each scenario.
            let nats = Nats::start().await;
            let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
            $scenarios::$name(broker).await;
        })* }
}

on_jetstream! { consumer_scenarios:
    old_versions_are_turned_into_the_new_one,
    batches_keep_the_order_of_each_key,
    poison_in_a_batch_dies_alone,
    never_more_in_hand_than_hands,
    never_more_in_hand_than_a_batch,
    a_batch_does_not_wait_for_another_lane,
    a_slow_handler_keeps_its_message,
    a_topic_that_fails_is_left_alone_and_goes_on,
    the_lag_is_shown,
    a_batch_is_linked_to_what_appended_it,
}

on_jetstream! { request_scenarios:
    a_request_gets_its_reply_or_what_went_wrong,
    deadline_and_trace_travel,
    nothing_waits_longer_or_in_greater_number_than_it_may,
    more_open_requests_than_allowed_are_refused,
    closing_the_broker_ends_open_requests,
}
