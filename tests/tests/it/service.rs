//! A service inside the test's own process: an app that runs until it is told to stop.

use std::{net::SocketAddr, time::Duration};

use chassis::{
    App, Env, Result, Shutdown,
    core::{ShutdownTrigger, Status},
    data::{DatabaseConfig, Db},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::hello::SOON;

/// An app that serves.
pub(crate) struct Service {
    pub(crate) env: Env,
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
}

impl Service {
    /// Runs an app and waits until it is up.
    pub(crate) async fn start(app: App) -> Service {
        let env = app.env().clone();
        let (trigger, shutdown) = Shutdown::new();
        let mut task = tokio::spawn(app.run(shutdown));
        let mut status = env.health().watch();
        let up = status.wait_for(|status| *status == Status::Up);
        tokio::select! {
            up = tokio::time::timeout(SOON, up) => {
                up.expect("it should be up").unwrap();
            }
            ended = &mut task => panic!("it ended while starting: {ended:?}"),
        }
        Service { env, trigger, task }
    }

    /// Where it listens.
    pub(crate) fn address(&self, protocol: &str) -> SocketAddr {
        let listeners = self.env.listeners();
        let listener = listeners.iter().find(|listener| listener.protocol == protocol);
        listener.unwrap_or_else(|| panic!("nobody speaks {protocol}: {listeners:?}")).address
    }

    /// Tells it to stop.
    pub(crate) fn begin_stop(&self, drain: Duration) {
        self.trigger.shutdown(drain);
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> Result<()> {
        tokio::time::timeout(SOON, self.task).await.expect("it should have ended").unwrap()
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.begin_stop(SOON);
        self.ended().await.unwrap();
    }
}

/// HTTP settings with a free port.
pub(crate) fn http() -> chassis::http::ServerConfig {
    chassis::http::ServerConfig { port: 0, ..Default::default() }
}

/// gRPC settings with a free port.
pub(crate) fn grpc() -> chassis::grpc::ServerConfig {
    chassis::grpc::ServerConfig { port: 0, ..Default::default() }
}

/// An empty SQLite database of this name.
pub(crate) async fn database(folder: &TempDir, name: &str) -> Db {
    let path = folder.path().join(name);
    let config = DatabaseConfig::url(format!("sqlite://{}.db?mode=rwc", path.display()));
    Db::connect(&config).await.unwrap()
}
