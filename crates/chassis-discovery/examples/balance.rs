//! What a pick among many endpoints costs, beside a pick among three in the same run.
//!
//! `cargo xtask bench resilience balance`, or
//! `cargo run --release -p chassis-discovery --example balance`. The figure is CPU ns of a call
//! through the balancer to a service that answers at once; its anchor is the same among three
//! endpoints. Slices alternate; the median counts.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use chassis_core::BoxError;
use chassis_discovery::{Affinity, Balance, BalanceSettings, Endpoint, Target, Updates};
use chassis_resilience::Classified;
use chassis_test::figures::{Asked, Figure, alternate, median};
use tower::{Service, ServiceExt};

const CALLS_PER_SLICE: u32 = 100_000;
const SLICES: usize = 41;

/// Answers at once.
#[derive(Clone)]
struct Echo;

impl Service<u32> for Echo {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

type Calls = Balance<Echo, Classified, u32>;
type Key = fn(&u32) -> Option<Affinity>;

fn balance(endpoints: u32, affinity: Key) -> Calls {
    let endpoint = |n: u32| Endpoint::new(SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 80)));
    Balance::new(
        Target::new("greeter", "http"),
        Updates::fixed((0..endpoints).map(endpoint)),
        |_| Echo,
        Classified::errors(),
        affinity,
        BalanceSettings::default(),
    )
}

/// CPU time of this thread so far, in nanoseconds; Linux counts it for each thread.
fn cpu() -> Result<u64, BoxError> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no schedstat")?.parse()?)
}

/// CPU ns of one call.
async fn slice(calls: &Calls) -> Result<f64, BoxError> {
    let begun = cpu()?;
    for n in 0..CALLS_PER_SLICE {
        calls.clone().oneshot(n).await?;
    }
    Ok((cpu()? - begun) as f64 / f64::from(CALLS_PER_SLICE))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let asked = Asked::parse(std::env::args().skip(1), &["--quick"])?;
    let any: Key = |_| None;
    let by_key: Key = |n| Some(Affinity::of(n.to_le_bytes()));
    for (bench, affinity) in [("balance_1000", any), ("balance_1000_by_key", by_key)] {
        if !asked.wants(bench) {
            continue;
        }
        let balances = [balance(3, affinity), balance(1_000, affinity)];
        let costs = alternate::<2, BoxError>(SLICES, async |n| slice(&balances[n]).await);
        let [three, thousand] = costs.await?.map(median);
        asked.print(&Figure::new(bench, thousand, "ns/call", "3_endpoints", three));
    }
    Ok(())
}
