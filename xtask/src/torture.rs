//! `cargo xtask torture`: builds the service and its runner, and runs them.
//!
//! What it does stands in the package `chassis-tests`, `src/bin/torture`: it speaks to
//! servers, and this package shall build in seconds.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::process::{End, Runner};

/// Of the package, so that the service and the runner are in one folder.
const BUILD: [&str; 6] = ["build", "-p", "chassis-tests", "--features", "torture", "--bins"];
const RUN: [&str; 7] = ["run", "-p", "chassis-tests", "--features", "torture", "--bin", "torture"];

/// The commands of a run, as arguments of cargo.
#[must_use]
pub fn commands(options: &[&str]) -> [Vec<String>; 2] {
    let owned = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
    let run = [&RUN[..], &["--"], options].concat();
    [owned(&BUILD), owned(&run)]
}

/// Runs it with these options and gives its exit code, 130 if interrupted.
#[must_use]
pub fn run(root: &Path, options: &[&str]) -> ExitCode {
    let mut runner = match Runner::install() {
        Ok(runner) => runner,
        Err(error) => {
            eprintln!("xtask: cannot listen for Ctrl-C: {error}");
            return ExitCode::FAILURE;
        }
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for args in commands(options) {
        match runner.run(Command::new(&cargo).args(&args).current_dir(root)) {
            Ok(End::Exited(status)) if status.success() => {}
            Ok(End::Exited(status)) => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return ExitCode::from(code.unwrap_or(1));
            }
            Ok(End::Interrupted) => return ExitCode::from(130),
            Err(error) => {
                eprintln!("xtask: `cargo {}` does not start: {error}", args.join(" "));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
