//! Outbox, inbox and sagas on PostgreSQL: the scenarios of `tests/it`, natively
//! and through `Any`.
#![allow(clippy::unwrap_used)]

use chassis_data::{Backend, DatabaseConfig, Db};
use chassis_test::servers::Postgres;

#[path = "../it/inbox_scenarios.rs"]
mod inbox_scenarios;
#[path = "../it/outbox_scenarios.rs"]
mod outbox_scenarios;
#[path = "../it/saga_scenarios.rs"]
mod saga_scenarios;

/// A fresh database.
async fn scratch<B: Backend>() -> Db<B> {
    let url = Postgres::shared().await.database("scratch").await;
    Db::connect(&DatabaseConfig::url(url)).await.unwrap()
}

macro_rules! on_postgres {
    ($of:ident, $scenarios:ident: $($name:ident $(($($extra:expr),*))? ,)*) => {
        mod $of {
            mod native { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let db = super::super::scratch::<sqlx::Postgres>().await;
                    super::super::$scenarios::$name(db $($(, $extra)*)?).await;
                })* }
            mod any { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let db = super::super::scratch::<sqlx::Any>().await;
                    super::super::$scenarios::$name(db $($(, $extra)*)?).await;
                })* }
        }
    };
}

on_postgres! { outbox, outbox_scenarios:
    order_per_key_survives_failures(4),
    only_what_commits_is_published_and_at_once,
    poison_is_parked_and_blocks_only_its_key,
    a_damaged_row_stops_nobody,
    an_outage_parks_nothing,
    a_late_commit_is_not_skipped,
    grace_then_clean_up,
    a_replay_publishes_again,
    a_fenced_relay_marks_nothing,
    a_drain_flushes_and_leaves,
    a_drain_ends_at_its_deadline,
    the_trace_goes_through,
    the_backlog_is_shown,
    nothing_is_lost_among_many_writers,
}

on_postgres! { inbox, inbox_scenarios:
    a_message_takes_effect_once,
    a_note_lives_and_dies_with_the_work,
    one_of_many_is_first,
    old_notes_are_removed,
    a_short_retention_is_refused,
}

on_postgres! { saga, saga_scenarios:
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
