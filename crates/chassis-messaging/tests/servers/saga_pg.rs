//! Sagas on PostgreSQL: the scenarios of `tests/it`, natively and through `Any`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use chassis_data::{Backend, DatabaseConfig, Db, Tx, params};
use chassis_test::eventually;
use chassis_test::servers::Postgres;

#[path = "../it/saga_operator_scenarios.rs"]
mod saga_operator_scenarios;
#[path = "../it/saga_queue_scenarios.rs"]
mod saga_queue_scenarios;
#[path = "../it/saga_scenarios.rs"]
mod saga_scenarios;
#[path = "../it/saga_signal_scenarios.rs"]
mod saga_signal_scenarios;
#[path = "../it/saga_stage.rs"]
mod saga_stage;

use chassis_messaging::saga::{SagaDefinition, SagaId, SagaState};
use saga_signal_scenarios::at_locks;
use saga_stage::{SOON, Stage, WAIT, World};
use tokio::task::JoinHandle;

/// A fresh database.
async fn scratch<B: Backend>() -> Db<B> {
    let url = Postgres::shared().await.database("scratch").await;
    Db::connect(&DatabaseConfig::url(url)).await.unwrap()
}

macro_rules! on_postgres {
    ($of:ident, $scenarios:ident: $($name:ident,)*) => {
        mod $of {
            mod native { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let db = super::super::scratch::<sqlx::Postgres>().await;
                    super::super::$scenarios::$name(db).await;
                })* }
            mod any { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let db = super::super::scratch::<sqlx::Any>().await;
                    super::super::$scenarios::$name(db).await;
                })* }
        }
    };
}

on_postgres! { engine, saga_scenarios:
    fail_every_step,
    a_fault_that_lasts,
    the_current_step_is_undone_if_it_may_have_happened,
    a_second_start_is_refused,
    a_wait_that_times_out,
    versions,
    a_paused_runner_writes_nothing,
    a_long_step_keeps_its_lease,
    an_instance_can_be_asked,
    steps_belong_to_the_trace_of_the_start,
    what_has_ended_is_removed_in_time,
    runners_share_the_work,
    a_drain_that_takes_too_long_is_a_crash,
    a_wrong_definition_is_refused,
}

on_postgres! { operator, saga_operator_scenarios:
    a_parked_saga_is_moved_by_hand,
    a_step_between_two_tries_is_moved_by_hand,
    a_signal_that_will_not_come_is_skipped,
    what_moves_by_itself_is_left_alone,
    a_runner_at_work_is_not_raced,
    a_dead_runner_is_no_obstacle,
    a_saga_is_turned_back_at_each_step,
    a_version_that_is_not_known_is_not_guessed_at,
    the_log_tells_what_changed,
    the_picture_shows_the_place,
    the_admin_port_offers_it,
    instances_are_counted_by_state_and_age,
}

on_postgres! { queue, saga_queue_scenarios:
    a_second_start_waits,
    a_second_start_after_the_end_begins_at_once,
    too_many_are_refused,
    a_signal_belongs_to_the_saga_that_has_the_key,
    a_wait_begins_with_its_saga,
    an_operator_can_end_the_first,
    an_end_waits_for_a_start_under_way,
    a_crowd_runs_one_by_one,
}

on_postgres! { signals, saga_signal_scenarios:
    a_start_waits_for_a_signal_under_way,
    a_signal_waits_for_a_start_under_way,
    a_signal_outlives_a_start_that_is_rolled_back,
}

/// A runner has written that a saga waits, and looked for the signal; its transaction is open. A
/// signal that comes now cannot be seen by it, so the signal must wait for the runner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_comes_while_a_runner_begins_to_wait_wakes_the_saga() {
    let db = scratch::<sqlx::Postgres>().await;
    let stage = Arc::new(Stage::new(&db, World::default()).await);
    let id = stage.start("key").await;
    let mut runner = db.begin().await.unwrap();
    let wait =
        "UPDATE chassis_saga SET waiting_for = 'heard', wake_at = 9000000000000 WHERE id = $1";
    assert_eq!(runner.execute(wait, params![id.as_str()]).await.unwrap(), 1);
    let signalling = stage.clone();
    let signal = tokio::spawn(async move { signalling.signal("key").await });
    eventually("the signal waits", SOON, async || (at_locks(&db).await == 1).then_some(())).await;
    runner.commit().await.unwrap();
    signal.await.unwrap();
    let sql = "SELECT wake_at FROM chassis_saga WHERE id = $1";
    let row = db.fetch_optional(sql, params![id.as_str()]).await.unwrap().unwrap();
    assert_eq!(row.int(0).unwrap(), 0);
}

