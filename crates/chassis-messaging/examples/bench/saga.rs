//! `saga_steps`: steps of sagas a second, beside the bare transactions that these steps
//! need: the start, the lease, and for each step the row and a line of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{Component as _, Env, Ready, Result, Shutdown};
use chassis_data::params;
use chassis_messaging::saga::{SagaConfig, SagaDefinition, SagaState, Sagas, StepInfo};
use chassis_test::figures::{Figure, median};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::world::{Database, LIMIT, Outcome, World};

const SAGAS: usize = 1000;
const STEPS: usize = 4;
const ROUNDS: usize = 3;
/// Sagas that move at the same time.
const HANDS: usize = 16;

#[derive(Clone, Serialize, Deserialize)]
struct Data {
    done: Vec<String>,
    note: String,
}

type Bench = Sagas<Data, Arc<AtomicUsize>, sqlx::Postgres>;

async fn act(count: Arc<AtomicUsize>, mut data: Data, info: StepInfo) -> Result<Data> {
    data.done.push(info.step.to_owned());
    count.fetch_add(1, Ordering::Relaxed);
    Ok(data)
}

pub(crate) async fn run(world: &World) -> Outcome<Figure> {
    let definition = SagaDefinition::new("bench", 1)
        .action("one", act)
        .action("two", act)
        .action("three", act)
        .action("four", act);
    let count = Arc::new(AtomicUsize::new(0));
    let sagas: Bench = Sagas::new(&world.db, definition, count)
        .with_config(SagaConfig { max_concurrent: HANDS, ..SagaConfig::default() });
    world.db.migrate(&sagas.migrations()).await?;
    let (mut bare_rates, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_rates.push(bare(world).await?);
        rates.push(with_runner(world, &sagas).await?);
    }
    Ok(Figure {
        bench: "saga_steps".into(),
        value: median(rates),
        unit: "steps/s",
        anchor: "the bare transactions that they need",
        anchor_value: median(bare_rates),
    })
}

async fn empty(world: &World) -> Outcome<()> {
    world.db.execute("truncate chassis_saga, chassis_saga_log", Vec::new()).await?;
    Ok(())
}

fn rate(start: Instant) -> f64 {
    (SAGAS * STEPS) as f64 / start.elapsed().as_secs_f64()
}

async fn with_runner(world: &World, sagas: &Bench) -> Outcome<f64> {
    empty(world).await?;
    let env = Env::new(chassis_core::service_info!("bench"));
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let runner = tokio::spawn(Box::new(sagas.runner()).run(env, ready, shutdown));
    is_ready.await?;
    let start = Instant::now();
    let hands = (0..HANDS).map(|hand| {
        let (db, sagas) = (world.db.clone(), sagas.clone());
        tokio::spawn(async move {
            for number in (hand..SAGAS).step_by(HANDS) {
                let mut tx = db.begin().await?;
                sagas.start(&mut tx, &format!("key-{number}"), data()).await?;
                tx.commit().await?;
            }
            Result::<()>::Ok(())
        })
    });
    for hand in hands.collect::<Vec<_>>() {
        hand.await?.map_err(Box::<dyn std::error::Error>::from)?;
    }
    let ended = async || {
        let sql = "select count(*) from chassis_saga where state = $1";
        let row = world.db.fetch_optional(sql, params![SagaState::Completed.as_str()]).await?;
        row.map_or(Ok(0), |row| row.int(0))
    };
    while ended().await? < SAGAS as i64 {
        if start.elapsed() > LIMIT {
            return Err("the sagas did not end in time".into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let rate = rate(start);
    trigger.shutdown(LIMIT);
    runner.await??;
    Ok(rate)
}

async fn bare(world: &World) -> Outcome<f64> {
    empty(world).await?;
    let start = Instant::now();
    let hands = (0..HANDS).map(|hand| {
        let db = world.db.clone();
        tokio::spawn(async move {
            for number in (hand..SAGAS).step_by(HANDS) {
                one_bare(&db, number as i64).await?;
            }
            Result::<()>::Ok(())
        })
    });
    for hand in hands.collect::<Vec<_>>() {
        hand.await?.map_err(Box::<dyn std::error::Error>::from)?;
    }
    Ok(rate(start))
}

fn data() -> Data {
    Data { done: Vec::new(), note: "n".repeat(100) }
}

async fn one_bare(db: &Database, number: i64) -> Result<()> {
    const START: &str = "insert into chassis_saga (id, definition, version, saga_key, state,
            backward, step, step_name, attempts, uncertain, rev, data, headers, wake_at,
            lease_until, started_at, updated_at)
        values ($1, 'bare', 1, $1, 'running', 0, 0, 'one', 0, 0, 0, $2, '{}', 0, 0, $3, $3)";
    const LEASE: &str = "update chassis_saga set owner = 'me', lease_until = $2 where id = $1";
    const MOVE: &str = "update chassis_saga set step = $2, step_name = 'next', data = $3,
        state = $4, rev = rev + 1, updated_at = $5 where id = $1";
    const LOG: &str = "insert into chassis_saga_log (saga_id, n, time, step, what, attempt)
        values ($1, $2, $3, 'step', 'done', 1)";
    let id = format!("0198f0f0-0000-7000-8000-{number:012}");
    let now = chassis_core::unix_ms();
    let mut data = data();
    let json = |data: &Data| serde_json::to_string(data).map_err(chassis_core::Error::internal);
    let mut tx = db.begin().await?;
    tx.execute(START, params![&id, json(&data)?, now]).await?;
    tx.commit().await?;
    let mut tx = db.begin().await?;
    tx.execute(LEASE, params![&id, now + 5000]).await?;
    tx.commit().await?;
    for step in 1..=STEPS as i64 {
        data.done.push("step".to_owned());
        let state = if step == STEPS as i64 { "completed" } else { "running" };
        let mut tx = db.begin().await?;
        tx.execute(MOVE, params![&id, step, json(&data)?, state, now]).await?;
        tx.execute(LOG, params![&id, step, now]).await?;
        tx.commit().await?;
    }
    Ok(())
}
