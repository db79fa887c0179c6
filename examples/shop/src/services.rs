//! Which services there are, and how each is started in this process.
//!
//! The order is the order of their start: who is called starts before who calls. Stopping
//! is the reverse, so that the edge refuses first and the last order still finds everyone.

use std::{future::Future, path::PathBuf, time::Duration};

use chassis::{
    App, Deadline, Error, Result, Shutdown,
    core::{
        Listener, ServiceInfo, ShutdownTrigger, Status,
        config::{Loader, Settings},
        telemetry::Telemetry,
    },
};
use tokio::task::JoinHandle;

use crate::cli::ADMIN_OFFSET;

/// Time for one service to finish what it holds when the shop stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for all of them together; the last ones then have what the first ones left.
const DRAIN_ALL: Duration = Duration::from_secs(25);

/// Where everything is kept and found.
#[derive(Clone, Debug)]
pub struct Place {
    /// Folder of the databases and the broker.
    pub data: PathBuf,
    /// Port of the gateway; 0 takes free ports for everything.
    pub port: u16,
    /// A PostgreSQL URL, or SQLite files where there is none.
    pub database: Option<String>,
    /// A NATS URL, or the embedded broker where there is none.
    pub broker: Option<String>,
}

impl Place {
    /// The URL of a service's own database.
    fn database(&self, service: &str) -> String {
        match &self.database {
            // The service's name is added to the database's name, before any parameters.
            Some(url) => {
                let (base, parameters) = match url.split_once('?') {
                    Some((base, parameters)) => (base, format!("?{parameters}")),
                    None => (url.as_str(), String::new()),
                };
                let base = base.trim_end_matches('/');
                let joint = if base.matches('/').count() > 2 { '_' } else { '/' };
                format!("{base}{joint}{service}{parameters}")
            }
            None => format!("sqlite://{}/{service}.db?mode=rwc", self.data.display()),
        }
    }

    /// The URLs of all databases.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        let with_database = PARTS.iter().filter(|part| part.database);
        with_database.map(|part| self.database(part.name)).collect()
    }

    /// The ports that are given and not free ones, with whom each is for.
    pub fn ports(&self) -> impl Iterator<Item = (String, u16)> {
        let gateway = self.port;
        let admin = PARTS.iter().map(move |part| {
            (format!("the admin port of {}", part.name), gateway + ADMIN_OFFSET + part.index)
        });
        std::iter::once((GATEWAY.name.to_owned(), gateway))
            .chain(admin)
            .filter(move |_| gateway != 0)
    }

    /// The URL of the broker.
    #[must_use]
    pub fn broker(&self) -> String {
        match &self.broker {
            Some(url) => url.clone(),
            None => format!("embedded:{}/broker", self.data.display()),
        }
    }
}

/// What a service needs in this process beyond its defaults.
struct Part {
    name: &'static str,
    /// Its place among the admin ports.
    index: u16,
    database: bool,
    broker: bool,
    http: bool,
    grpc: bool,
}

const CATALOG: Part =
    Part { name: "catalog", index: 1, database: true, broker: false, http: true, grpc: true };
const INVENTORY: Part =
    Part { name: "inventory", index: 2, database: true, broker: false, http: false, grpc: true };
const PAYMENT: Part =
    Part { name: "payment", index: 3, database: true, broker: false, http: false, grpc: true };
const ORDERING: Part =
    Part { name: "ordering", index: 4, database: true, broker: true, http: true, grpc: true };
const SHIPPING: Part =
    Part { name: "shipping", index: 5, database: true, broker: true, http: false, grpc: false };
const NOTIFICATION: Part =
    Part { name: "notification", index: 6, database: true, broker: true, http: true, grpc: false };
const GATEWAY: Part =
    Part { name: "gateway", index: 0, database: false, broker: false, http: true, grpc: false };

const PARTS: [&Part; 7] =
    [&CATALOG, &INVENTORY, &PAYMENT, &ORDERING, &SHIPPING, &NOTIFICATION, &GATEWAY];

/// A running shop. [`Shop::stop`] stops it in order; dropping it tells all services to stop
/// at once and does not wait for them.
pub struct Shop {
    services: Vec<Running>,
}

/// A service that serves.
pub struct Running {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
}

