//! Behaviour of messaging on real servers. Run by `cargo xtask test`, or with
//! `--features servers` where nats-server is installed.

mod dead_letters;
mod in_turn;
mod jetstream;
mod on_jetstream;
mod outbox_pg;
mod saga_pg;
mod streams;
mod takeover;
mod tokens;

// What they share is more than these need.
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)]
#[path = "../it/world.rs"]
mod world;
