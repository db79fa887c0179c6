//! One copy of the service as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::Failure;

pub(crate) struct Copy {
    number: usize,
    /// How often it was started: a new life gets new numbers from the seed.
    lives: u64,
    seed: u64,
    rate: u32,
    program: PathBuf,
    log: PathBuf,
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Copy {
    pub(crate) fn new(
        number: usize,
        folder: &Path,
        seed: u64,
        rate: u32,
        variables: &[(&'static str, String)],
    ) -> Result<Copy, Failure> {
        // Built by the same command, into the same folder.
        let program = std::env::current_exe()?.with_file_name("torture_service");
        if !program.is_file() {
            let text = "the program `torture_service` is missing: start this by \
                        `cargo xtask torture`, which builds it";
            return Err(text.into());
        }
        let log = folder.join(format!("copy-{number}.log"));
        let variables = variables.to_vec();
        Ok(Copy { number, lives: 0, seed, rate, program, log, variables, child: None })
    }

    /// Where it says what happens.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, if it does not run.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        if self.child.is_some() {
            return Ok(());
        }
        self.lives += 1;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let number = u64::try_from(self.number)?;
        let seed = self.seed.wrapping_mul(1_000_003) ^ (number << 40) ^ (self.lives << 8);
        let child = Command::new(&self.program)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("ADMIN__PORT", "0")
            .env("LOAD__SEED", seed.to_string())
            .env("LOAD__RATE", self.rate.to_string())
            // It comes back in the next version, as in a roll-out.
            .env("SAGA_VERSION", if self.lives > 1 { "2" } else { "1" })
            .env("RUST_LOG", "warn")
            // Poison messages panic all the time.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// How it ended, if it has since the last look.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = self.child.as_ref().and_then(Child::id);
        if let Some(pid) = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Tells it something, if it runs.
    pub(crate) async fn tell(&mut self, line: &str) {
        if let Some(stdin) = self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            // Fails only if it has just died, which is seen elsewhere.
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
        }
    }

    /// No more work from now on, also after a start.
    pub(crate) async fn quiet(&mut self) {
        self.rate = 0;
        self.tell("rate 0").await;
    }
}
