//! Runs the shop until it is told to stop, and tells the person in front of it where it is.
//!
//! The table of addresses is for that person, whatever the log format. So is what can be found
//! wrong before anything runs (a port that is taken, a folder that cannot be written or is in
//! use): it is looked for first, and is one line then instead of a half-started shop.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use chassis::{
    Error, Result,
    core::{
        config::{Loader, TelemetryConfig},
        shutdown,
        telemetry::Telemetry,
    },
    messaging::{Broker, BrokerConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cli::Options,
    services::{Place, Shop},
    terminal::{complain, say},
};

/// Time for the whole shop to stop after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(30);

/// The shop's process has no settings of its own.
#[derive(Default, Serialize, Deserialize)]
struct NoneOfItsOwn {}

/// Runs the shop in this process until Ctrl-C or SIGTERM.
///
/// # Errors
/// What kept it from starting, or made it fail.
pub fn main(options: Options) -> Result<()> {
    let core = Loader::new()
        .env(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_telemetry)))
        .load::<NoneOfItsOwn>()
        .map_err(|error| Error::invalid_argument("SHOP_SETTINGS", error.to_string()))?
        .core;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::internal)?;
    runtime.block_on(run(options, core.telemetry))
}

/// In one process the services cannot each have the environment; the log is shared anyway.
fn is_telemetry(name: &str) -> bool {
    ["TELEMETRY__", "OTEL_", "RUST_LOG"].iter().any(|prefix| name.starts_with(prefix))
}

async fn run(options: Options, mut telemetry: TelemetryConfig) -> Result<()> {
    let started = Instant::now();
    if std::env::var_os("RUST_LOG").is_none() && telemetry.log_filter == "info" {
        // The libraries' own chatter is not what one wants to see here.
        "info,sqlx=warn,async_nats=warn".clone_into(&mut telemetry.log_filter);
    }
    let telemetry = Telemetry::install(&telemetry)?;
    let place = place(&options)?;
    place.ports().try_for_each(|(whose, port)| is_free(&whose, port))?;
    // Held as long as the shop runs: the services share it, and another process is refused.
    let broker = match place.broker {
        None => Some(Broker::connect(&BrokerConfig::at(place.broker())).await?),
        Some(_) => None,
    };
    let log = telemetry.log();
    let shutdown = shutdown::on_signal(DRAIN, move |signal| match signal {
        1 => say("\nStopping: what is in flight is finished first; Ctrl-C again ends at once."),
        _ => {
            complain("Ended at once.");
            log.flush();
        }
    })
    .map_err(Error::internal)?;

    say("Starting the shop");
    let starting = Shop::start(&place, &telemetry, |name| say(format_args!("  {name} …")));
    let mut shop = tokio::select! {
        shop = starting => shop?,
        () = shutdown.requested() => {
            say("The shop was told to stop before it was open.");
            return Ok(());
        }
    };
    telemetry.log().flush();
    say(table(&shop, &place, started.elapsed()));

    let reported = options.report.as_deref().map_or(Ok(()), |path| report(&shop, path));
    let outcome = match reported {
        Err(error) => Err(error),
        Ok(()) => tokio::select! {
            failed = shop.failed() => failed,
            () = shutdown.requested() => Ok(()),
        },
    };
    let begun = Instant::now();
    shop.stop().await;
    if let Some(broker) = broker {
        broker.close().await;
    }
    drop(telemetry); // the last lines and spans, before the last word
    if outcome.is_ok() {
        say(format_args!("The shop has stopped; nothing is in flight ({:.1?}).", begun.elapsed()));
    }
    outcome
}

fn place(options: &Options) -> Result<Place> {
    let data = options.data.clone().unwrap_or_else(|| "data".into());
    let unusable = |error: std::io::Error| {
        Error::failed_precondition(
            "DATA_FOLDER",
            format!("the data folder {} cannot be written; choose one with --data", data.display()),
        )
        .with_source(error)
    };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    let probe = data.join(".writable");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(unusable)?;
    let data = data.canonicalize().map_err(unusable)?;
    Ok(Place {
        data,
        port: options.port,
        database: options.database.clone(),
        broker: options.broker.clone(),
    })
}

/// Asks for the port and gives it back. Who takes it in between is found at the start.
fn is_free(whose: &str, port: u16) -> Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|error| {
        Error::failed_precondition(
            "PORT",
            format!(
                "port {port}, for {whose}, cannot be used; choose another one with --port, \
                 or free ones with --port 0"
            ),
        )
        .with_source(error)
    })
}

/// Addresses, what to try, and where the data is.
fn table(shop: &Shop, place: &Place, took: Duration) -> String {
    let mut text = format!("\nThe shop is open ({took:.1?}).\n\n");
    text += &format!("  {:<14}{:<26}{:<24}{}\n", "service", "http", "grpc", "admin");
    for service in shop.services() {
        let at = |protocol: &str, scheme: &str| {
            service
                .listeners
                .iter()
                .find(|listener| listener.protocol == protocol)
                .map_or("-".to_owned(), |listener| format!("{scheme}{}", listener.address))
        };
        text += &format!(
            "  {:<14}{:<26}{:<24}{}\n",
            service.name,
            at("http", "http://"),
            at("grpc", ""),
            at("admin", "http://")
        );
    }
    let gateway = address(shop, "gateway", "http");
    let admin = address(shop, "gateway", "admin");
    text += &format!(
        "
Try:
  curl {gateway}/api/products
  curl {gateway}/api/orders -H 'content-type: application/json' -H 'idempotency-key: first' \\
    -d '{{\"customer_id\":\"ada\",\"card_token\":\"tok_visa\",\"lines\":[{{\"sku\":\"espresso-cup\",\"quantity\":2}}]}}'
  curl {gateway}/api/customers/ada/notifications
  curl {admin}/readyz

Data: {}    Stop: Ctrl-C
",
        match &place.database {
            None => place.data.display().to_string(),
            Some(url) => format!(
                "{}, broker {}",
                chassis::Secret::new(url.as_str()).masked(),
                // Its URL may hold a password too.
                place.broker.as_deref().map_or("embedded".to_owned(), |url| {
                    chassis::Secret::new(url).masked()
                })
            ),
        }
    );
    text
}

fn address(shop: &Shop, service: &str, protocol: &str) -> String {
    shop.services()
        .iter()
        .filter(|running| running.name == service)
        .flat_map(|running| &running.listeners)
        .find(|listener| listener.protocol == protocol)
        .map_or_else(String::new, |listener| format!("http://{}", listener.address))
}

/// Writes the addresses where a script waits for them: all at once, by a rename.
fn report(shop: &Shop, path: &Path) -> Result<()> {
    let services: BTreeMap<_, _> = shop
        .services()
        .iter()
        .map(|service| {
            let listeners: BTreeMap<_, _> = service
                .listeners
                .iter()
                .map(|listener| (listener.protocol, listener.address.to_string()))
                .collect();
            (service.name, listeners)
        })
        .collect();
    let text = json!({ "pid": std::process::id(), "services": services }).to_string();
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path)).map_err(|error| {
        Error::failed_precondition(
            "REPORT_FILE",
            format!("the report {} cannot be written", path.display()),
        )
        .with_source(error)
    })
}
