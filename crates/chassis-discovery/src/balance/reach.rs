//! When an endpoint that could not be connected to can be called again.
//!
//! A call must not find that out, since it would wait for the connect time-out. So a task of
//! the endpoint's own tries, soon at first and then less and less often, until a connection is
//! made or the endpoint leaves the set. It only opens a connection and closes it: whether
//! calls succeed is for the circuit breaker to say.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chassis_resilience::retry::Backoff;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::health::Standing;
use super::node::Node;

/// A restarted process is back within a second or so; and one packet in five seconds is no
/// load on the one that is not.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5), factor: 2.0 };

/// Begins to try. One task for each endpoint that is away, which ends with the endpoint.
pub(crate) fn follow(node: &Arc<Node>) {
    // Outside of a runtime there are no calls that could fail to connect.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(until_back(Arc::downgrade(node)));
    }
}

async fn until_back(node: Weak<Node>) {
    for attempt in 1u32.. {
        // At least half of it, so that the first tries are not all at once.
        let pause = BACKOFF.ceiling(attempt).mul_f64(0.5 + 0.5 * fastrand::f64());
        tokio::time::sleep(pause).await;
        // Not held while it waits: the endpoint may go.
        let Some((address, timeout)) =
            away(&node).map(|node| (node.address(), node.connect_timeout()))
        else {
            return;
        };
        let connected = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
        let Some(node) = away(&node) else { return };
        if matches!(connected, Ok(Ok(_))) {
            return node.regain(Instant::now());
        }
        node.refresh();
    }
}

fn away(node: &Weak<Node>) -> Option<Arc<Node>> {
    node.upgrade().filter(|node| node.standing() == Standing::Away)
}
