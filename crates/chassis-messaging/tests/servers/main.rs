//! Behaviour of messaging on real servers. Run by `cargo xtask test`, or with
//! `--features servers` where nats-server is installed.

mod dead_letters;
mod jetstream;
mod on_jetstream;
mod outbox_pg;
mod saga_pg;
