//! The registry goes and comes back; clients hardly notice.

use tokio::time::Instant;

use super::kit::{
    Kit, QUIET, SOON, Verdict, endpoint, ensure, eventually, register, stays, until, until_within,
};

pub(super) async fn the_last_good_set_stays_while_the_registry_is_away(kit: &Kit) -> Verdict {
    if !kit.place.goes_away() {
        return Ok(());
    }
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    let both = [endpoint(1), endpoint(2)];
    let first = register(&connection, &target, endpoint(1)).await?;
    let second = register(&connection, &target, endpoint(2)).await?;
    until(&mut updates, &both).await?;
    ensure!(updates.stale_for(Instant::now()).is_none(), "stale while all is well");

    kit.place.stop().await;
    let watching = updates.clone();
    eventually("the set is known to be stale", || watching.stale_for(Instant::now()).is_some())
        .await?;
    // For longer than a lease: nobody could renew it.
    stays(&mut updates, &both, kit.place.lease().unwrap_or(QUIET) * 2).await?;
    kit.place.start().await;
    eventually("the set is fresh again", || watching.stale_for(Instant::now()).is_none()).await?;
    // Also if it came back with nothing: who lives registers again in the grace.
    stays(&mut updates, &both, kit.place.grace() + QUIET * 2).await?;
    until(&mut updates, &both).await?;
    first.release().await;
    second.release().await;
    until(&mut updates, &[]).await
}

pub(super) async fn after_an_outage_changes_arrive_again(kit: &Kit) -> Verdict {
    if !kit.place.goes_away() {
        return Ok(());
    }
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    let old = register(&connection, &target, endpoint(1)).await?;
    until(&mut updates, &[endpoint(1)]).await?;
    kit.place.stop().await;
    let watching = updates.clone();
    eventually("the outage is noticed", || watching.stale_for(Instant::now()).is_some()).await?;
    kit.place.start().await;
    let new = register(&connection, &target, endpoint(2)).await?;
    let limit = kit.place.grace() + SOON;
    until_within(&mut updates, &[endpoint(1), endpoint(2)], limit).await?;
    old.release().await;
    until_within(&mut updates, &[endpoint(2)], limit).await?;
    new.release().await;
    until_within(&mut updates, &[], limit).await
}

pub(super) async fn what_was_lost_is_registered_again(kit: &Kit) -> Verdict {
    if kit.place.lease().is_none() {
        return Ok(());
    }
    let (connection, target) = (kit.connect()?, kit.target());
    let lease = register(&connection, &target, endpoint(1)).await?;
    ensure!(lease.lost_for(Instant::now()).is_none(), "lost while all is well");
    kit.place.stop().await;
    eventually("the lease says that it is lost", || lease.lost_for(Instant::now()).is_some())
        .await?;
    kit.place.start().await;
    eventually("the lease is held again", || lease.lost_for(Instant::now()).is_none()).await?;
    // Somebody who never saw it before.
    until(&mut kit.connect()?.resolver.watch(&target), &[endpoint(1)]).await?;
    lease.release().await;
    Ok(())
}

pub(super) async fn an_instance_may_start_while_the_registry_is_away(kit: &Kit) -> Verdict {
    if !kit.place.goes_away() {
        return Ok(());
    }
    let (connection, target) = (kit.connect()?, kit.target());
    kit.place.stop().await;
    let mut updates = connection.resolver.watch(&target);
    let registering = register(&connection, &target, endpoint(1));
    let lease = match tokio::time::timeout(SOON, registering).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(problem)) => {
            kit.place.start().await;
            return Err(problem);
        }
        Err(_) => {
            kit.place.start().await;
            return Err("registering did not end".to_owned());
        }
    };
    kit.place.start().await;
    until(&mut updates, &[endpoint(1)]).await?;
    lease.release().await;
    until_within(&mut updates, &[], kit.place.grace() + SOON).await
}
