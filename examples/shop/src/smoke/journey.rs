//! The steps, in the order in which a customer would take them.

use std::{collections::BTreeSet, future::Future};

use bytes::Bytes;
use chassis::{Error, Result, core::TraceContext};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use sqlx::migrate::MigrateDatabase;
use tokio::time::Instant;

use super::{
    broken,
    client::{Answer, Client},
    process::{Place, Process},
};
use crate::{cli::Options, services, terminal::say};

/// Every service that an order touches.
const TOUCHED: [&str; 7] =
    ["gateway", "ordering", "catalog", "inventory", "payment", "shipping", "notification"];
/// Orders that are under way when the process is killed.
const KILLED_ORDERS: usize = 20;

/// Runs the journey against a fresh shop.
pub(super) async fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let (temporary, data) = match &options.data {
        Some(data) => (None, data.clone()),
        None => {
            let folder = tempfile::tempdir().map_err(Error::internal)?;
            let path = folder.path().to_owned();
            (Some(folder), path)
        }
    };
    std::fs::create_dir_all(&data).map_err(Error::internal)?;
    if std::fs::read_dir(&data).map_err(Error::internal)?.next().is_some() {
        return Err(Error::invalid_argument(
            "SMOKE_DATA",
            format!("{} is not empty, and the journey wants a fresh shop", data.display()),
        ));
    }
    let mut options = options.clone();
    // A database server outlives the run: each run gets names of its own on it.
    options.database = options.database.map(|url| fresh(&url));
    let place = Place { data, options };
    say(format_args!(
        "The shop's journey, on {} and {}",
        if place.options.database.is_some() { "PostgreSQL" } else { "SQLite" },
        if place.options.broker.is_some() { "NATS JetStream" } else { "the embedded broker" },
    ));

    let outcome = steps(&place).await;
    if place.options.database.is_some() {
        drop_databases(&place.services()).await;
    }
    match outcome {
        Ok(count) => {
            say(format_args!("all {count} steps hold ({:.1?})", started.elapsed()));
            Ok(())
        }
        Err(error) => {
            if let Some(folder) = temporary {
                let _ = folder.keep(); // the log is wanted now
            }
            say(format_args!("the log is {}", place.log().display()));
            Err(error)
        }
    }
}

async fn steps(place: &Place) -> Result<u32> {
    let mut journal = Journal::default();
    let shop = journal.step("the shop opens", place.start()).await?;
    let client = Client::new(&shop.gateway);
    journal.step("products are listed, with stock", products(&client)).await?;
    let trace = TraceContext::root(true);
    journal.step("an order is confirmed, shipped and told of", order(&client, &trace)).await?;
    journal.step("a declined card cancels and gives the stock back", declined(&client)).await?;
    journal.step("missing stock cancels", out_of_stock(&client)).await?;
    journal.step("the same idempotency key twice is one order", idempotent(&client)).await?;
    journal.step("wrong requests get problem+json", problems(&client)).await?;
    let pending = journal.step("kill -9 in the middle of sagas", kill(client, shop)).await?;
    let shop = journal.step("the shop opens again on the same data", place.start()).await?;
    let client = Client::new(&shop.gateway);
    journal.step("every saga that was cut ends, once", recovered(&client, &pending)).await?;
    journal.step("probes and metrics answer", admin(&shop)).await?;
    journal.step("SIGTERM drains, exit code 0", stop(shop)).await?;
    journal.step("one trace id in the logs of every service", traced(place, &trace)).await?;
    Ok(journal.count)
}

/// Prints one line per step.
#[derive(Default)]
struct Journal {
    count: u32,
}

impl Journal {
    async fn step<T>(&mut self, name: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let outcome = step.await;
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        say(format_args!("  {verdict:<7}{:>8.2}s  {name}", started.elapsed().as_secs_f64()));
        self.count += 1;
        outcome.map_err(|error| broken(format!("step `{name}`")).with_source(error))
    }
}

async fn products(client: &Client) -> Result<()> {
    let answer = client.get("/api/products").await?.expect(200)?;
    let count = answer.body["products"].as_array().map_or(0, Vec::len);
    if count < 6 {
        return Err(broken(format!("expected six products: {}", answer.body)));
    }
    if available(client, "espresso-cup").await? < 10 {
        return Err(broken("the catalogue is seeded with stock"));
    }
    Ok(())
}

async fn order(client: &Client, trace: &TraceContext) -> Result<()> {
    let customer = "ada";
    let headers = [("traceparent", &*trace.traceparent())];
    let id = place_order(client, customer, "tok_visa", "espresso-cup", 2, &headers).await?;
    let shipped = ended(client, &id, "shipped").await?;
    let order = &shipped.body["order"];
    if order["total_minor"] != 2 * 1200 {
        return Err(broken(format!("two cups cost 2400: {}", shipped.body)));
    }
    if shipped.body["payment"]["status"] != "charged" {
        return Err(broken(format!("the answer shows the payment: {}", shipped.body)));
    }
    if order["trace_id"] != trace.trace_id.to_string() {
        return Err(broken(format!("the order remembers its trace: {}", shipped.body)));
    }
    told(client, customer, &id, &["order-confirmed", "parcel-shipped"]).await
}

