//! The inbox on SQLite, natively and through `Any`.

use crate::inbox_scenarios as scenarios;

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
    a_message_takes_effect_once,
    a_note_lives_and_dies_with_the_work,
    one_of_many_is_first,
    a_batch_is_noted_at_once,
    batches_share_their_messages,
    old_notes_are_removed,
    a_short_retention_is_refused,
}
