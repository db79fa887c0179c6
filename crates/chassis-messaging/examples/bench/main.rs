//! How fast messaging is, each figure beside its limit on the same machine.
//!
//! `cargo xtask bench messaging` starts the servers and runs this. By hand:
//! `DATABASE_URL=postgres://… NATS_URL=nats://… cargo run --release -p chassis-messaging
//! --example bench -- [--json] [NAME…]`. It makes a database and streams of its own and
//! removes them. `--json` prints a line of JSON for each figure; `ratio` is `value` by
//! `anchor_value`, which the same run measured. A name runs the figures that begin with it.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

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

/// What is measured together, by the names of its figures.
const GROUPS: [&[&str]; 9] = [
    &["relay_throughput", "relay_cpu"],
    &["commit_to_ack_p50_ms", "commit_to_ack_p99_ms"],
    &["commit_to_effect_p99_ms"],
    &["append_cost_1", "append_cost_16"],
    &["consume_plain"],
    &["consume_inbox", "consume_inbox_single"],
    &["saga_steps"],
    &["outbox_bloat"],
    &["relay_query_p99", "relay_query_p99_10m"],
];

struct Output {
    json: bool,
    asked: Vec<String>,
}

impl Output {
    fn wants(&self, figure: &str) -> bool {
        self.asked.is_empty() || self.asked.iter().any(|asked| figure.starts_with(asked))
    }

    fn print(&self, figure: &Figure) {
        let Figure { bench, value, unit, anchor, anchor_value } = figure;
        let ratio = value / anchor_value;
        if !self.json {
            println!(
                "{bench:<24} {value:>11.2} {anchor_value:>11.2} {ratio:>7.3}  {unit}; beside: {anchor}"
            );
            return;
        }
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        let line = json!({
            "bench": bench,
            "value": round(*value),
            "unit": unit,
            "anchor": anchor,
            "anchor_value": round(*anchor_value),
            "ratio": round(ratio),
        });
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let (flags, asked): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let output = Output { json: flags.iter().any(|flag| flag == "--json"), asked };
    if let Some(wrong) = flags.iter().find(|flag| *flag != "--json") {
        return Err(format!("unknown option `{wrong}`").into());
    }
    for asked in &output.asked {
        if !GROUPS
            .iter()
            .flat_map(|group| group.iter())
            .any(|name| name.starts_with(asked.as_str()))
        {
            return Err(format!("no figure begins with `{asked}`; there are {GROUPS:?}").into());
        }
    }
    let world = World::connect().await?;
    let context = Context::background(&Env::new(chassis_core::service_info!("bench")));
    let measured = context.scope(measure(&world, &output)).await;
    world.remove().await?;
    measured
}

async fn measure(world: &World, output: &Output) -> Outcome<()> {
    if !output.json {
        println!("{:<24} {:>11} {:>11} {:>7}", "figure", "value", "anchor", "ratio");
    }
    for group in GROUPS {
        if !group.iter().any(|name| output.wants(name)) {
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
            _ => query::run(world, |name| output.wants(name)).await?,
        };
        figures.iter().for_each(|figure| output.print(figure));
    }
    Ok(())
}
