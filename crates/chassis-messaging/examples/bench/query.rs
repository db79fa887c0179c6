//! `relay_query_p99` and `relay_query_p99_10m`: the statement that finds what is to be
//! published, with a million and with ten million published rows in the table, and with
//! none.

use tokio::time::Instant;

use crate::Figure;
use crate::world::{KEYS, Outcome, World, percentile};

const READS: usize = 1000;
const SIZES: [(&str, i64); 2] =
    [("relay_query_p99", 1_000_000), ("relay_query_p99_10m", 10_000_000)];

pub(crate) async fn run(world: &World, wants: impl Fn(&str) -> bool) -> Outcome<Vec<Figure>> {
    world.empty().await?;
    world.fill(KEYS as i64, false).await?;
    let none = p99(world).await?;
    let mut figures = Vec::new();
    world.empty().await?;
    let mut there = 0;
    for (bench, rows) in SIZES.into_iter().filter(|(bench, _)| wants(bench)) {
        world.fill(rows - there, true).await?;
        there = rows;
        figures.push(Figure {
            bench,
            value: p99(world).await?,
            unit: "ms",
            anchor: "the same without published rows",
            anchor_value: none,
        });
    }
    world.empty().await?;
    Ok(figures)
}

/// Milliseconds. A thousand rows wait, of which each read brings a hundred.
async fn p99(world: &World) -> Outcome<f64> {
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let start = Instant::now();
        let found = world.outbox.pending(100).await?;
        if found.len() < 96 {
            return Err(format!("{} rows instead of 100", found.len()).into());
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(percentile(&mut times, 0.99))
}
