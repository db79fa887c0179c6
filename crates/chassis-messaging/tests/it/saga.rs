//! Sagas on SQLite, natively and through `Any`.

use crate::saga_scenarios as scenarios;

macro_rules! on_sqlite {
    ($($name:ident,)*) => {
        mod native { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, db) = crate::outbox::scratch::<sqlx::Sqlite>().await;
                super::scenarios::$name(db).await;
            })* }
        mod any { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, db) = crate::outbox::scratch::<sqlx::Any>().await;
                super::scenarios::$name(db).await;
            })* }
    };
}

on_sqlite! {
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
