//! Words for the person who typed the command.
//!
//! `println!` panics where nobody reads any more; a shop that lost its terminal, or whose
//! output is piped into `head`, goes on.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Writes a line to standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes a line to standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
