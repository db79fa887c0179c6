//! `cargo xtask bench`: what it costs and how fast it is.
//!
//! Each set of figures is a program of its own, built for release, that measures every
//! figure beside its anchor in the same run: a number alone says more about the machine
//! than about the code. A figure that misses its aim is printed as it is and is no failure.

mod messaging;
mod resilience;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::process::{End, Runner};
use crate::test::Failure;
use crate::test::servers::{Servers, Use};

/// A set of figures.
struct Set {
    name: &'static str,
    needs_servers: bool,
    /// The command that measures, given the options of the user.
    command: fn(&Options, Option<&Servers>) -> Command,
}

const SETS: &[Set] = &[
    Set { name: "messaging", needs_servers: true, command: messaging::command },
    Set { name: "resilience", needs_servers: false, command: resilience::command },
];

/// What the command line of `bench` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    set: String,
    json: bool,
    /// Beginnings of the names of figures; all where it is empty.
    names: Vec<String>,
}

impl Options {
    /// Reads the options after `bench`.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let sets = || SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        let mut options = Self::default();
        for &arg in args {
            match arg {
                "--json" => options.json = true,
                option if option.starts_with('-') => {
                    return Err(format!("unknown option `{option}` of `bench`"));
                }
                set if options.set.is_empty() => set.clone_into(&mut options.set),
                name => options.names.push(name.to_owned()),
            }
        }
        match options.set.as_str() {
            "" => Err(format!("`bench` needs one of: {}", sets())),
            set if SETS.iter().any(|known| known.name == set) => Ok(options),
            set => Err(format!("nothing to measure is called `{set}`; there are: {}", sets())),
        }
    }

    /// As the programs that measure take them.
    fn args(&self) -> impl Iterator<Item = &str> {
        let json = self.json.then_some("--json");
        json.into_iter().chain(self.names.iter().map(String::as_str))
    }
}

/// Measures and gives the exit code: 0, 1, or 130 if interrupted.
pub fn run(root: &Path, options: &Options) -> ExitCode {
    let mut runner = match Runner::install() {
        Ok(runner) => runner,
        Err(error) => {
            eprintln!("xtask: cannot listen for Ctrl-C: {error}");
            return ExitCode::FAILURE;
        }
    };
    let measured = SETS
        .iter()
        .filter(|set| set.name == options.set)
        .try_for_each(|set| measure(set, root, options, &mut runner));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(line) | Failure::Missing(line)) => {
            eprintln!("xtask: {line}");
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => ExitCode::from(130),
    }
}

fn measure(set: &Set, root: &Path, options: &Options, runner: &mut Runner) -> Result<(), Failure> {
    let servers = match set.needs_servers {
        true => Some(Servers::obtain(runner, Use::Measure)?),
        false => None,
    };
    let mut command = (set.command)(options, servers.as_ref());
    match runner.run(command.current_dir(root)) {
        Ok(End::Exited(status)) if status.success() => Ok(()),
        Ok(End::Exited(status)) => Err(Failure::Failed(format!("{}: {status}", set.name))),
        Ok(End::Interrupted) => Err(Failure::Interrupted),
        Err(error) => Err(Failure::Failed(format!("cargo does not start: {error}"))),
    }
}

/// A cargo command that runs a program built for release, with the options of the user.
fn cargo(args: &[&str], options: &Options) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(["run", "--quiet", "--release"]).args(args).arg("--").args(options.args());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let options = Options::parse(&["messaging", "--json", "append_cost_1"]).unwrap();
        assert_eq!(options.args().collect::<Vec<_>>(), ["--json", "append_cost_1"]);
        assert_eq!(Options::parse(&["messaging"]).unwrap().args().count(), 0);
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        let cases: [(&[&str], &str); 3] = [
            (&[], "needs one of: messaging, resilience"),
            (&["weather"], "`weather`; there are: messaging, resilience"),
            (&["messaging", "--fast"], "unknown option `--fast`"),
        ];
        for (args, expected) in cases {
            let problem = Options::parse(args).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
