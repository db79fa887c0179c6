//! A lease: who says nothing any more is gone, and nobody else.

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::kit::{Kit, SOON, Verdict, endpoint, register, stays, until, until_within};

/// The instance runs on a runtime of its own, which ends without a word, as a
/// killed process does.
pub(super) async fn a_crashed_instance_is_gone_after_its_lease(kit: &Kit) -> Verdict {
    let Some(lease) = kit.place.lease() else { return Ok(()) };
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    let other = register(&connection, &target, endpoint(2)).await?;

    let mut process = Process::start()?;
    let (place, crashing) = (Arc::clone(&kit.place), target.clone());
    let registered = process.0.as_ref().ok_or("no process")?.spawn(async move {
        let connection = place.connect().map_err(super::kit::said)?;
        let lease = register(&connection, &crashing, endpoint(1)).await?;
        Ok::<_, String>((connection, lease))
    });
    let (instance, held) = registered.await.map_err(|error| error.to_string())??;
    until(&mut updates, &[endpoint(1), endpoint(2)]).await?;
    process.crash();
    // A reader that begins in between may count from its own beginning.
    let seen = until_within(&mut updates, &[endpoint(2)], lease * 3 + SOON).await;
    // Only now, so that dropping it cannot be what took it away.
    drop((instance, held));
    seen?;
    other.release().await;
    Ok(())
}

pub(super) async fn who_lives_stays_for_many_leases(kit: &Kit) -> Verdict {
    let Some(lease) = kit.place.lease() else { return Ok(()) };
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    let held = register(&connection, &target, endpoint(1)).await?;
    until(&mut updates, &[endpoint(1)]).await?;
    stays(&mut updates, &[endpoint(1)], lease * 3).await?;
    held.release().await;
    until(&mut updates, &[]).await
}

/// What stands for a process: it ends without a word, and without waiting.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Result<Process, String> {
        let builder = &mut Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        Ok(Process(Some(runtime.map_err(|error| error.to_string())?)))
    }

    fn crash(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.crash();
    }
}
