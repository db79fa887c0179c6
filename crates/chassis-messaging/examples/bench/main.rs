//! How fast messaging is, each figure beside its limit on the same machine.
//!
//! `cargo xtask bench messaging` starts the servers and runs this. By hand:
//! `DATABASE_URL=postgres://… NATS_URL=nats://… cargo run --release -p chassis-messaging
//! --example bench -- [--json] [NAME…]`. It makes a database and streams of its own and
//! removes them. `--json` prints a line of JSON for each figure; `ratio` is `value` by
//! `anchor_value`, which the same run measured. A name runs the figures that begin with it.
//! `--quick` leaves `relay_query_p99_10m` out, whose ten million rows take some minutes and
//! fifteen gigabytes.

mod append;
mod bloat;
mod consume;
mod cpu;
mod effect;
mod latency;
mod query;
mod relay;
mod saga;
mod world;

use chassis_core::{Context, Env};
use chassis_test::figures::Asked;

use world::{Outcome, World};

/// Leaves out what takes minutes to set up.
pub(crate) const QUICK: &str = "--quick";

/// What is measured together, by the names of its figures.
const GROUPS: [&[&str]; 9] = [
    &["relay_throughput", "relay_by_hand", "relay_cpu"],
    &["commit_to_ack_p50_ms", "commit_to_ack_p99_ms"],
    &["commit_to_effect_p99_ms"],
    &["append_cost_1", "append_cost_16"],
    &["consume_plain"],
    &["consume_inbox", "consume_inbox_by_hand", "consume_inbox_single"],
    &["saga_steps"],
    &["outbox_bloat"],
    &["relay_query_p99", "relay_query_p99_10m"],
];

#[tokio::main]
async fn main() -> Outcome<()> {
    let asked = Asked::parse(std::env::args().skip(1), &[QUICK])?;
    asked.check(&GROUPS.concat())?;
    let world = World::connect().await?;
    let context = Context::background(&Env::new(chassis_core::service_info!("bench")));
    let measured = context.scope(measure(&world, &asked)).await;
    world.remove().await?;
    measured
}

async fn measure(world: &World, asked: &Asked) -> Outcome<()> {
    asked.print_head();
    for group in GROUPS {
        if !group.iter().any(|name| asked.wants(name)) {
            continue;
        }
        let figures = match group[0] {
            "relay_throughput" => relay::run(world).await?,
            "commit_to_ack_p50_ms" => latency::run(world).await?,
            "commit_to_effect_p99_ms" => vec![effect::run(world).await?],
            "append_cost_1" => append::run(world).await?,
            "consume_plain" => vec![consume::plain(world).await?],
            "consume_inbox" => consume::inbox(world).await?,
            "saga_steps" => vec![saga::run(world).await?],
            "outbox_bloat" => vec![bloat::run(world).await?],
            _ => query::run(world, asked).await?,
        };
        figures.iter().for_each(|figure| asked.print(figure));
    }
    Ok(())
}
