//! A database that stands still: nothing is refused, nothing answers.
//!
//! It lasts longer than leases, time limits and the patience of the pool. To a client this
//! is worse than a crash, which shows at once. `CHASSIS_FAULT_SECONDS` makes it last longer
//! than the three seconds that these tests take by default, such as the sixty that an
//! operator sees when storage hangs.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::{Code, Component, Deadline, Env, Ready, Result, Shutdown, unix_ms};
use chassis_data::{Backend, DatabaseConfig, Db, Tx, params};
use chassis_messaging::outbox::OutboxConfig;
use chassis_messaging::saga::{SagaConfig, SagaDefinition, SagaState, Sagas, StepInfo};
use chassis_messaging::{Broker, Consumer, ConsumerConfig, Inbox, Outbox};
use chassis_test::eventually;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::outbox_scenarios::{ItemAdded, Running, quick};

const SOON: Duration = Duration::from_secs(90);
const WRITERS: usize = 8;
/// The longest that a caller waits.
const PATIENCE: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_millis(600);

/// How long the database stands still.
fn how_long() -> Duration {
    let seconds = std::env::var("CHASSIS_FAULT_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(3))
}

/// Few connections, and little patience with them.
pub(crate) fn hasty(url: String) -> DatabaseConfig {
    DatabaseConfig {
        max_connections: 4,
        acquire_timeout: Duration::from_millis(300),
        ..DatabaseConfig::url(url)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Steps(Vec<String>);

type Walks<B> = Sagas<Steps, (), B>;

async fn step(_: (), mut data: Steps, info: StepInfo) -> Result<Steps> {
    data.0.push(info.step.to_owned());
    Ok(data)
}

async fn effect<B: Backend>(_: (), tx: &mut Tx<B>, item: ItemAdded) -> Result<()> {
    let values = params![item.key, i64::from(item.number)];
    tx.execute("INSERT INTO effect (name, number) VALUES ($1, $2)", values).await.map(drop)
}

/// One business transaction: a row, its event, and now and then a saga.
async fn work<B: Backend>(
    db: &Db<B>,
    outbox: &Outbox<B>,
    walks: &Walks<B>,
    name: &str,
    number: u32,
) -> Result<()> {
    let mut tx = db.begin().await?;
    let values = params![name, i64::from(number)];
    tx.execute("INSERT INTO business (name, number) VALUES ($1, $2)", values).await?;
    outbox.append(&mut tx, &ItemAdded { key: name.to_owned(), number }).await?;
    if number.is_multiple_of(5) {
        walks.start(&mut tx, &format!("{name}/{number}"), Steps(Vec::new())).await?;
    }
    tx.commit().await
}

/// What a table holds, by name.
async fn numbers<B: Backend>(look: &Db<B>, sql: &'static str) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in look.fetch_all(sql, Vec::new()).await.unwrap() {
        found.entry(row.text(0).unwrap().to_owned()).or_default().push(row.int(1).unwrap());
    }
    found
}

async fn count<B: Backend>(look: &Db<B>, sql: &'static str) -> i64 {
    look.fetch_optional(sql, Vec::new()).await.unwrap().unwrap().int(0).unwrap()
}

/// `db` is what the service uses and what stands still, `look` another way to the same data
/// that does not.
pub(crate) async fn a_database_that_stands_still_loses_nothing<B: Backend>(
    db: Db<B>,
    look: Db<B>,
    broker: Broker,
    freeze: impl AsyncFnOnce(),
    thaw: impl AsyncFnOnce(),
) {
    let outbox = Outbox::new(&db, "tester").with_config(OutboxConfig { lease: LEASE, ..quick() });
    let definition = SagaDefinition::new("walk", 1)
        .action("one", step)
        .action("two", step)
        .action("three", step);
    let config = SagaConfig {
        poll: Duration::from_millis(50),
        lease: LEASE,
        max_concurrent: 4,
        backoff: Duration::from_millis(50),
        ..SagaConfig::default()
    };
    let walks: Walks<B> = Sagas::new(&db, definition, ()).with_config(config);
    db.migrate(&outbox.migrations()).await.unwrap();
    db.migrate(&walks.migrations()).await.unwrap();
    db.migrate(&Inbox::new(&db).migrations()).await.unwrap();
    for table in ["business", "effect"] {
        let place = match db.dialect() {
            chassis_data::Dialect::Sqlite => "INTEGER PRIMARY KEY",
            chassis_data::Dialect::Postgres => "BIGSERIAL PRIMARY KEY",
        };
        let sql = format!("CREATE TABLE {table} (place {place}, name TEXT, number BIGINT)");
        db.execute(sqlx::AssertSqlSafe(sql), Vec::new()).await.unwrap();
    }

    // A relay, a consumer and a saga runner.
    let relay = Running::start(&outbox, &broker).await;
    let env = Env::test("service");
    let consumer = ConsumerConfig {
        concurrency: 2,
        ack_wait: Duration::from_secs(2),
        handler_timeout: PATIENCE,
        retry_delay: Duration::from_millis(100),
        max_retry_delay: Duration::from_secs(1),
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(&broker, &db, "tester", ())
        .with_config(consumer)
        .on::<ItemAdded>(effect::<B>);
    let (stop, shutdown) = Shutdown::new();
    let mut parts = Vec::new();
    let components: [Box<dyn Component>; 2] = [Box::new(consumer), Box::new(walks.runner())];
    for component in components {
        let (ready, is_ready) = Ready::channel();
        parts.push(tokio::spawn(component.run(env.clone(), ready, shutdown.clone())));
        is_ready.await.unwrap();
    }

    // Callers.
    let ended = Arc::new(AtomicBool::new(false));
    let done: Arc<Vec<[AtomicU64; 2]>> =
        Arc::new((0..WRITERS).map(|_| <[AtomicU64; 2]>::default()).collect());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (db, outbox, walks) = (db.clone(), outbox.clone(), walks.clone());
            let (ended, done) = (ended.clone(), done.clone());
            tokio::spawn(async move {
                let name = format!("writer-{writer}");
                for number in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let call = work(&db, &outbox, &walks, &name, number);
                    let result = Deadline::after(PATIENCE).run(call).await.and_then(|done| done);
                    let [committed, failed] = &done[writer];
                    let counter = if result.is_ok() { committed } else { failed };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let each = async |what: &str, which: usize, more: u64| {
        let before: Vec<u64> = done.iter().map(|all| all[which].load(Ordering::SeqCst)).collect();
        eventually(what, SOON, async || {
            let now = done.iter().map(|all| all[which].load(Ordering::SeqCst));
            now.zip(&before).all(|(now, before)| now >= before + more).then_some(())
        })
        .await;
    };
    each("business goes on", 0, 3).await;

    freeze().await;
    let since = Instant::now();
    each("each caller gets its errors", 1, 3).await;
    // Who gets no connection hears `Unavailable`; who gets one, and then not the lock of the
    // file, `Aborted`. Both may be tried again.
    let refused = tokio::time::timeout(SOON, db.begin()).await.expect("who waits for a connection");
    let code = refused.err().map(|error| error.code());
    assert!(matches!(code, Some(Code::Unavailable | Code::Aborted)), "{code:?}");
    eventually("the leases have run out", SOON, async || {
        let until = count(&look, "SELECT MAX(expires_at) FROM chassis_outbox_lease").await;
        (until < unix_ms() && since.elapsed() >= how_long()).then_some(())
    })
    .await;
    each("and so it stays", 1, 1).await;

    thaw().await;
    each("business goes on again", 0, 3).await;
    ended.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    // A commit that nobody waited for may still come in; then nothing changes any more.
    eventually("each business row has its effect", SOON, async || {
        let rows = count(&look, "SELECT COUNT(*) FROM business").await;
        let effects = count(&look, "SELECT COUNT(*) FROM effect").await;
        let waiting = count(&look, "SELECT COUNT(*) FROM chassis_outbox WHERE state <> 1").await;
        (effects == rows && waiting == 0).then_some(())
    })
    .await;
    eventually("each saga has ended", SOON, async || {
        let open = count(&look, "SELECT COUNT(*) FROM chassis_saga WHERE state <> 'completed'");
        (open.await == 0).then_some(())
    })
    .await;
    assert_eq!(SagaState::Completed.as_str(), "completed");
    let sagas = count(&look, "SELECT COUNT(*) FROM chassis_saga").await;
    let started = count(&look, "SELECT COUNT(*) FROM business WHERE number % 5 = 0").await;
    assert_eq!(sagas, started);
    // In the order of their commits; of each key they are those of the business rows.
    let business = numbers(&look, "SELECT name, number FROM business ORDER BY place").await;
    let effects = numbers(&look, "SELECT name, number FROM effect ORDER BY place").await;
    assert_eq!(effects, business);
    assert_eq!(business.len(), WRITERS);
    let labels = [("group", "tester"), ("topic", "items.added")];
    assert_eq!(env.metrics().counter("consumer_dead_lettered", "", &labels).get(), 0);

    stop.shutdown(SOON);
    for part in parts {
        part.await.unwrap().unwrap();
    }
    relay.stop(SOON).await;
    broker.close().await;
}