/// It waits at once, and others wait for its key.
async fn patient(db: &Db<sqlx::Postgres>) -> Arc<Stage<sqlx::Postgres>> {
    let definition =
        SagaDefinition::new("patient", 1).wait_for("heard", WAIT).second_start_waits(2);
    Arc::new(Stage::of(db, World::default(), definition).await)
}

/// Holds the row of a saga, and ends the saga beside that: who comes now waits for the end.
/// PostgreSQL gives the row to the one that came first.
async fn being_ended(
    db: &Db<sqlx::Postgres>,
    stage: &Arc<Stage<sqlx::Postgres>>,
    id: &SagaId,
) -> (Tx<sqlx::Postgres>, JoinHandle<SagaState>) {
    let mut holder = db.begin().await.unwrap();
    let hold = "UPDATE chassis_saga SET rev = rev WHERE id = $1";
    assert_eq!(holder.execute(hold, params![id.as_str()]).await.unwrap(), 1);
    let before = at_locks(db).await;
    let (ending, id) = (stage.clone(), id.clone());
    let end = tokio::spawn(async move { ending.sagas.skip(&id, "").await.unwrap().state });
    eventually("the end waits", SOON, async || (at_locks(db).await > before).then_some(())).await;
    (holder, end)
}

/// A saga is being ended, and the next one of its key waits for the same signal. A signal that
/// comes now finds the row of the first, and waits for it; when it has that, the key belongs to the
/// second, of which it knew nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_waits_for_an_end_wakes_the_next() {
    let db = scratch::<sqlx::Postgres>().await;
    let stage = patient(&db).await;
    let (first, second) = (stage.start("key").await, stage.start("key").await);
    let (holder, end) = being_ended(&db, &stage, &first).await;
    let signalling = stage.clone();
    let signal = tokio::spawn(async move { signalling.signal("key").await });
    eventually("the signal waits", SOON, async || (at_locks(&db).await == 2).then_some(())).await;
    holder.rollback().await;
    assert_eq!(end.await.unwrap(), SagaState::Completed);
    signal.await.unwrap();
    let view = stage.settle(&second).await;
    assert_eq!(view.state, SagaState::Completed, "{}", view.why);
}

/// The same, and before the signal has found the second, that one is being ended as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_waits_for_two_ends_wakes_the_third() {
    let db = scratch::<sqlx::Postgres>().await;
    let stage = patient(&db).await;
    let (first, second) = (stage.start("key").await, stage.start("key").await);
    let third = stage.start("key").await;
    let mut line = db.begin().await.unwrap();
    let stand = "SELECT CAST(pg_advisory_xact_lock(hashtextextended($1, 0)) AS TEXT)";
    line.fetch_optional(stand, params!["chassis_saga patient key"]).await.unwrap();
    let (holder, end) = being_ended(&db, &stage, &first).await;
    let signalling = stage.clone();
    let signal = tokio::spawn(async move { signalling.signal("key").await });
    eventually("the signal waits", SOON, async || (at_locks(&db).await == 2).then_some(())).await;
    holder.rollback().await;
    assert_eq!(end.await.unwrap(), SagaState::Completed);
    eventually("it stands in line", SOON, async || (at_locks(&db).await == 1).then_some(())).await;
    let (holder, end) = being_ended(&db, &stage, &second).await;
    line.rollback().await;
    eventually("it waits for the second", SOON, async || {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND wait_event <> 'advisory'";
        let row = db.fetch_optional(sql, params![]).await.unwrap().unwrap();
        (row.int(0).unwrap() == 2).then_some(())
    })
    .await;
    holder.rollback().await;
    assert_eq!(end.await.unwrap(), SagaState::Completed);
    signal.await.unwrap();
    let view = stage.settle(&third).await;
    assert_eq!(view.state, SagaState::Completed, "{}", view.why);
}
