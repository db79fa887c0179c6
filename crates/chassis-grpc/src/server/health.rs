//! `grpc.health.v1`, answered from the health of the process.
//!
//! The same registry as the admin port reads. A degraded process still serves: all of its
//! services, but for those that have said that they need the probe that fails.

use std::collections::BTreeMap;

use chassis_core::{Error, HealthReport, Result, Shutdown, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

/// The name that stands for the whole process.
const PROCESS: &str = "";

/// Keeps the health service up to date.
pub(super) struct Health {
    reporter: HealthReporter,
    /// Which probes each service needs, by its name.
    services: BTreeMap<String, Vec<String>>,
    /// What was said last: who watches is told of news only.
    said: BTreeMap<String, ServingStatus>,
}

impl Health {
    /// `names` can be asked for, and so can services that need probes, as `needs` says in pairs.
    ///
    /// # Errors
    /// `UNKNOWN_PROBE` if the process has no probe of such a name.
    pub(super) fn new(
        names: Vec<String>,
        needs: Vec<(String, String)>,
        process: &chassis_core::Health,
    ) -> Result<(Health, HealthServer<impl HealthApi>)> {
        let mut services = BTreeMap::from([(PROCESS.to_owned(), Vec::new())]);
        services.extend(names.into_iter().map(|name| (name, Vec::new())));
        let probes = process.report().checks;
        for (service, probe) in needs {
            if !probes.iter().any(|check| check.name == probe) {
                let known: Vec<_> = probes.iter().map(|check| &*check.name).collect();
                return Err(Error::failed_precondition(
                    "UNKNOWN_PROBE",
                    format!("`{service}` needs the probe `{probe}`, there are: {known:?}"),
                ));
            }
            services.entry(service).or_default().push(probe);
        }
        let (reporter, service) = health_reporter();
        Ok((Health { reporter, services, said: BTreeMap::new() }, service))
    }

    /// Reports until the shutdown is requested, then ends every watch: one that
    /// goes on would keep its connection from draining.
    pub(super) async fn follow(mut self, process: chassis_core::Health, shutdown: Shutdown) {
        let mut changes = process.changes();
        let report = async {
            loop {
                changes.borrow_and_update();
                let now = process.report();
                self.report(|needs| serving(&now, needs)).await;
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = report => {}
            () = shutdown.requested() => {}
        }
        self.report(|_| ServingStatus::NotServing).await;
        for name in self.services.keys() {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn report(&mut self, status: impl Fn(&[String]) -> ServingStatus) {
        for (name, needs) in &self.services {
            let status = status(needs);
            if self.said.insert(name.clone(), status) != Some(status) {
                self.reporter.set_service_status(name, status).await;
            }
        }
    }
}

fn serving(process: &HealthReport, needs: &[String]) -> ServingStatus {
    let fails = |name: &String| {
        process.checks.iter().any(|check| check.name == *name && check.ok == Some(false))
    };
    match process.status {
        Status::Up | Status::Degraded if !needs.iter().any(fails) => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}
