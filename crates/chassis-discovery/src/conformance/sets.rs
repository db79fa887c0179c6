//! What a set holds while all is well.

use super::kit::{Kit, QUIET, Verdict, endpoint, register, stays, until};
use crate::{Discovery, Endpoint, Resolver, Target, Updates};

/// "Nobody" and "not known yet" are two answers.
pub(super) async fn nobody_is_an_answer_too(kit: &Kit) -> Verdict {
    let connection = kit.connect()?;
    until(&mut connection.resolver.watch(&kit.target()), &[]).await
}

pub(super) async fn an_endpoint_comes_with_its_lease_and_goes_with_it(kit: &Kit) -> Verdict {
    let (connection, target) = (kit.connect()?, kit.target());
    let mut updates = connection.resolver.watch(&target);
    until(&mut updates, &[]).await?;
    let first = register(&connection, &target, endpoint(1)).await?;
    until(&mut updates, &[endpoint(1)]).await?;
    let second = register(&connection, &target, endpoint(2)).await?;
    until(&mut updates, &[endpoint(1), endpoint(2)]).await?;
    first.release().await;
    until(&mut updates, &[endpoint(2)]).await?;
    drop(second);
    until(&mut updates, &[]).await
}

pub(super) async fn everything_that_was_said_of_an_endpoint_arrives(kit: &Kit) -> Verdict {
    let (connection, target) = (kit.connect()?, kit.target());
    let said = [
        endpoint(1).with_weight(7).with_version("1.2.3-beta").with_zone("eu-west-1a"),
        endpoint(2).with_label("tier", "gold").with_label("note", "ä \"quoted\" text"),
        Endpoint::new(std::net::SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 8080)))
            .with_version("2"),
    ]
    .map(|endpoint| kit.place.holds(endpoint));
    let mut leases = Vec::new();
    for endpoint in said.clone() {
        leases.push(register(&connection, &target, endpoint).await?);
    }
    until(&mut connection.resolver.watch(&target), &said).await?;
    for lease in leases {
        lease.release().await;
    }
    Ok(())
}

pub(super) async fn protocols_and_services_are_kept_apart(kit: &Kit) -> Verdict {
    let (connection, http) = (kit.connect()?, kit.target());
    let grpc = Target::new(&http.service, "grpc");
    // Its name begins with the other's.
    let longer = Target::new(format!("{}-x", http.service), "http");
    let mut leases = Vec::new();
    for (number, target) in [(1, &http), (2, &grpc), (3, &longer)] {
        leases.push(register(&connection, target, endpoint(number)).await?);
    }
    for (number, target) in [(1, &http), (2, &grpc), (3, &longer)] {
        let mut updates = connection.resolver.watch(target);
        until(&mut updates, &[endpoint(number)]).await?;
        stays(&mut updates, &[endpoint(number)], QUIET / 4).await?;
    }
    Ok(())
}

pub(super) async fn a_selection_follows_the_set(kit: &Kit) -> Verdict {
    let (connection, target) = (kit.connect()?, kit.target());
    let discovery = Discovery::with_resolver(Shared(connection.resolver.clone()));
    let mut new = discovery.resolver().watch(&target.clone().zone("b"));
    let old = register(&connection, &target, endpoint(1).with_zone("a")).await?;
    until(&mut discovery.resolver().watch(&target), &[endpoint(1).with_zone("a")]).await?;
    until(&mut new, &[]).await?;
    let second = register(&connection, &target, endpoint(2).with_zone("b")).await?;
    until(&mut new, &[endpoint(2).with_zone("b")]).await?;
    second.release().await;
    until(&mut new, &[]).await?;
    old.release().await;
    Ok(())
}

pub(super) async fn who_comes_later_sees_the_same(kit: &Kit) -> Verdict {
    let (connection, target) = (kit.connect()?, kit.target());
    let _lease = register(&connection, &target, endpoint(1)).await?;
    until(&mut connection.resolver.watch(&target), &[endpoint(1)]).await?;
    until(&mut connection.resolver.watch(&target), &[endpoint(1)]).await?;
    until(&mut kit.connect()?.resolver.watch(&target), &[endpoint(1)]).await
}

struct Shared(std::sync::Arc<dyn Resolver>);

impl Resolver for Shared {
    fn watch(&self, target: &Target) -> Updates {
        self.0.watch(target)
    }
}
