//! The outbox on SQLite, natively and through `Any`.
#![allow(clippy::unwrap_used)]

use chassis_data::{Backend, DatabaseConfig, Db};
use tempfile::TempDir;

use crate::outbox_scenarios as scenarios;

/// A fresh SQLite database in a folder that lives as long as the first value.
pub(crate) async fn scratch<B: Backend>() -> (TempDir, Db<B>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("scratch.db");
    let config = DatabaseConfig::url(format!("sqlite://{}?mode=rwc", path.display()));
    (folder, Db::connect(&config).await.unwrap())
}

macro_rules! on_sqlite {
    ($($name:ident $(($($extra:expr),*))? ,)*) => {
        mod native { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, db) = super::scratch::<sqlx::Sqlite>().await;
                super::scenarios::$name(db $($(, $extra)*)?).await;
            })* }
        mod any { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, db) = super::scratch::<sqlx::Any>().await;
                super::scenarios::$name(db $($(, $extra)*)?).await;
            })* }
    };
}

on_sqlite! {
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
