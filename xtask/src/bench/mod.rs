//! `cargo xtask bench`: what it costs and how fast it is.
//!
//! Each set of figures is a program of its own, built for release, that measures every
//! figure beside its anchor in the same run: a number alone says more about the machine
//! than about the code. A figure that misses its aim is printed as it is and is no failure.

mod messaging;
mod resilience;
mod servers;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::process::{End, Runner};
use crate::test::Failure;
use crate::test::install::{self, Binary};
use crate::test::servers::{Servers, Use};

/// A set of figures.
struct Set {
    name: &'static str,
    needs_servers: bool,
    /// Programs that it measures with.
    programs: &'static [Binary],
    /// The commands that measure, given the options of the user.
    commands: fn(&Options, Option<&Servers>) -> Vec<Command>,
}

const SETS: &[Set] = &[
    Set { name: "messaging", needs_servers: true, programs: &[], commands: messaging::commands },
    Set { name: "resilience", needs_servers: false, programs: &[], commands: resilience::commands },
    Set {
        name: "servers",
        needs_servers: false,
        programs: &[Binary::VALGRIND, Binary::H2LOAD],
        commands: servers::commands,
    },
];

/// What the command line of `bench` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    set: String,
    json: bool,
    /// Leaves out what takes minutes to set up.
    quick: bool,
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
                "--quick" => options.quick = true,
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

    /// Whether one of these figures is asked for.
    fn wants(&self, figures: &[&str]) -> bool {
        let begins = |name: &String| figures.iter().any(|all| all.starts_with(name.as_str()));
        self.names.is_empty() || self.names.iter().any(begins)
    }

    /// As the programs that measure take them.
    fn args(&self) -> impl Iterator<Item = &str> {
        let flags = [self.json.then_some("--json"), self.quick.then_some("--quick")];
        flags.into_iter().flatten().chain(self.names.iter().map(String::as_str))
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
    install::ensure(set.programs, runner)?;
    let servers = match set.needs_servers {
        true => Some(Servers::obtain(runner, Use::Measure)?),
        false => None,
    };
    for mut command in (set.commands)(options, servers.as_ref()) {
        match runner.run(command.current_dir(root)) {
            Ok(End::Exited(status)) if status.success() => {}
            Ok(End::Exited(status)) => {
                return Err(Failure::Failed(format!("{}: {status}", set.name)));
            }
            Ok(End::Interrupted) => return Err(Failure::Interrupted),
            Err(error) => return Err(Failure::Failed(format!("cargo does not start: {error}"))),
        }
    }
    Ok(())
}

/// A cargo command that runs a program built for release, with the options of the user.
fn cargo(args: &[&str], options: &Options) -> Command {
    let mut command = crate::process::cargo();
    command.args(["run", "--quiet", "--release"]).args(args).arg("--").args(options.args());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let options = Options::parse(&["messaging", "--quick", "--json", "append_cost_1"]).unwrap();
        assert_eq!(options.args().collect::<Vec<_>>(), ["--json", "--quick", "append_cost_1"]);
        assert_eq!(Options::parse(&["messaging"]).unwrap().args().count(), 0);
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        let cases: [(&[&str], &str); 3] = [
            (&[], "needs one of: messaging, resilience, servers"),
            (&["weather"], "`weather`; there are: messaging, resilience, servers"),
            (&["messaging", "--fast"], "unknown option `--fast`"),
        ];
        for (args, expected) in cases {
            let problem = Options::parse(args).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
