//! Many come and go at once.

use std::collections::BTreeMap;

use super::kit::{Kit, Verdict, endpoint, register, until};

/// A hundred instances register; half of them leave while as many new ones come,
/// and some come back with another zone. Nobody counts the sets in between;
/// the last one is complete.
pub(super) async fn a_churn_of_a_hundred_ends_in_the_complete_set(kit: &Kit) -> Verdict {
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    let mut held = BTreeMap::new();
    for number in 0..100 {
        held.insert(number, register(&connection, &target, endpoint(number)).await?);
    }
    let all: Vec<_> = (0..100).map(endpoint).collect();
    until(&mut updates, &all).await?;

    for number in (0..100).step_by(2) {
        // All leave at once, and nobody waits for it.
        drop(held.remove(&number));
        let new = 100 + number;
        held.insert(new, register(&connection, &target, endpoint(new)).await?);
    }
    let mut expected: Vec<_> = held.keys().map(|number| endpoint(*number)).collect();
    until(&mut updates, &expected).await?;

    for number in (1..20).step_by(2) {
        if let Some(lease) = held.remove(&number) {
            lease.release().await;
        }
        let changed = endpoint(number).with_zone("b");
        held.insert(number, register(&connection, &target, changed.clone()).await?);
        expected.retain(|endpoint| endpoint.address != changed.address);
        expected.push(changed);
    }
    until(&mut updates, &expected).await?;
    // Somebody who has seen nothing of it.
    until(&mut kit.connect()?.resolver.watch(&target), &expected).await?;
    let going: Vec<_> = held.into_values().map(crate::Lease::release).collect();
    for gone in going {
        gone.await;
    }
    until(&mut updates, &[]).await
}
