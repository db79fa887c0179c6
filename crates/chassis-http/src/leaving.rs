//! When this process takes itself out of traffic: for answers that would go on without an end.

use chassis_core::{Context, Status};
use tokio::sync::watch;

/// The health of the process that a request is served by.
pub(crate) fn health() -> watch::Receiver<Status> {
    Context::current().env().health().watch()
}

/// Waits until the process is about to end: a drain delay before its servers stop, while others
/// are there already. Dropping the future changes nothing.
pub(crate) async fn is_near(mut health: watch::Receiver<Status>) {
    if health.wait_for(|status| *status == Status::Draining).await.is_err() {
        std::future::pending().await
    }
}
