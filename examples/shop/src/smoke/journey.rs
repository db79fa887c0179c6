//! The steps, in the order in which a customer would take them.

use std::collections::BTreeSet;

use chassis::{Error, Result, core::TraceContext};
use futures_util::future::join_all;
use serde_json::Value;
use sqlx::migrate::MigrateDatabase;
use tokio::time::Instant;

use super::{
    broken,
    client::Client,
    customers::{self, available, place_order, statuses, told},
    journal::Journal,
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
    let trace = TraceContext::root(true);
    customers::visit(&mut journal, &client, &trace).await?;
    let pending = journal.step("kill -9 in the middle of sagas", kill(client, shop)).await?;
    let shop = journal.step("the shop opens again on the same data", place.start()).await?;
    let client = Client::new(&shop.gateway);
    journal.step("every saga that was cut ends, once", recovered(&client, &pending)).await?;
    journal.step("probes and metrics answer", admin(&shop)).await?;
    journal.step("SIGTERM drains, exit code 0", stop(shop)).await?;
    journal.step("one trace id in the logs of every service", traced(place, &trace)).await?;
    Ok(journal.count())
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