async fn declined(client: &Client) -> Result<()> {
    let before = available(client, "latte-glass").await?;
    let id = place_order(client, "bob", "tok_declined", "latte-glass", 3, &[]).await?;
    let cancelled = ended(client, &id, "cancelled").await?;
    reason(&cancelled, "CARD_DECLINED")?;
    let after = available(client, "latte-glass").await?;
    if before != after {
        return Err(broken(format!("stock was {before} and is {after}")));
    }
    told(client, "bob", &id, &["order-cancelled"]).await
}

async fn out_of_stock(client: &Client) -> Result<()> {
    let id = place_order(client, "carl", "tok_visa", "sold-out-mug", 1, &[]).await?;
    reason(&ended(client, &id, "cancelled").await?, "OUT_OF_STOCK")
}

async fn idempotent(client: &Client) -> Result<()> {
    let body = order_body("dora", "tok_visa", "moka-pot", 1);
    let key = [("idempotency-key", "the-same")];
    let first = client.post("/api/orders", &key, &body).await?.expect(202)?;
    let second = client.post("/api/orders", &key, &body).await?.expect(202)?;
    if first.body["id"] != second.body["id"] {
        return Err(broken(format!("two orders: {} and {}", first.body, second.body)));
    }
    let other = order_body("dora", "tok_visa", "moka-pot", 2);
    let refused = client.post("/api/orders", &key, &other).await?;
    refused.expect_problem(409, "IDEMPOTENCY_KEY_REUSED")?;
    let id = first.body["id"].as_str().unwrap_or_default();
    ended(client, id, "shipped").await?;
    let orders = client.get("/api/orders?customer_id=dora").await?.expect(200)?;
    match orders.body["orders"].as_array().map(Vec::len) {
        Some(1) => Ok(()),
        _ => Err(broken(format!("expected one order: {}", orders.body))),
    }
}

async fn problems(client: &Client) -> Result<()> {
    let unknown = order_body("eve", "tok_visa", "no-such-thing", 1);
    client.post("/api/orders", &[], &unknown).await?.expect_problem(404, "PRODUCT_NOT_FOUND")?;
    client.get("/api/products/no-such-thing").await?.expect_problem(404, "PRODUCT_NOT_FOUND")?;
    let malformed = Bytes::from_static(b"{\"customer_id\": ");
    let answer = client.send(Method::POST, "/api/orders", &[], malformed).await?;
    answer.expect(400).and_then(problem)?;
    let empty = json!({ "customer_id": "eve", "card_token": "tok_visa", "lines": [] });
    let answer = client.post("/api/orders", &[], &empty).await?.expect(400).and_then(problem)?;
    if answer.body["errors"][0]["field"] != "lines" {
        return Err(broken(format!("the wrong field is named: {}", answer.body)));
    }
    let wrong = client.send(Method::DELETE, "/api/orders", &[], Bytes::new()).await?;
    let wrong = wrong.expect(405).and_then(problem)?;
    if !wrong.headers.contains_key("allow") {
        return Err(broken("405 says what is allowed"));
    }
    client.get("/no/such/path").await?.expect(404).and_then(problem)?;
    Ok(())
}

fn problem(answer: Answer) -> Result<Answer> {
    let reason = answer.body["reason"].as_str().unwrap_or_default().to_owned();
    let status = answer.status.as_u16();
    answer.expect_problem(status, &reason)
}

/// Places orders side by side and kills the process while some of their sagas are under way.
async fn kill(client: Client, shop: Process) -> Result<Vec<String>> {
    let orders =
        (0..KILLED_ORDERS).map(|_| place_order(&client, "frank", "tok_visa", "tea-bowl", 1, &[]));
    let mut ids = Vec::new();
    for placed in join_all(orders).await {
        ids.push(placed?);
    }
    let answer = client.get("/api/orders?customer_id=frank").await?.expect(200)?;
    shop.kill()?;
    let pending = statuses(&answer).filter(|status| *status == "pending").count();
    if pending == 0 {
        return Err(broken(format!("no saga was under way any more: {}", answer.body)));
    }
    Ok(ids)
}

async fn recovered(client: &Client, ids: &[String]) -> Result<()> {
    let path = "/api/orders?customer_id=frank";
    let all = client
        .until("all cut orders to end", path, |answer| {
            statuses(answer).filter(|status| *status == "shipped").count() == ids.len()
        })
        .await?;
    if statuses(&all).count() != ids.len() {
        return Err(broken(format!("orders came twice: {}", all.body)));
    }
    // Each bowl was taken once: the seed is a thousand.
    let left = available(client, "tea-bowl").await?;
    if left != 1000 - i64::try_from(ids.len()).unwrap_or_default() {
        return Err(broken(format!("{} orders of one bowl left {left} of 1000", ids.len())));
    }
    for id in ids {
        told(client, "frank", id, &["order-confirmed", "parcel-shipped"]).await?;
    }
    Ok(())
}

