//! Customers in the background: `shop load`, which places orders and follows each to its end.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::Runner;
use crate::test::{self, Failure};

/// How often it is looked whether a program has ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Longer than any scene: a load ends when it is told to.
const SECONDS: &str = "3600";

/// What a request that failed is to a load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Failures {
    /// A figure, as while the only instance of a service is down. What was accepted must end.
    Count,
    /// The end of the test. It is printed when it happens.
    Refuse,
}

/// Customers that order until they are told that it is enough.
pub(super) struct Load(Background);

/// A program in the background; killed when it is dropped.
pub(super) struct Background(Child);

impl Load {
    /// Sends customers to the gateway.
    pub(super) fn start(
        shop: &Path,
        gateway: &str,
        customers: usize,
        failures: Failures,
    ) -> Result<Load, Failure> {
        let mut command = Command::new(shop);
        command.args(["load", "--gateway", gateway, "--seconds", SECONDS]);
        command.args(["--customers", &customers.to_string()]);
        match failures {
            Failures::Count => command.arg("--faults"),
            // What is only looked at fails as well if it fails.
            Failures::Refuse => command.arg("--browse"),
        };
        Background::start(command.stdout(Stdio::piped())).map(Load)
    }

    /// Says that it is enough, waits until every order has ended, and gives its one line.
    pub(super) fn end(self, runner: &mut Runner) -> Result<String, Failure> {
        self.0.terminate();
        self.0.wait(runner)
    }
}

impl Background {
    /// Starts a program in a group of its own: Ctrl-C is for this one, which then ends that.
    pub(super) fn start(command: &mut Command) -> Result<Background, Failure> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        child.map(Background).map_err(test::failed("shop"))
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Already gone is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool, Failure> {
        self.0.try_wait().map(|status| status.is_some()).map_err(test::failed("shop"))
    }

    /// Waits for its end; gives what it printed, which is a line.
    pub(super) fn wait(mut self, runner: &mut Runner) -> Result<String, Failure> {
        while !self.has_ended()? {
            if runner.pause(PAUSE) {
                return Err(Failure::Interrupted);
            }
        }
        let status = self.0.wait().map_err(test::failed("shop"))?;
        let mut line = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_string(&mut line).map_err(test::failed("shop"))?;
        }
        let line = line.trim().to_owned();
        if status.success() {
            Ok(line)
        } else {
            Err(Failure::Failed(format!("`shop load`: {status}: {line}")))
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
