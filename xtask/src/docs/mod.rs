//! `cargo xtask docs`: builds the book, shows it, and checks that it holds together.
//!
//! A page that nobody opened after the last change is wrong somewhere. So `--check` reads the
//! built site as a visitor's browser would: every link and anchor leads somewhere, every
//! page is in the table of contents, every picture is there, and where a browser can be had
//! it opens every page and must not complain.

mod browser;
mod html;
mod links;
mod mdbook;
mod reference;
mod site;
mod summary;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::process::{End, Runner};
use crate::test::Failure;
use site::Site;

/// What the command line of `docs` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Check the built book.
    check: bool,
    /// Show it, and build it again when a source changes.
    serve: bool,
    /// Write the generated pages first.
    reference: bool,
}

impl Options {
    /// Reads the options after `docs`.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        for &arg in args {
            match arg {
                "--check" => options.check = true,
                "--serve" => options.serve = true,
                "--reference" => options.reference = true,
                other => return Err(format!("unknown option `{other}` of `docs`")),
            }
        }
        Ok(options)
    }
}

/// Runs the command and gives the exit code: 0, 1, or 130 if interrupted.
pub fn run(root: &Path, options: Options) -> ExitCode {
    let result = Runner::install()
        .map_err(|error| failed(format!("cannot listen for Ctrl-C: {error}")))
        .and_then(|mut runner| run_with(root, options, &mut runner));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(line) | Failure::Missing(line)) => {
            eprintln!("docs: {line}");
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => ExitCode::from(130),
    }
}

fn run_with(root: &Path, options: Options, runner: &mut Runner) -> Result<(), Failure> {
    if options.reference {
        reference::write(root, runner)?;
    }
    let program = mdbook::obtain(root, runner)?;
    build(root, &program, runner)?;
    let book = book(root);
    println!("docs: built {}", book.join("index.html").display());
    if options.check {
        check(root, runner)?;
    }
    if options.serve {
        return serve(root, &program, runner);
    }
    Ok(())
}

/// A failure in one line for the user.
fn failed(line: impl Into<String>) -> Failure {
    Failure::Failed(line.into())
}

/// Where the built book lies.
fn book(root: &Path) -> PathBuf {
    root.join("target/book")
}

fn build(root: &Path, program: &Path, runner: &mut Runner) -> Result<(), Failure> {
    let mut command = Command::new(program);
    // Only what went wrong; that a book was built, this command says itself.
    command.arg("build").arg(root.join("docs")).arg("-d").arg(book(root));
    command.env("MDBOOK_LOG", "warn").env_remove("RUST_LOG");
    run_command(&mut command, runner)
}

/// Runs a command to its end, its output on the screen.
fn run_command(command: &mut Command, runner: &mut Runner) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    match runner.run(command) {
        Ok(End::Exited(status)) if status.success() => Ok(()),
        Ok(End::Exited(status)) => Err(failed(format!("{name}: {status}"))),
        Ok(End::Interrupted) => Err(Failure::Interrupted),
        Err(error) => Err(failed(format!("{name} does not start: {error}"))),
    }
}

fn check(root: &Path, runner: &mut Runner) -> Result<(), Failure> {
    let site =
        Site::read(&book(root)).map_err(|error| failed(format!("the built book: {error}")))?;
    let mut problems = summary::check(&root.join("docs/src"));
    problems.extend(links::check(&site));
    println!("docs: {} pages, {} links and anchors checked", site.pages.len(), site.references());
    if problems.is_empty() {
        problems = browser::check(&book(root), &site, runner)?;
    }
    for problem in &problems {
        println!("docs: {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(failed("1 problem")),
        n => Err(failed(format!("{n} problems"))),
    }
}

fn serve(root: &Path, program: &Path, runner: &mut Runner) -> Result<(), Failure> {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(500);
    let server = site::serve(&book(root), 3000, None)
        .or_else(|_| site::serve(&book(root), 0, None))
        .map_err(|error| failed(format!("cannot listen: {error}")))?;
    println!("docs: http://{}/ shows the book; Ctrl-C ends it", server.address);
    let mut built = summary::newest(&root.join("docs"));
    while !runner.pause(LOOK) {
        let now = summary::newest(&root.join("docs"));
        if now > built {
            built = now;
            match build(root, program, runner) {
                Ok(()) => println!("docs: built again"),
                Err(Failure::Failed(line) | Failure::Missing(line)) => eprintln!("docs: {line}"),
                Err(Failure::Interrupted) => break,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        assert_eq!(Options::parse(&[]), Ok(Options::default()));
        let both = Options { check: true, reference: true, ..Options::default() };
        assert_eq!(Options::parse(&["--reference", "--check"]), Ok(both));
        assert!(Options::parse(&["--fast"]).is_err_and(|problem| problem.contains("`--fast`")));
    }
}
