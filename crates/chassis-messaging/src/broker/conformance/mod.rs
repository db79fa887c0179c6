//! The contract of a broker as scenarios; a broker is done when it passes.
//!
//! Give [`run_all`] a function that connects to the broker under test. Each
//! scenario connects anew, uses topics of its own and closes what it opened, so
//! that one which must survive a restart can close and connect again. Waits are
//! for conditions and bounded; only "nothing comes" has to wait its time out.

mod browse;
mod delivery;
mod giving_back;
mod key_order;
mod kit;
mod lag;
mod limits;
mod restart;
mod transient;

use std::future::Future;
use std::time::Duration;

use chassis_core::Result;

pub use self::kit::Kit;
use self::kit::Verdict;
use super::Broker;

/// A scenario: what it shows, and how.
pub struct Scenario {
    /// What holds if it passes.
    pub name: &'static str,
    run: for<'a> fn(&'a Kit) -> chassis_core::BoxFuture<'a, Verdict>,
}

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All scenarios.
        pub const SCENARIOS: &[Scenario] = &[
            $(Scenario { name: stringify!($name), run: |kit| Box::pin($module::$name(kit)) }),*
        ];
    };
}

scenarios! {
    delivery::a_message_arrives_as_it_was_sent,
    delivery::each_group_gets_each_message,
    delivery::one_group_shares_the_messages,
    delivery::a_new_group_begins_with_the_oldest_message,
    delivery::no_answer_means_again,
    delivery::a_dropped_delivery_comes_again,
    delivery::nak_brings_it_back_at_once,
    delivery::nak_with_delay_waits,
    delivery::progress_extends_the_wait,
    delivery::term_ends_it,
    delivery::max_deliver_ends_it,
    delivery::the_same_id_is_stored_once,
    delivery::the_same_id_on_another_topic_is_another_message,
    key_order::a_key_is_handled_one_after_the_other,
    key_order::a_delayed_message_holds_back_its_key,
    key_order::other_keys_go_on,
    key_order::many_messages_keep_their_key_order,
    key_order::several_of_a_key_come_to_who_asked_for_them,
    giving_back::a_released_delivery_does_not_count,
    giving_back::a_deferred_message_comes_again_in_its_place,
    giving_back::a_word_of_what_was_given_up_passes_its_key,
    giving_back::the_oldest_of_a_key_is_known,
    giving_back::a_pause_leaves_the_messages_to_others,
    giving_back::a_long_line_costs_no_attempts,
    limits::no_more_in_hand_than_asked,
    limits::a_large_message_passes,
    limits::a_message_over_the_limit_is_refused,
    limits::bad_topics_and_groups_are_refused,
    restart::unanswered_messages_survive_a_restart,
    restart::attempts_survive_a_restart,
    restart::a_repetition_after_a_restart_is_known,
    restart::closing_ends_deliveries_and_publishing,
    browse::looking_takes_nothing,
    browse::pages_are_turned_from_the_oldest_on,
    browse::large_messages_make_short_pages,
    browse::topics_below_another_are_looked_at_together,
    browse::what_is_deleted_is_gone,
    browse::what_is_left_is_found_after_deletes,
    browse::a_redriven_message_is_stored_beside_its_original,
    lag::the_lag_of_a_group_is_known,
    transient::a_request_finds_a_listener_and_its_reply_the_sender,
    transient::each_request_goes_to_one_of_a_group,
    transient::a_request_that_nobody_hears_is_known_at_once,
}

/// Runs all scenarios, one after the other; gives how many there are.
///
/// `connect` connects to the broker under test, which keeps its messages between
/// two calls. Dropping the future stops at the scenario that runs.
///
/// # Errors
///
/// One line for each scenario that failed, with its name.
pub async fn run_all<F, Fut>(connect: F) -> std::result::Result<usize, String>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Broker>> + Send + 'static,
{
    let kit = Kit::new(connect);
    let mut failures = Vec::new();
    for scenario in SCENARIOS {
        let verdict = tokio::time::timeout(Duration::from_secs(60), (scenario.run)(&kit)).await;
        match verdict.unwrap_or_else(|_| Err("it did not end within a minute".to_owned())) {
            Ok(()) => tracing::info!(scenario = scenario.name, "passed"),
            Err(problem) => failures.push(format!("{}: {problem}", scenario.name)),
        }
    }
    if failures.is_empty() { Ok(SCENARIOS.len()) } else { Err(failures.join("\n")) }
}
