//! `cargo xtask test`: everything that the repository can check about itself.
//!
//! One command, so that a newcomer, a reviewer and a machine run the same thing.
//! The parts run one after the other and the first failure ends the run, with
//! its output as the last thing on the screen. Parts that need no server get no
//! server addresses: they prove that they need none.

pub(crate) mod install;
mod other_nats;
mod parts;
pub(crate) mod servers;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::process::{End, Runner};
pub(crate) use other_nats::install as recent_nats;
use parts::{PARTS, Part, Step};
pub(crate) use servers::failed;
use servers::{Servers, Use};

/// The exit code of a run that had to leave a part out.
const INCOMPLETE: u8 = 3;

/// What the command line of `test` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    list: bool,
    only: Vec<String>,
    without: Vec<String>,
}

impl Options {
    /// Reads the options after `test`.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            match arg {
                "--list" => options.list = true,
                "--only" | "--without" => {
                    let &name = args.next().ok_or(format!("`{arg}` needs the name of a part"))?;
                    if !PARTS.iter().any(|part| part.name == name) {
                        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
                        return Err(format!("no part `{name}`; there are: {}", names.join(", ")));
                    }
                    let names =
                        if arg == "--only" { &mut options.only } else { &mut options.without };
                    names.push(name.to_owned());
                }
                other => return Err(format!("unknown option `{other}` of `test`")),
            }
        }
        Ok(options)
    }

    fn selects(&self, part: &Part) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == part.name);
        (self.only.is_empty() || is_in(&self.only)) && !is_in(&self.without)
    }
}

/// Why a run stopped early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One line for the user.
    Failed(String),
    /// Something cannot be had here that a part needs: the part does not run, the
    /// others do. One line that names it.
    Missing(String),
    Interrupted,
}

/// Runs the selected parts and gives the exit code: 0, 1, 3 if all that ran
/// passed and a part could not run, or 130 if interrupted.
pub fn run(root: &Path, options: &Options) -> ExitCode {
    if options.list {
        for part in PARTS {
            println!("{:<18} {}", part.name, part.what);
        }
        return ExitCode::SUCCESS;
    }
    let mut runner = match Runner::install() {
        Ok(runner) => runner,
        Err(error) => {
            eprintln!("xtask: cannot listen for Ctrl-C: {error}");
            return ExitCode::FAILURE;
        }
    };
    let parts: Vec<&Part> = PARTS.iter().filter(|part| options.selects(part)).collect();
    let mut report = Report::default();
    let result = run_parts(root, &parts, &mut runner, &mut report);
    report.print(&parts);
    match result {
        Ok(()) if report.missing.is_empty() => {
            println!("all parts passed");
            ExitCode::SUCCESS
        }
        Ok(()) => {
            for (part, line) in &report.missing {
                println!("NOT RUN: `{part}`: {line}; to leave it out, say `--without {part}`");
            }
            println!("INCOMPLETE: the other parts passed");
            ExitCode::from(INCOMPLETE)
        }
        Err((part, Failure::Failed(line) | Failure::Missing(line))) => {
            println!("FAILED in `{part}`: {line}");
            ExitCode::FAILURE
        }
        Err((part, Failure::Interrupted)) => {
            println!("interrupted in `{part}`; everything that was started is stopped");
            ExitCode::from(130)
        }
    }
}

fn run_parts(
    root: &Path,
    parts: &[&Part],
    runner: &mut Runner,
    report: &mut Report,
) -> Result<(), (&'static str, Failure)> {
    // The servers come first: what is missing shows in seconds, not after the build.
    let mut servers = None;
    if parts.iter().any(|part| part.needs_servers) {
        println!("==> servers: PostgreSQL and NATS");
        let obtained = report.time("set-up", || Servers::obtain(runner, Use::Test));
        servers = Some(obtained.map_err(|failure| ("set-up", failure))?);
    }
    for (index, part) in parts.iter().enumerate() {
        println!("\n==> [{}/{}] {}: {}", index + 1, parts.len(), part.name, part.what);
        let steps = (part.steps)(root, servers.as_ref());
        let ran = report.time(part.name, || {
            steps.into_iter().try_for_each(|step| run_step(step, root, servers.as_ref(), runner))
        });
        match ran {
            Ok(()) => {}
            Err(Failure::Missing(line)) => report.missing.push((part.name, line)),
            Err(failure) => return Err((part.name, failure)),
        }
    }
    Ok(())
}

