//! `grpc.health.v1`, answered from the health of the process.
//!
//! The same registry as the admin port reads. A degraded process still serves.
//! Each service of the process has the health of the process: a dependency that
//! only one of them needs is not known here.

use chassis_core::{Shutdown, Status};
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

/// The name that stands for the whole process.
const PROCESS: &str = "";

/// Keeps the health service up to date.
pub(super) struct Health {
    reporter: HealthReporter,
    names: Vec<String>,
}

impl Health {
    /// `services` can be asked for by name.
    pub(super) fn new(services: Vec<String>) -> (Health, HealthServer<impl HealthApi>) {
        let (reporter, service) = health_reporter();
        let mut names = services;
        names.push(PROCESS.to_owned());
        (Health { reporter, names }, service)
    }

    /// Reports until the shutdown is requested, then ends every watch: one that
    /// goes on would keep its connection from draining.
    pub(super) async fn follow(mut self, mut status: watch::Receiver<Status>, shutdown: Shutdown) {
        let report = async {
            loop {
                let now = serving(*status.borrow_and_update());
                self.report(now).await;
                if status.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = report => {}
            () = shutdown.requested() => {}
        }
        self.report(ServingStatus::NotServing).await;
        for name in std::mem::take(&mut self.names) {
            self.reporter.clear_service_status(&name).await;
        }
    }

    async fn report(&self, status: ServingStatus) {
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

fn serving(status: Status) -> ServingStatus {
    match status {
        Status::Up | Status::Degraded => ServingStatus::Serving,
        Status::Starting | Status::Down | Status::Draining => ServingStatus::NotServing,
    }
}
