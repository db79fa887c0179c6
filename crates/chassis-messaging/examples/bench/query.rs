//! `relay_query_p99` and `relay_query_p99_10m`: the statement that finds what is to be
//! published, with a million and with ten million published rows in the table, and with
//! none.

use chassis_test::figures::{Asked, Figure, percentile};
use tokio::time::Instant;

use crate::QUICK;
use crate::world::{KEYS, Outcome, World};

const READS: usize = 1000;
/// From here on it takes minutes.
const MANY: i64 = 5_000_000;
const SIZES: [(&str, i64); 2] =
    [("relay_query_p99", 1_000_000), ("relay_query_p99_10m", 10_000_000)];

pub(crate) async fn run(world: &World, asked: &Asked) -> Outcome<Vec<Figure>> {
    world.empty().await?;
    // Filled without a log, which takes half the time; reads do not know the difference.
    logged(world, false).await?;
    world.fill(KEYS as i64, false).await?;
    let none = p99(world).await?;
    let mut figures = Vec::new();
    world.empty().await?;
    let mut there = 0;
    let sizes = SIZES
        .into_iter()
        .filter(|(bench, rows)| asked.wants(bench) && (*rows < MANY || !asked.has(QUICK)));
    for (bench, rows) in sizes {
        world.fill(rows - there, true).await?;
        there = rows;
        world.db.execute("analyze chassis_outbox", Vec::new()).await?;
        world.fill(KEYS as i64, false).await?;
        let with = p99(world).await?;
        // What waited is published, so that the next size has as many that wait.
        let publish = "update chassis_outbox set state = 1, published_at = time where state = 0";
        there += i64::try_from(world.db.execute(publish, Vec::new()).await?)?;
        figures.push(Figure {
            bench: bench.into(),
            value: with,
            unit: "ms",
            anchor: "the same without published rows",
            anchor_value: none,
        });
    }
    world.empty().await?;
    logged(world, true).await?;
    Ok(figures)
}

async fn logged(world: &World, logged: bool) -> Outcome<()> {
    let sql = match logged {
        true => "alter table chassis_outbox set logged",
        false => "alter table chassis_outbox set unlogged",
    };
    world.db.execute(sql, Vec::new()).await?;
    Ok(())
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
