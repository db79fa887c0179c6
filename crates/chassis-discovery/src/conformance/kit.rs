//! What the scenarios share: connecting, names of their own, bounded waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::Error;
use tokio::time::Instant;

use super::{Connection, Place};
use crate::{Endpoint, Lease, Target, Updates};

/// How long a change that should come may take.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// How long nothing must change for "it stays".
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// What a scenario says.
pub(super) type Verdict = Result<(), String>;

/// Fails a scenario with what was expected.
macro_rules! ensure {
    ($condition:expr, $($problem:tt)+) => {
        if !$condition {
            return Err(format!($($problem)+));
        }
    };
}
pub(super) use ensure;

/// How scenarios reach the registry under test.
pub(super) struct Kit {
    pub(super) place: Arc<dyn Place>,
    next: AtomicU64,
}

impl Kit {
    pub(super) fn new(place: impl Place) -> Kit {
        // Two runs against one server do not meet.
        Kit { place: Arc::new(place), next: AtomicU64::new(fastrand::u64(..1 << 32) << 16) }
    }

    pub(super) fn connect(&self) -> Result<Connection, String> {
        self.place.connect().map_err(said)
    }

    /// A target that no other scenario uses.
    pub(super) fn target(&self) -> Target {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Target::new(format!("conformance-{number:x}"), "http")
    }
}

pub(super) fn endpoint(number: u16) -> Endpoint {
    Endpoint::new(([10, 9, (number >> 8) as u8, number as u8], 8080).into())
}

pub(super) async fn register(
    connection: &Connection,
    target: &Target,
    endpoint: Endpoint,
) -> Result<Lease, String> {
    connection.registrar.register(target.clone(), endpoint).await.map_err(said)
}

/// Waits until the set is this one.
pub(super) async fn until(updates: &mut Updates, expected: &[Endpoint]) -> Verdict {
    until_within(updates, expected, SOON).await
}

pub(super) async fn until_within(
    updates: &mut Updates,
    expected: &[Endpoint],
    limit: Duration,
) -> Verdict {
    let mut expected = expected.to_vec();
    expected.sort();
    let end = Instant::now() + limit;
    loop {
        let mut current = updates.current().to_vec();
        current.sort();
        if updates.is_known() && current == expected {
            return Ok(());
        }
        if tokio::time::timeout_at(end, updates.changed()).await.is_err() {
            return Err(difference(&expected, &current, updates.is_known()));
        }
    }
}

/// What is wrong with a set, without the hundred that are right.
fn difference(expected: &[Endpoint], current: &[Endpoint], known: bool) -> String {
    let only = |these: &[Endpoint], those: &[Endpoint]| -> Vec<Endpoint> {
        let only = these.iter().filter(|endpoint| !those.contains(endpoint));
        only.take(3).cloned().collect()
    };
    format!(
        "expected {} endpoints, got {} (known: {known}); missing {:?}, too many {:?}",
        expected.len(),
        current.len(),
        only(expected, current),
        only(current, expected)
    )
}

/// Every one of these stays in the set for this long.
pub(super) async fn stays(updates: &mut Updates, kept: &[Endpoint], time: Duration) -> Verdict {
    let end = Instant::now() + time;
    loop {
        let current = updates.current();
        for endpoint in kept {
            ensure!(current.contains(endpoint), "{endpoint:?} is missing in {current:?}");
        }
        if tokio::time::timeout_at(end, updates.changed()).await.is_err() {
            return Ok(());
        }
    }
}

/// Waits for a condition that nobody announces.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Verdict {
    let end = Instant::now() + SOON;
    while !holds() {
        ensure!(Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) fn said(error: Error) -> String {
    error.chain()
}
