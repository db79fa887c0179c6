//! `cargo xtask`: reads the command line and hands over to the library.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to the person who typed it"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use xtask::{bench, compose, docs, scaffold, test, tidy, torture};

const HELP: &str = "\
The project's own commands.

Usage: cargo xtask <command> [options]

Commands:
  tidy                 check the rules of the house: floors, nouns, versions, file headers
  test                 set everything up and pass all tests
    --list             name the parts of `test` and what each runs
    --only <part>      run this part only; may be given more than once
    --without <part>   leave this part out; may be given more than once
  bench <what>         measure, each figure beside its limit in the same run: messaging
    --json             a line of JSON for each figure, in place of a table
    <name> …           only the figures whose names begin so
  torture              run a service under faults, and let an auditor look for what was lost
    --minutes <n>      how long (2)
    --seed <n>         where load and faults come from (1)
    --copies <n>       copies of the service on one PostgreSQL and one JetStream (3)
    --rate <n>         transactions a second, of each copy (20)
    --sqlite           one copy on SQLite and the embedded broker
    --within <n>       seconds in which all work must be done after the faults (30)
  compose-test         run the shop's compose file on this machine's Docker engine, and break it
    --release          with optimised services, for the figures; a build of minutes
  docs                 build the book into target/book
    --serve            show it, and build it again when a source changes
    --check            check links, anchors and pictures, and open every page in a browser
    --reference        write the pages that are made from the code, first
  new <name>           make a service in ./<name> that uses the crates of this repository
    --path <dir>       make it there instead

Options:
  -h, --help           this text

Servers: `bench messaging` and parts of `test` need PostgreSQL and NATS. DATABASE_URL and NATS_URL are
used if given. Otherwise `postgres` and `nats-server` are started on free ports
in a temporary folder and stopped at the end. On Debian, root installs what is
missing; elsewhere one line says what to install.

Exit code: 0 all well, 1 something failed, 64 a wrong command line, 130 interrupted.";

/// Wrong command line, as in sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => usage("no command given"),
        ["-h" | "--help" | "help", ..] | [_, "-h" | "--help"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        ["tidy"] => tidy::report(&root()),
        ["test", options @ ..] => match test::Options::parse(options) {
            Ok(options) => test::run(&root(), &options),
            Err(problem) => usage(&problem),
        },
        ["bench", options @ ..] => match bench::Options::parse(options) {
            Ok(options) => bench::run(&root(), &options),
            Err(problem) => usage(&problem),
        },
        ["torture", options @ ..] => torture::run(&root(), options),
        ["compose-test", options @ ..] => match compose::Options::parse(options) {
            Ok(options) => compose::run(&root(), options),
            Err(problem) => usage(&problem),
        },
        ["docs", options @ ..] => match docs::Options::parse(options) {
            Ok(options) => docs::run(&root(), options),
            Err(problem) => usage(&problem),
        },
        ["new", options @ ..] => match scaffold::Options::parse(options) {
            Ok(options) => scaffold::run(&root(), &options),
            Err(problem) => usage(&problem),
        },
        ["tidy", other, ..] => usage(&format!("unknown option `{other}` of `tidy`")),
        [other, ..] => usage(&format!("unknown command `{other}`")),
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}; see `cargo xtask --help`");
    ExitCode::from(USAGE)
}

/// The repository: the folder above this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
