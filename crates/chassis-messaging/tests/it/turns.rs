//! The turns of messages on SQLite, natively and through `Any`.

use crate::turn_scenarios as scenarios;

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
    an_event_in_turn_names_the_one_before_it,
    writers_of_a_key_stand_in_one_line,
    quiet_keys_are_forgotten,
    nobody_waits_for_a_parked_row,
    nobody_waits_for_a_damaged_row,
    shuffled_messages_take_effect_in_their_order,
}