fn run_step(
    step: Step,
    root: &Path,
    servers: Option<&Servers>,
    runner: &mut Runner,
) -> Result<(), Failure> {
    match step {
        Step::OtherNats => other_nats::run(root, servers, runner),
        Step::Compose => crate::compose::part(root, runner),
        Step::Tidy => match crate::tidy::report(root) {
            ExitCode::SUCCESS => Ok(()),
            _ => Err(Failure::Failed("a rule of the house is broken, see above".to_owned())),
        },
        Step::Command { shown, mut command } => {
            println!("    $ {shown}");
            match runner.run(command.current_dir(root)) {
                Ok(End::Exited(status)) if status.success() => Ok(()),
                Ok(End::Exited(status)) => Err(Failure::Failed(format!("`{shown}`: {status}"))),
                Ok(End::Interrupted) => Err(Failure::Interrupted),
                Err(error) => Err(Failure::Failed(format!("`{shown}` does not start: {error}"))),
            }
        }
    }
}

/// How each part went, for the table at the end.
#[derive(Default)]
struct Report {
    rows: Vec<(&'static str, &'static str, Duration)>,
    /// Parts that could not run, and why.
    missing: Vec<(&'static str, String)>,
}

impl Report {
    #[expect(
        clippy::disallowed_methods,
        reason = "the time that a person waited; no test pauses this clock"
    )]
    fn time<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = std::time::Instant::now();
        let result = work();
        let took = start.elapsed();
        let verdict = match &result {
            Ok(_) => "ok",
            Err(Failure::Missing(_)) => "NOT RUN",
            Err(_) => "FAILED",
        };
        println!("<== {name}: {verdict} in {:.1} s", took.as_secs_f64());
        self.rows.push((name, verdict, took));
        result
    }

    fn print(&self, parts: &[&Part]) {
        let total: Duration = self.rows.iter().map(|(_, _, took)| *took).sum();
        println!("\n{:<18} {:<8} {:>9}", "part", "result", "time");
        for (name, verdict, took) in &self.rows {
            println!("{name:<18} {verdict:<8} {:>7.1} s", took.as_secs_f64());
        }
        for part in parts.iter().filter(|part| self.rows.iter().all(|row| row.0 != part.name)) {
            println!("{:<18} {:<8} {:>9}", part.name, "not run", "-");
        }
        println!("{:<18} {:<8} {:>7.1} s", "total", "", total.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        assert_eq!(Options::parse(&[]), Ok(Options::default()));
        let only = Options::parse(&["--only", "tidy", "--only", "test"]).unwrap();
        let selected: Vec<_> = PARTS.iter().filter(|p| only.selects(p)).map(|p| p.name).collect();
        assert_eq!(selected, ["tidy", "test"]);
        assert!(Options::parse(&["--list"]).unwrap().list);
        let without = Options::parse(&["--without", "servers-nats-2.15"]).unwrap();
        let left_out: Vec<_> =
            PARTS.iter().filter(|p| !without.selects(p)).map(|p| p.name).collect();
        assert_eq!(left_out, ["servers-nats-2.15"]);
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        let cases: [(&[&str], &str); 3] = [
            (&["--only"], "needs the name"),
            (&["--only", "nothing"], "there are: tidy, build"),
            (&["--fast"], "unknown option `--fast`"),
        ];
        for (args, expected) in cases {
            let problem = Options::parse(args).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
