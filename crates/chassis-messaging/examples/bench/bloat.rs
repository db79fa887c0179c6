//! `outbox_bloat`: the size of the outbox, indexes included, after it was filled, published
//! and cleaned many times, beside its size after the second time.

use std::time::Duration;

use chassis_data::params;
use chassis_messaging::outbox::OutboxConfig;
use chassis_test::figures::Figure;
use tokio::time::{Instant, sleep};

use crate::world::{LIMIT, Outcome, Running, World};

const ROWS: usize = 50_000;
const TURNS: usize = 12;

pub(crate) async fn run(world: &World) -> Outcome<Figure> {
    world.empty().await?;
    let config = OutboxConfig {
        grace: Duration::from_secs(1),
        clean_every: Duration::from_secs(1),
        ..OutboxConfig::default()
    };
    let relay = Running::start(&world.outbox.clone().with_config(config), &world.broker).await?;
    let mut sizes = Vec::new();
    for _ in 0..TURNS {
        world.fill(ROWS as i64, false).await?;
        let start = Instant::now();
        while rows(world).await? > 0 {
            if start.elapsed() > LIMIT {
                return Err("the outbox was not cleaned in time".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        sizes.push(size(world).await?);
    }
    relay.stop().await?;
    Ok(Figure {
        bench: "outbox_bloat".into(),
        value: sizes.last().copied().unwrap_or(f64::NAN),
        unit: "MiB after twelve turns",
        anchor: "after two",
        anchor_value: sizes.get(1).copied().unwrap_or(f64::NAN),
    })
}

async fn rows(world: &World) -> Outcome<i64> {
    let row = world.db.fetch_optional("select count(*) from chassis_outbox", Vec::new()).await?;
    Ok(row.ok_or("no answer")?.int(0)?)
}

async fn size(world: &World) -> Outcome<f64> {
    let sql = "select pg_total_relation_size($1::regclass)";
    let row = world.db.fetch_optional(sql, params!["chassis_outbox"]).await?;
    Ok(row.ok_or("no answer")?.int(0)? as f64 / 1024.0 / 1024.0)
}
