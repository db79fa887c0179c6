//! `shop load`: orders placed as fast as the shop takes them, each followed to its end.
//!
//! It measures, and it is a witness: while services are killed and restarted, every order that
//! was accepted must end, and nobody may be told twice. Customers that find the door shut (the
//! connection is refused or breaks) come back with the same idempotency key, as any client of
//! a restarting edge does; an answer that says that it is the shop's fault counts as failed
//! and is asked for again under the same key.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use chassis::{Error, Result};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    cli::Load,
    smoke::{client::Client, customers, runtime},
    terminal::{complain, say},
};

/// What is ordered: there are a million of it.
const SKU: &str = "paper-filter";
/// How long a customer waits before it tries a shut door again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a door may stay shut.
const PATIENCE: Duration = Duration::from_secs(60);
/// Failures that are printed; the others are counted.
const MAX_SHOWN: u64 = 10;

#[derive(Default)]
struct Counts {
    failed: AtomicU64,
    came_back: AtomicU64,
    cancelled: AtomicU64,
}

/// Orders, waits for the end of every order, prints one line of JSON.
///
/// # Errors
/// An order that failed, was not accepted in time, or did not end as it should.
pub fn main(load: &Load) -> Result<()> {
    runtime()?.block_on(run(load))
}

async fn run(load: &Load) -> Result<()> {
    let client = Client::new(&load.gateway);
    let counts = Counts::default();
    let started = Instant::now();
    let until = started + Duration::from_secs(load.seconds);
    let customers = (0..load.customers).map(|number| {
        let name = client.own(&format!("customer-{number}"));
        let (client, counts) = (&client, &counts);
        async move { order(client, load, &name, until, counts).await.map(|orders| (name, orders)) }
    });
    let baskets = join_all(customers).await.into_iter().collect::<Result<Vec<_>>>()?;
    let accepted = started.elapsed();
    let followed =
        baskets.iter().map(|(name, orders)| follow(&client, load, name, orders, &counts));
    join_all(followed).await.into_iter().collect::<Result<()>>()?;
    let ended = started.elapsed();

    let mut latencies: Vec<Duration> =
        baskets.iter().flat_map(|(_, orders)| orders.iter().map(|order| order.took)).collect();
    latencies.sort_unstable();
    let at = |share: usize| {
        let index = (latencies.len() * share / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    let (count, failed) = (latencies.len(), counts.failed.load(Relaxed));
    say(serde_json::json!({
        "orders": count,
        "failed": failed,
        "came_back": counts.came_back.load(Relaxed),
        "cancelled": counts.cancelled.load(Relaxed),
        "accepted_per_s": count as f64 / accepted.as_secs_f64(),
        "ended_per_s": count as f64 / ended.as_secs_f64(),
        "accept_p50_ms": at(50),
        "accept_p99_ms": at(99),
    }));
    if (failed > 0 && !load.faults) || count == 0 {
        let message = format!("{failed} requests failed, {count} orders were accepted");
        return Err(Error::unavailable("LOAD_FAILED", message));
    }
    Ok(())
}

/// An order that was accepted.
struct Accepted {
    id: String,
    took: Duration,
}

async fn order(
    client: &Client,
    load: &Load,
    customer: &str,
    until: Instant,
    counts: &Counts,
) -> Result<Vec<Accepted>> {
    let mut orders = Vec::new();
    while Instant::now() < until && orders.len() < load.orders {
        let key = format!("{customer}-{}", orders.len());
        orders.push(accepted(client, load, customer, &key, counts).await?);
    }
    Ok(orders)
}

/// Places one order, again and again under the same key until it is accepted.
async fn accepted(
    client: &Client,
    load: &Load,
    customer: &str,
    key: &str,
    counts: &Counts,
) -> Result<Accepted> {
    let body = customers::order_body(customer, "tok_visa", SKU, 1);
    let first = Instant::now();
    loop {
        let started = Instant::now();
        let problem = match client.post("/api/orders", &[("idempotency-key", key)], &body).await {
            Ok(answer) if answer.status.as_u16() == 202 => {
                let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
                return Ok(Accepted { id, took: started.elapsed() });
            }
            Ok(answer) => {
                let problem = format!("{key}: {} {}", answer.status, answer.body);
                if answer.status.is_client_error() {
                    return Err(Error::failed_precondition("LOAD_REFUSED", problem));
                }
                if counts.failed.fetch_add(1, Relaxed) < MAX_SHOWN && !load.faults {
                    complain(format_args!("shop load: {problem}"));
                }
                problem
            }
            Err(error) => {
                counts.came_back.fetch_add(1, Relaxed);
                error.chain().to_string()
            }
        };
        if first.elapsed() > PATIENCE {
            let message = format!("an order was not accepted for {PATIENCE:?}: {problem}");
            return Err(Error::unavailable("LOAD_REFUSED", message));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until each order is shipped, and was told of exactly once.
///
/// Where faults are expected, one that could not get what it needs for too long may have been
/// cancelled, and was told of as such.
async fn follow(
    client: &Client,
    load: &Load,
    customer: &str,
    orders: &[Accepted],
    counts: &Counts,
) -> Result<()> {
    let mut cancelled = BTreeSet::new();
    for Accepted { id, .. } in orders {
        if load.faults {
            let answer = customers::end(client, id, "shipped").await?;
            if answer.body["order"]["status"] == "cancelled" {
                counts.cancelled.fetch_add(1, Relaxed);
                cancelled.insert(id);
            }
        } else {
            customers::ended(client, id, "shipped").await?;
        }
    }
    // The newest are as likely to be told of twice as any, and a page does not hold them all.
    for Accepted { id, .. } in orders.iter().rev().take(3) {
        let news: &[&str] = if cancelled.contains(id) {
            &["order-cancelled"]
        } else {
            &["order-confirmed", "parcel-shipped"]
        };
        customers::told(client, customer, id, news).await?;
    }
    Ok(())
}
