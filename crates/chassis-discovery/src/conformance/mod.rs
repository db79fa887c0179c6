//! The contract of a resolver and its registrar as scenarios; a backend is done
//! when it passes.
//!
//! Give [`run_all`] a [`Place`]: how to connect to the registry under test, and
//! how to take it away and bring it back. Each scenario names services of its
//! own. Waits are for conditions and bounded; only "nothing changes" has to wait
//! its time out.

mod churn;
mod kit;
mod lease;
mod outage;
mod sets;

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};

use self::kit::{Kit, Verdict};
use crate::{Endpoint, Registrar, Resolver};

/// The registry under test.
pub trait Place: Send + Sync + 'static {
    /// Connects anew, as another process would: on the runtime that it is called
    /// on, sharing nothing with other connections.
    ///
    /// # Errors
    /// What makes every scenario fail.
    fn connect(&self) -> Result<Connection>;

    /// Takes the registry away: what is connected breaks, and nobody connects.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Brings it back, with or without what it held.
    fn start(&self) -> BoxFuture<'_, ()>;

    /// The time after which a crashed instance is gone; none where the platform
    /// and not the instance registers, and so sees a crash itself.
    fn lease(&self) -> Option<Duration>;

    /// Whether the registry can go away while the process lives.
    fn goes_away(&self) -> bool {
        true
    }

    /// What an endpoint can say of itself here; everything, unless the platform
    /// has no place for it. The scenario compares with what this leaves.
    fn holds(&self, endpoint: Endpoint) -> Endpoint {
        endpoint
    }

    /// How long an endpoint stays that is missing after the registry was away.
    fn grace(&self) -> Duration;
}

/// One process's way to the registry.
pub struct Connection {
    /// What finds.
    pub resolver: Arc<dyn Resolver>,
    /// What registers; for a platform that does it, what stands for the platform.
    pub registrar: Arc<dyn Registrar>,
}

/// A scenario: what it shows, and how.
pub struct Scenario {
    /// What holds if it passes.
    pub name: &'static str,
    run: for<'a> fn(&'a Kit) -> BoxFuture<'a, Verdict>,
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
    sets::nobody_is_an_answer_too,
    sets::an_endpoint_comes_with_its_lease_and_goes_with_it,
    sets::everything_that_was_said_of_an_endpoint_arrives,
    sets::protocols_and_services_are_kept_apart,
    sets::a_selection_follows_the_set,
    sets::who_comes_later_sees_the_same,
    lease::a_crashed_instance_is_gone_after_its_lease,
    lease::who_lives_stays_for_many_leases,
    outage::the_last_good_set_stays_while_the_registry_is_away,
    outage::after_an_outage_changes_arrive_again,
    outage::what_was_lost_is_registered_again,
    outage::an_instance_may_start_while_the_registry_is_away,
    churn::a_churn_of_a_hundred_ends_in_the_complete_set,
}

/// Runs all scenarios, one after the other; gives how many there are.
///
/// Dropping the future stops at the scenario that runs.
///
/// # Errors
/// One line for each scenario that failed, with its name.
pub async fn run_all(place: impl Place) -> std::result::Result<usize, String> {
    let kit = Kit::new(place);
    let mut failures = Vec::new();
    for scenario in SCENARIOS {
        let verdict = tokio::time::timeout(Duration::from_secs(120), (scenario.run)(&kit)).await;
        match verdict.unwrap_or_else(|_| Err("it did not end within two minutes".to_owned())) {
            Ok(()) => tracing::info!(scenario = scenario.name, "passed"),
            Err(problem) => failures.push(format!("{}: {problem}", scenario.name)),
        }
    }
    if failures.is_empty() { Ok(SCENARIOS.len()) } else { Err(failures.join("\n")) }
}
