//! `relay_query_p99`: the statement that finds what is to be published, with a million
//! published rows in the table and with none.

use tokio::time::Instant;

use crate::Figure;
use crate::world::{KEYS, Outcome, World, percentile};

const PUBLISHED: i64 = 1_000_000;
const READS: usize = 1000;

pub(crate) async fn run(world: &World) -> Outcome<Figure> {
    world.empty().await?;
    world.fill(KEYS as i64, 0).await?;
    let none = p99(world).await?;
    world.empty().await?;
    world.fill(PUBLISHED, 1).await?;
    let many = p99(world).await?;
    Ok(Figure {
        bench: "relay_query_p99",
        value: many,
        unit: "ms",
        anchor: "the same without published rows",
        anchor_value: none,
    })
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
