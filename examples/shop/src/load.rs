//! `shop load`: orders placed as fast as the shop takes them, each followed to its end.
//!
//! It measures, and it is a witness: while services are killed and restarted, every order that
//! was accepted must end, and nobody may be told twice. Customers that find the door shut (the
//! connection is refused or breaks) come back with the same idempotency key, as any client of
//! a restarting edge does; an answer that says that it is the shop's fault counts as failed
//! and is asked for again under the same key. Ctrl-C ends the ordering, not the following.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use chassis::{Error, Result, Shutdown, core::shutdown};
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

/// Who orders, and until when.
struct Shopping<'a> {
    client: Client,
    load: &'a Load,
    until: Instant,
    /// Somebody wants it to end sooner.
    enough: Shutdown,
    cancelled: AtomicU64,
}

/// Orders, waits for the end of every order, prints one line of JSON.
///
/// # Errors
/// A call that failed, or an order that was not accepted in time or did not end as it should.
pub fn main(load: &Load) -> Result<()> {
    runtime()?.block_on(run(load))
}

async fn run(load: &Load) -> Result<()> {
    let enough = shutdown::on_signal(PATIENCE, |signal| {
        if signal == 1 {
            complain("No more orders; those that were accepted are followed to their end.");
        }
    })
    .map_err(Error::internal)?;
    let started = Instant::now();
    let shopping = Shopping {
        client: Client::new(&load.gateway).coming_back(!load.faults),
        load,
        until: started + Duration::from_secs(load.seconds),
        enough,
        cancelled: AtomicU64::new(0),
    };
    let customers = (0..load.customers).map(|number| shopping.order(number));
    let baskets = join_all(customers).await.into_iter().collect::<Result<Vec<_>>>()?;
    let accepted = started.elapsed();
    join_all(baskets.iter().map(|basket| shopping.follow(basket)))
        .await
        .into_iter()
        .collect::<Result<()>>()?;
    let ended = started.elapsed();

    let mut latencies: Vec<Duration> =
        baskets.iter().flat_map(|basket| basket.orders.iter().map(|order| order.took)).collect();
    latencies.sort_unstable();
    let at = |share: usize| {
        let index = (latencies.len() * share / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    let counts = &shopping.client.counts;
    let (count, failed) = (latencies.len(), counts.failed.load(Relaxed));
    say(serde_json::json!({
        "orders": count,
        "failed": failed,
        "came_back": counts.unanswered.load(Relaxed),
        "cancelled": shopping.cancelled.load(Relaxed),
        "accepted_per_s": rounded(count as f64 / accepted.as_secs_f64()),
        "ended_per_s": rounded(count as f64 / ended.as_secs_f64()),
        "accept_p50_ms": rounded(at(50)),
        "accept_p99_ms": rounded(at(99)),
    }));
    if (failed > 0 && !load.faults) || count == 0 {
        let message = format!("{failed} requests failed, {count} orders were accepted");
        return Err(Error::unavailable("LOAD_FAILED", message));
    }
    Ok(())
}

/// Two digits after the point are more than a load on one machine can tell.
fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// An order that was accepted.
struct Accepted {
    id: String,
    took: Duration,
}

/// What a customer has ordered.
struct Basket {
    customer: String,
    orders: Vec<Accepted>,
}

impl Shopping<'_> {
    async fn order(&self, number: usize) -> Result<Basket> {
        let customer = self.client.own(&format!("customer-{number}"));
        let mut orders = Vec::new();
        while Instant::now() < self.until
            && !self.enough.is_requested()
            && orders.len() < self.load.orders
        {
            if self.load.browse {
                self.look("/api/products").await?;
                self.look(&format!("/api/products/{SKU}")).await?;
            }
            let key = format!("{customer}-{}", orders.len());
            let order = self.accepted(&customer, &key).await?;
            if self.load.browse {
                self.look(&format!("/api/orders/{}", order.id)).await?;
            }
            orders.push(order);
        }
        Ok(Basket { customer, orders })
    }

    /// Asks for a page, again and again until it is there.
    async fn look(&self, path: &str) -> Result<()> {
        self.client.until(path, path, |answer| answer.status.is_success()).await.map(drop)
    }

    /// Places one order, again and again under the same key until it is accepted.
    async fn accepted(&self, customer: &str, key: &str) -> Result<Accepted> {
        let body = customers::order_body(customer, "tok_visa", SKU, 1);
        let first = Instant::now();
        loop {
            let started = Instant::now();
            let headers = [("idempotency-key", key)];
            let problem = match self.client.post("/api/orders", &headers, &body).await {
                Ok(answer) if answer.status.as_u16() == 202 => {
                    let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
                    return Ok(Accepted { id, took: started.elapsed() });
                }
                Ok(answer) => {
                    let problem = format!("{key}: {} {}", answer.status, answer.body);
                    if answer.status.is_client_error() {
                        return Err(Error::failed_precondition("LOAD_REFUSED", problem));
                    }
                    problem
                }
                Err(error) => error.chain().to_string(),
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
    /// Where faults are expected, one that could not get what it needs for too long may have
    /// been cancelled, and was told of as such.
    async fn follow(&self, basket: &Basket) -> Result<()> {
        let client = &self.client;
        let mut cancelled = BTreeSet::new();
        for Accepted { id, .. } in &basket.orders {
            if self.load.faults {
                let answer = customers::end(client, id, "shipped").await?;
                if answer.body["order"]["status"] == "cancelled" {
                    self.cancelled.fetch_add(1, Relaxed);
                    cancelled.insert(id);
                }
            } else {
                customers::ended(client, id, "shipped").await?;
            }
        }
        for Accepted { id, .. } in &basket.orders {
            let news: &[&str] = if cancelled.contains(id) {
                &["order-cancelled"]
            } else {
                &["order-confirmed", "parcel-shipped"]
            };
            customers::told(client, &basket.customer, id, news).await?;
        }
        Ok(())
    }
}