async fn admin(shop: &Process) -> Result<()> {
    let admin = Client::new(&shop.admin);
    for path in ["/livez", "/readyz", "/startupz", "/info", "/plan"] {
        admin.get(path).await?.expect(200)?;
    }
    let metrics = admin.get("/metrics").await?.expect(200)?;
    let text = metrics.body.as_str().unwrap_or_default();
    if !text.contains("http_server_request_duration_seconds_bucket{") {
        return Err(broken(format!("no request durations in the metrics: {text}")));
    }
    Ok(())
}

async fn stop(shop: Process) -> Result<()> {
    let status = shop.stop().await?;
    if status.success() { Ok(()) } else { Err(broken(format!("it ended with {status}"))) }
}

async fn traced(place: &Place, trace: &TraceContext) -> Result<()> {
    let log = std::fs::read_to_string(place.log()).map_err(Error::internal)?;
    let trace_id = trace.trace_id.to_string();
    let seen: BTreeSet<String> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["trace_id"] == *trace_id)
        .filter_map(|line| line["service.name"].as_str().map(str::to_owned))
        .collect();
    let missing: Vec<_> = TOUCHED.iter().filter(|name| !seen.contains(**name)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(broken(format!("trace {trace_id} is not in the logs of {missing:?}")))
    }
}

fn order_body(customer: &str, card: &str, sku: &str, quantity: u32) -> Value {
    json!({
        "customer_id": customer,
        "card_token": card,
        "lines": [{ "sku": sku, "quantity": quantity }],
    })
}

async fn place_order(
    client: &Client,
    customer: &str,
    card: &str,
    sku: &str,
    quantity: u32,
    headers: &[(&str, &str)],
) -> Result<String> {
    let body = order_body(customer, card, sku, quantity);
    let answer = client.post("/api/orders", headers, &body).await?.expect(202)?;
    let id = answer.body["id"].as_str().unwrap_or_default();
    let location = answer.headers.get("location").and_then(|value| value.to_str().ok());
    if location != Some(&*format!("/api/orders/{id}")) {
        return Err(broken(format!("202 says where the order is: {location:?}, {}", answer.body)));
    }
    Ok(id.to_owned())
}

/// Waits until the order has this status; another end is reported at once.
async fn ended(client: &Client, id: &str, status: &str) -> Result<Answer> {
    let ends = ["shipped", "cancelled"];
    let answer = client
        .until(&format!("order {id} to be {status}"), &format!("/api/orders/{id}"), |answer| {
            ends.iter().any(|end| answer.body["order"]["status"] == *end)
        })
        .await?;
    if answer.body["order"]["status"] == status {
        Ok(answer)
    } else {
        Err(broken(format!("expected {status}: {}", answer.body)))
    }
}

fn reason(answer: &Answer, reason: &str) -> Result<()> {
    if answer.body["order"]["reason"] == reason {
        Ok(())
    } else {
        Err(broken(format!("expected reason {reason}: {}", answer.body)))
    }
}

/// Waits until the customer was told each kind of news of an order, and exactly once.
async fn told(client: &Client, customer: &str, order: &str, kinds: &[&str]) -> Result<()> {
    let path = format!("/api/customers/{customer}/notifications");
    let count = |answer: &Answer, kind: &str| {
        answer.body["notifications"].as_array().map_or(0, |all| {
            all.iter().filter(|news| news["order_id"] == order && news["kind"] == kind).count()
        })
    };
    let answer = client
        .until(&format!("{kinds:?} of order {order}"), &path, |answer| {
            kinds.iter().all(|kind| count(answer, kind) > 0)
        })
        .await?;
    if kinds.iter().all(|kind| count(&answer, kind) == 1) {
        Ok(())
    } else {
        Err(broken(format!("told more than once: {}", answer.body)))
    }
}

async fn available(client: &Client, sku: &str) -> Result<i64> {
    let answer = client.get(&format!("/api/products/{sku}")).await?.expect(200)?;
    answer.body["stock"]["available"]
        .as_i64()
        .ok_or_else(|| broken(format!("no stock: {}", answer.body)))
}

fn statuses(answer: &Answer) -> impl Iterator<Item = &str> {
    answer.body["orders"].as_array().into_iter().flatten().filter_map(|o| o["status"].as_str())
}

/// The URL with a database name that no other run has.
fn fresh(url: &str) -> String {
    let (base, parameters) = match url.split_once('?') {
        Some((base, parameters)) => (base, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let server = match base.splitn(4, '/').collect::<Vec<_>>()[..] {
        [scheme, empty, host, _name] => format!("{scheme}/{empty}/{host}"),
        _ => base.trim_end_matches('/').to_owned(),
    };
    format!("{server}/smoke_{}{parameters}", std::process::id())
}

/// Leaves nothing behind on the database server; a failure only leaves a database more.
async fn drop_databases(place: &services::Place) {
    for url in place.databases() {
        if let Err(error) = sqlx::Postgres::force_drop_database(&url).await {
            say(format_args!("  a database was left behind: {error}"));
        }
    }
}
