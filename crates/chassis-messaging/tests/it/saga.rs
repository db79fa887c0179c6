//! Sagas on SQLite, natively and through `Any`.

macro_rules! on_sqlite {
    ($of:ident, $scenarios:ident: $($name:ident,)*) => {
        mod $of {
            mod native { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (_folder, db) = crate::outbox::scratch::<sqlx::Sqlite>().await;
                    crate::$scenarios::$name(db).await;
                })* }
            mod any { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (_folder, db) = crate::outbox::scratch::<sqlx::Any>().await;
                    crate::$scenarios::$name(db).await;
                })* }
        }
    };
}

on_sqlite! { engine, saga_scenarios:
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

on_sqlite! { operator, saga_operator_scenarios:
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

on_sqlite! { queue, saga_queue_scenarios:
    a_second_start_waits,
    a_second_start_after_the_end_begins_at_once,
    too_many_are_refused,
    a_signal_belongs_to_the_saga_that_has_the_key,
    a_wait_begins_with_its_saga,
    an_operator_can_end_the_first,
    an_end_waits_for_a_start_under_way,
    a_crowd_runs_one_by_one,
}

on_sqlite! { signals, saga_signal_scenarios:
    a_start_waits_for_a_signal_under_way,
    a_signal_waits_for_a_start_under_way,
    a_signal_outlives_a_start_that_is_rolled_back,
}
