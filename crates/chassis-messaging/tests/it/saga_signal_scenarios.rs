//! A start and a signal of the same key that do not see each other: each is in a transaction
//! that is open while the other one looks.
//!
//! SQLite has one writer at a time, so there the second of the two begins when the first has
//! ended; the saga must hear the signal all the same.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use chassis_core::Code;
use chassis_data::{Backend, Db, Dialect};
use chassis_messaging::saga::{SagaDefinition, SagaId, SagaState};
use chassis_test::eventually;
use serde_json::json;
use tokio::task::JoinHandle;

use super::saga_stage::{Data, SOON, Stage, WAIT, World, ask, finish};

/// It waits at once.
fn patient<B: Backend>() -> SagaDefinition<Data, World, B> {
    SagaDefinition::new("patient", 1)
        .wait_for("heard", WAIT)
        .local("finish", finish::<B>)
        .second_start_waits(5)
}

/// It waits soon.
fn busy<B: Backend>() -> SagaDefinition<Data, World, B> {
    SagaDefinition::new("busy", 1).action("ask", ask).wait_for("heard", WAIT)
}

/// How many wait for a lock on PostgreSQL.
pub(crate) async fn at_locks<B: Backend>(db: &Db<B>) -> i64 {
    let sql = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap().int(0).unwrap()
}

/// Until `task` has ended or waits for a lock. On SQLite it cannot even begin.
async fn ended_or_blocked<B: Backend, T>(db: &Db<B>, task: &JoinHandle<T>) {
    if db.dialect() == Dialect::Postgres {
        eventually("it has ended or waits for a lock", SOON, async || {
            (task.is_finished() || at_locks(db).await > 0).then_some(())
        })
        .await;
    }
}

/// Starts a saga in a task, again where it collides, as a caller would.
fn start_beside<B: Backend>(stage: &Arc<Stage<B>>, key: &'static str) -> JoinHandle<SagaId> {
    let stage = stage.clone();
    tokio::spawn(async move {
        loop {
            let mut tx = match stage.db.begin().await {
                Ok(tx) => tx,
                Err(error) if error.code() == Code::Aborted => continue,
                Err(error) => panic!("{error}"),
            };
            match stage.sagas.start(&mut tx, key, Data::default()).await {
                Ok(id) => {
                    tx.commit().await.unwrap();
                    return id;
                }
                Err(error) => assert_eq!(error.code(), Code::Aborted, "{error}"),
            }
        }
    })
}

/// A signal is written and not committed when a saga starts, runs, and would begin to wait.
pub(crate) async fn a_start_waits_for_a_signal_under_way<B: Backend>(db: Db<B>) {
    for definition in [patient(), busy()] {
        let stage = Arc::new(Stage::of(&db, World::default(), definition).await);
        let mut tx = db.begin().await.unwrap();
        stage.sagas.signal(&mut tx, "key", "heard", json!({})).await.unwrap();
        let start = start_beside(&stage, "key");
        ended_or_blocked(&db, &start).await;
        if start.is_finished() {
            // It would not have waited for the signal; then it waits in vain.
            let waiting = stage.sagas.find("key").await.unwrap().unwrap();
            stage.settle(&waiting.id).await;
        }
        tx.commit().await.unwrap();
        let id = start.await.unwrap();
        let view = stage.settle(&id).await;
        assert_eq!(view.state, SagaState::Completed, "{}: {}", view.definition, view.why);
    }
}

/// A saga is started and not committed when its signal comes: for a key that is new, and for
/// one whose saga has ended, where the signal finds the row of that.
pub(crate) async fn a_signal_waits_for_a_start_under_way<B: Backend>(db: Db<B>) {
    let stage = Arc::new(Stage::of(&db, World::default(), patient()).await);
    for round in ["new", "ended"] {
        let mut tx = db.begin().await.unwrap();
        let id = stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap();
        let signalling = stage.clone();
        let signal = tokio::spawn(async move { signalling.signal("key").await });
        ended_or_blocked(&db, &signal).await;
        tx.commit().await.unwrap();
        signal.await.unwrap();
        let view = stage.settle(&id).await;
        assert_eq!(view.state, SagaState::Completed, "{round}: {}", view.why);
    }
}

/// A start that is rolled back leaves the signal for the next one.
pub(crate) async fn a_signal_outlives_a_start_that_is_rolled_back<B: Backend>(db: Db<B>) {
    let stage = Arc::new(Stage::of(&db, World::default(), patient()).await);
    let mut tx = db.begin().await.unwrap();
    stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap();
    let signalling = stage.clone();
    let signal = tokio::spawn(async move { signalling.signal("key").await });
    ended_or_blocked(&db, &signal).await;
    tx.rollback().await;
    signal.await.unwrap();
    let id = stage.start("key").await;
    assert_eq!(stage.settle(&id).await.state, SagaState::Completed);
}
