//! Outbox and inbox on PostgreSQL: the scenarios of `tests/it`, natively
//! and through `Any`.
#![allow(clippy::unwrap_used)]

use chassis_data::{Backend, DatabaseConfig, Db};
use chassis_test::servers::Postgres;

#[path = "../it/inbox_scenarios.rs"]
mod inbox_scenarios;
#[path = "outbox_pg_scenarios.rs"]
pub(crate) mod outbox_pg_scenarios;
#[path = "../it/outbox_scenarios.rs"]
pub(crate) mod outbox_scenarios;
#[allow(dead_code)] // it can do more than these need
#[path = "../it/scripted.rs"]
mod scripted;
#[path = "../it/turn_scenarios.rs"]
mod turn_scenarios;

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
    a_damaged_row_is_parked_and_stops_nobody,
    an_outage_parks_nothing,
    a_late_commit_is_not_skipped,
    grace_then_clean_up,
    a_replay_publishes_again,
    a_fenced_relay_marks_nothing,
    a_drain_flushes_and_leaves,
    a_drain_ends_at_its_deadline,
    the_trace_goes_through,
    a_delayed_row_waits_and_blocks_nobody,
    a_delayed_row_is_listed_and_cancelled,
    a_delay_passes_by_itself,
    the_backlog_is_shown,
    nothing_is_lost_among_many_writers,
    an_operator_looks_and_helps,
    a_hot_key_delays_no_other,
    what_is_held_is_bounded_in_bytes,
}

on_postgres! { shared, outbox_pg_scenarios:
    others_in_another_process_are_woken,
    publishing_goes_on_while_marking,
    a_cancellation_that_stays_open_holds_up_one_row,
    a_running_mark_keeps_its_partition,
}

/// Once is enough: it takes a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_published_rows_slow_nothing() {
    outbox_pg_scenarios::many_published_rows_slow_nothing(scratch::<sqlx::Postgres>().await).await;
}

on_postgres! { inbox, inbox_scenarios:
    a_message_takes_effect_once,
    a_note_lives_and_dies_with_the_work,
    one_of_many_is_first,
    a_batch_is_noted_at_once,
    batches_share_their_messages,
    old_notes_are_removed,
    a_short_retention_is_refused,
}

on_postgres! { turns, turn_scenarios:
    an_event_in_turn_names_the_one_before_it,
    writers_of_a_key_stand_in_one_line,
    quiet_keys_are_forgotten,
    nobody_waits_for_a_parked_row,
    nobody_waits_for_a_damaged_row,
    shuffled_messages_take_effect_in_their_order,
}