impl Shop {
    /// Starts all services, one after the other; `progress` is told each one's name before
    /// it starts.
    ///
    /// Dropping the future leaves what has started to the end of the process.
    ///
    /// # Errors
    /// The first service that cannot start; what had started is drained.
    pub async fn start(
        place: &Place,
        telemetry: &Telemetry,
        mut progress: impl FnMut(&'static str),
    ) -> Result<Shop> {
        let mut shop = Shop { services: Vec::new() };
        macro_rules! start {
            ($part:expr, $service:ident) => {
                progress($part.name);
                match launch($part, place, telemetry, $service::assemble).await {
                    Ok(running) => shop.services.push(running),
                    Err(error) => {
                        shop.stop().await;
                        return Err(error);
                    }
                }
            };
        }
        start!(&CATALOG, shop_catalog);
        start!(&INVENTORY, shop_inventory);
        start!(&PAYMENT, shop_payment);
        start!(&ORDERING, shop_ordering);
        start!(&SHIPPING, shop_shipping);
        start!(&NOTIFICATION, shop_notification);
        start!(&GATEWAY, shop_gateway);
        Ok(shop)
    }

    /// What runs, in the order of the start.
    #[must_use]
    pub fn services(&self) -> &[Running] {
        &self.services
    }

    /// Waits until a service ends by itself. Dropping it loses nothing.
    ///
    /// # Errors
    /// Always: a service of the shop does not end by itself unless it failed.
    pub async fn failed(&mut self) -> Result<()> {
        let ended = std::future::poll_fn(|cx| {
            for (index, running) in self.services.iter_mut().enumerate() {
                if let std::task::Poll::Ready(joined) =
                    std::pin::Pin::new(&mut running.task).poll(cx)
                {
                    return std::task::Poll::Ready((index, joined));
                }
            }
            std::task::Poll::Pending
        });
        let (index, joined) = ended.await;
        let running = self.services.remove(index);
        Err(match joined {
            Ok(Ok(())) => Error::internal(format!("{} has ended", running.name)),
            Ok(Err(error)) => named(running.name, error),
            Err(lost) => Error::internal(lost),
        })
    }

    /// Drains and stops everything, the last started first.
    ///
    /// Dropping the future tells what has not stopped yet to stop and does not wait for it.
    pub async fn stop(mut self) {
        let all = Deadline::after(DRAIN_ALL);
        while let Some(running) = self.services.pop() {
            running.trigger.shutdown_by(Deadline::after(DRAIN).min(all));
            match running.task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(service = running.name, error = error.chain(), "stopped badly");
                }
                Err(lost) => tracing::error!(service = running.name, %lost, "stopped badly"),
            }
        }
    }
}

async fn launch<C, F, Fut>(
    part: &Part,
    place: &Place,
    telemetry: &Telemetry,
    assemble: F,
) -> Result<Running>
where
    C: Settings,
    F: FnOnce(App, C) -> Fut,
    Fut: Future<Output = Result<App>>,
{
    let loaded = loader(part, place).load::<C>().map_err(|error| {
        Error::invalid_argument("SHOP_SETTINGS", format!("{}: {error}", part.name))
    })?;
    if part.database && place.database.is_some() {
        chassis::data::create_database_if_missing(&place.database(part.name))
            .await
            .map_err(|error| named(part.name, error))?;
    }
    let env = telemetry.env(ServiceInfo::new(part.name, env!("CARGO_PKG_VERSION")));
    let base = chassis::base_app(&loaded.core, env.clone());
    let app = env
        .scope(assemble(base, loaded.settings))
        .await
        .map_err(|error| named(part.name, error))?;

    let (trigger, shutdown) = Shutdown::new();
    let mut task = tokio::spawn(app.run(shutdown));
    let mut status = env.health().watch();
    tokio::select! {
        up = status.wait_for(|status| *status != Status::Starting) => {
            up.map_err(Error::internal)?;
        }
        joined = &mut task => {
            let error = match joined {
                Ok(Ok(())) => Error::internal("it ended while starting"),
                Ok(Err(error)) => error,
                Err(lost) => Error::internal(lost),
            };
            return Err(named(part.name, error));
        }
    }
    Ok(Running { name: part.name, listeners: env.listeners(), trigger, task })
}

/// The settings that make a service part of this process; the rest are its defaults.
fn loader(part: &Part, place: &Place) -> Loader {
    let ports = |offset: u16| match place.port {
        0 => "0".to_owned(),
        port => (port + offset).to_string(),
    };
    let mut settings = vec![("admin.port", ports(ADMIN_OFFSET + part.index))];
    if part.database {
        settings.push(("database.url", place.database(part.name)));
    }
    if part.broker {
        settings.push(("broker.url", place.broker()));
    }
    // Only the gateway has a port that people know; the others are found by name.
    if part.http {
        let port = if part.name == GATEWAY.name { ports(0) } else { "0".to_owned() };
        settings.push(("http.port", port));
    }
    if part.grpc {
        settings.push(("grpc.port", "0".to_owned()));
    }
    settings
        .into_iter()
        .fold(Loader::new(), |loader, (key, value)| loader.set(key, value, "the shop"))
}

/// The same failure with the service's name in front.
fn named(service: &str, error: Error) -> Error {
    Error::new(error.code(), error.reason().to_owned(), format!("{service} cannot run"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(database: Option<&str>) -> Place {
        Place { data: "/x".into(), port: 0, database: database.map(str::to_owned), broker: None }
    }

    #[test]
    fn each_service_has_a_database_of_its_own() {
        for (given, expected) in [
            (None, "sqlite:///x/payment.db?mode=rwc"),
            (Some("postgres://u:p@h:1/shop"), "postgres://u:p@h:1/shop_payment"),
            (
                Some("postgres://u@h:1/shop?sslmode=disable"),
                "postgres://u@h:1/shop_payment?sslmode=disable",
            ),
            (Some("postgres://u@h:1"), "postgres://u@h:1/payment"),
            (Some("postgres://u@h:1/"), "postgres://u@h:1/payment"),
        ] {
            assert_eq!(place(given).database("payment"), expected);
        }
    }
}
