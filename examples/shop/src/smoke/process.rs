//! The shop as a child process: started, asked to stop, killed, its log read.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use chassis::{Deadline, Error, Result};
use serde_json::Value;

use super::broken;
use crate::{cli::Options, services};

/// How long the shop may take to open.
const OPENS_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// A running shop; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    /// Address of the gateway.
    pub(super) gateway: String,
    /// Address of the gateway's admin port.
    pub(super) admin: String,
}

/// How the shop is started, again and again on the same data.
pub(super) struct Place {
    pub(super) data: PathBuf,
    pub(super) options: Options,
}

impl Place {
    pub(super) fn log(&self) -> PathBuf {
        self.data.join("shop.log")
    }

    /// The place as the services see it.
    pub(super) fn services(&self) -> services::Place {
        services::Place {
            data: self.files(),
            port: 0,
            database: self.options.database.clone(),
            broker: self.options.broker.clone(),
        }
    }

    fn files(&self) -> PathBuf {
        self.data.join("files")
    }

    /// Starts the shop and waits until it is open.
    pub(super) async fn start(&self) -> Result<Process> {
        let report = self.data.join("report.json");
        // A report of an earlier process would be taken for this one's.
        if report.exists() {
            std::fs::remove_file(&report).map_err(Error::internal)?;
        }
        let log =
            File::options().create(true).append(true).open(self.log()).map_err(Error::internal)?;
        let mut command = Command::new(std::env::current_exe().map_err(Error::internal)?);
        command.arg("--port=0").arg("--data").arg(self.files());
        command.arg("--report").arg(&report);
        if let Some(url) = &self.options.database {
            command.arg("--database").arg(url);
        }
        if let Some(url) = &self.options.broker {
            command.arg("--broker").arg(url);
        }
        let child = command
            .env("TELEMETRY__LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(Error::internal)?)
            .stderr(log)
            .spawn()
            .map_err(Error::internal)?;
        let mut process = Process { child, gateway: String::new(), admin: String::new() };

        let deadline = Deadline::after(OPENS_WITHIN);
        let report = loop {
            match std::fs::read(&report) {
                Ok(text) => {
                    break serde_json::from_slice::<Value>(&text).map_err(Error::internal)?;
                }
                Err(_) if deadline.is_expired() => {
                    return Err(broken(format!("the shop did not open within {OPENS_WITHIN:?}")));
                }
                Err(_) => {}
            }
            if let Some(status) = process.child.try_wait().map_err(Error::internal)? {
                return Err(broken(format!("the shop ended while starting: {status}")));
            }
            tokio::time::sleep(PAUSE).await;
        };
        let address = |protocol: &str| {
            report["services"]["gateway"][protocol].as_str().unwrap_or_default().to_owned()
        };
        (process.gateway, process.admin) = (address("http"), address("admin"));
        Ok(process)
    }
}

impl Process {
    /// Ends it as a power failure would: no signal handler, no drain.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill().map_err(Error::internal)?;
        self.child.wait().map_err(Error::internal)?;
        Ok(())
    }

    /// Asks it to stop, as an orchestrator does, and waits.
    pub(super) async fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().map_err(Error::internal)?;
        if !asked.success() {
            return Err(broken(format!("kill -TERM {pid} failed: {asked}")));
        }
        let deadline = Deadline::after(STOPS_WITHIN);
        loop {
            if let Some(status) = self.child.try_wait().map_err(Error::internal)? {
                return Ok(status);
            }
            if deadline.is_expired() {
                return Err(broken(format!("the shop did not stop within {STOPS_WITHIN:?}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
