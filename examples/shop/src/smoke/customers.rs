//! What customers do, against the gateway of whichever shop.
//!
//! Each step brings customers and keys of its own run, so that it holds on a shop that has
//! served others before.

use bytes::Bytes;
use chassis::{Result, core::TraceContext};
use http::Method;
use serde_json::{Value, json};

use super::{
    broken,
    client::{Answer, Client},
    journal::Journal,
};

/// The journey of customers, one step after the other.
pub(super) async fn visit(
    journal: &mut Journal,
    client: &Client,
    trace: &TraceContext,
) -> Result<()> {
    journal.step("products are listed, with stock", products(client)).await?;
    journal.step("an order is confirmed, shipped and told of", order(client, trace)).await?;
    journal.step("a declined card cancels and gives the stock back", declined(client)).await?;
    journal.step("missing stock cancels", out_of_stock(client)).await?;
    journal.step("the same idempotency key twice is one order", idempotent(client)).await?;
    journal.step("wrong requests get problem+json", problems(client)).await
}

async fn products(client: &Client) -> Result<()> {
    let answer = client.get("/api/products").await?.expect(200)?;
    let count = answer.body["products"].as_array().map_or(0, Vec::len);
    if count < 7 {
        return Err(broken(format!("expected all products: {}", answer.body)));
    }
    if available(client, "espresso-cup").await? < 10 {
        return Err(broken("the catalogue is seeded with stock"));
    }
    Ok(())
}

async fn order(client: &Client, trace: &TraceContext) -> Result<()> {
    let customer = &*client.own("ada");
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
    let id = place_order(client, &client.own("bob"), "tok_declined", "latte-glass", 3, &[]).await?;
    let cancelled = ended(client, &id, "cancelled").await?;
    reason(&cancelled, "CARD_DECLINED")?;
    let after = available(client, "latte-glass").await?;
    if before != after {
        return Err(broken(format!("stock was {before} and is {after}")));
    }
    told(client, &client.own("bob"), &id, &["order-cancelled"]).await
}

async fn out_of_stock(client: &Client) -> Result<()> {
    let id = place_order(client, &client.own("carl"), "tok_visa", "sold-out-mug", 1, &[]).await?;
    reason(&ended(client, &id, "cancelled").await?, "OUT_OF_STOCK")
}

async fn idempotent(client: &Client) -> Result<()> {
    let (dora, key) = (client.own("dora"), client.own("the-same"));
    let body = order_body(&dora, "tok_visa", "moka-pot", 1);
    let key = [("idempotency-key", &*key)];
    let first = client.post("/api/orders", &key, &body).await?.expect(202)?;
    let second = client.post("/api/orders", &key, &body).await?.expect(202)?;
    if first.body["id"] != second.body["id"] {
        return Err(broken(format!("two orders: {} and {}", first.body, second.body)));
    }
    let other = order_body(&dora, "tok_visa", "moka-pot", 2);
    let refused = client.post("/api/orders", &key, &other).await?;
    refused.expect_problem(409, "IDEMPOTENCY_KEY_REUSED")?;
    let id = first.body["id"].as_str().unwrap_or_default();
    ended(client, id, "shipped").await?;
    let orders = client.get(&format!("/api/orders?customer_id={dora}")).await?.expect(200)?;
    match orders.body["orders"].as_array().map(Vec::len) {
        Some(1) => Ok(()),
        _ => Err(broken(format!("expected one order: {}", orders.body))),
    }
}

async fn problems(client: &Client) -> Result<()> {
    let unknown = order_body(&client.own("eve"), "tok_visa", "no-such-thing", 1);
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

pub(crate) fn order_body(customer: &str, card: &str, sku: &str, quantity: u32) -> Value {
    json!({
        "customer_id": customer,
        "card_token": card,
        "lines": [{ "sku": sku, "quantity": quantity }],
    })
}

pub(super) async fn place_order(
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
pub(crate) async fn ended(client: &Client, id: &str, status: &str) -> Result<Answer> {
    let answer = end(client, id, status).await?;
    if answer.body["order"]["status"] == status {
        Ok(answer)
    } else {
        Err(broken(format!("expected {status}: {}", answer.body)))
    }
}

/// Waits until the order has come to an end, whether or not it is the one that is hoped for.
pub(crate) async fn end(client: &Client, id: &str, hoped: &str) -> Result<Answer> {
    let ends = ["shipped", "cancelled"];
    let what = format!("order {id} to be {hoped}");
    client
        .until(&what, &format!("/api/orders/{id}"), |answer| {
            ends.iter().any(|end| answer.body["order"]["status"] == *end)
        })
        .await
}

fn reason(answer: &Answer, reason: &str) -> Result<()> {
    if answer.body["order"]["reason"] == reason {
        Ok(())
    } else {
        Err(broken(format!("expected reason {reason}: {}", answer.body)))
    }
}

/// Waits until the customer was told each kind of news of an order, and exactly once.
pub(crate) async fn told(
    client: &Client,
    customer: &str,
    order: &str,
    kinds: &[&str],
) -> Result<()> {
    // Of this order alone: of many orders the news of one may stand beyond the page.
    let path = format!("/api/customers/{customer}/notifications?order_id={order}");
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

pub(super) async fn available(client: &Client, sku: &str) -> Result<i64> {
    let answer = client.get(&format!("/api/products/{sku}")).await?.expect(200)?;
    answer.body["stock"]["available"]
        .as_i64()
        .ok_or_else(|| broken(format!("no stock: {}", answer.body)))
}

pub(super) fn statuses(answer: &Answer) -> impl Iterator<Item = &str> {
    answer.body["orders"].as_array().into_iter().flatten().filter_map(|o| o["status"].as_str())
}
