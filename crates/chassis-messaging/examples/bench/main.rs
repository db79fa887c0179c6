//! How fast the outbox is, each figure beside its limit on the same machine.
//!
//! `DATABASE_URL=postgres://… NATS_URL=nats://… cargo run --release -p chassis-messaging
//! --example bench`. It makes a database and streams of its own and removes them. One
//! JSON line for each figure; `ratio` is `value` by `anchor_value`, which the same run
//! measured. Names of figures as arguments run only those.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

mod append;
mod latency;
mod query;
mod relay;
mod world;

use chassis_core::{Context, Env};
use serde_json::json;

use world::{Outcome, World};

/// One figure.
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) anchor: &'static str,
    pub(crate) anchor_value: f64,
}

impl Figure {
    fn print(&self) {
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        let line = json!({
            "bench": self.bench,
            "value": round(self.value),
            "unit": self.unit,
            "anchor": self.anchor,
            "anchor_value": round(self.anchor_value),
            "ratio": round(self.value / self.anchor_value),
        });
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let world = World::connect().await?;
    let context = Context::background(&Env::new(chassis_core::service_info!("bench")));
    let measured = context
        .scope(async {
            if wants("relay_throughput") {
                relay::run(&world).await?.print();
            }
            if wants("commit_to_ack") {
                latency::run(&world).await?.iter().for_each(Figure::print);
            }
            if wants("append_cost") {
                append::run(&world).await?.iter().for_each(Figure::print);
            }
            if wants("relay_query_p99") {
                query::run(&world).await?.print();
            }
            Ok(())
        })
        .await;
    world.remove().await?;
    measured
}
