//! Behaviour of messaging with nothing installed: SQLite and the embedded broker.
// Clippy knows tests by `#[test]`; their helpers are test code too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance;
mod consumer;
mod consumer_failures;
mod consumer_scenarios;
mod consumer_stopping;
mod dead_letter_scenarios;
mod dead_letters;
mod embedded;
mod freeze_scenarios;
mod in_turn;
mod inbox;
mod inbox_scenarios;
mod loss_scenarios;
mod losses;
mod message_faults;
mod message_faults_embedded;
mod on_embedded;
mod outage_scenarios;
mod outages;
mod outbox;
mod outbox_scenarios;
mod request_scenarios;
mod saga;
mod saga_operator_scenarios;
mod saga_queue_scenarios;
mod saga_scenarios;
mod saga_signal_scenarios;
mod saga_stage;
mod scripted;
mod turn_scenarios;
mod turns;
mod world;
