//! The project's own commands, run as `cargo xtask <command>`.
//!
//! They are a program and not a shell script, so that they need nothing but
//! cargo and so that a test can call them: [`tidy::check`] is also an
//! integration test of the package `chassis-tests`.
//!
//! In reading order: [`tidy`] holds the rules of the house, [`mod@test`] runs every
//! check that the repository has, [`mod@bench`] measures, [`torture`] looks for what is lost
//! under faults, [`compose`] runs the shop in containers and breaks it, [`docs`] builds and
//! checks the book, [`scaffold`] makes a new service, and [`process`] starts and stops what
//! they need.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to the person who typed it"
)]

pub mod bench;
pub mod compose;
pub mod docs;
pub mod process;
pub mod scaffold;
pub mod test;
pub mod tidy;
pub mod torture;
