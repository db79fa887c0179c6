//! The pages of the book that are made from the code, so that they cannot fall behind it.
//!
//! Names, defaults and texts stand in the code already: doc comments of settings, help texts
//! of metrics, reasons of errors. This reads them out of the sources, and the defaults out of
//! the types themselves. A test compares the pages in `docs/src/reference` with what the
//! code says now; `cargo xtask docs --reference` writes them.
//!
//! It reads Rust as text. What it cannot read it does not leave out in silence: a setting
//! without a description, a settings type that no section shows, or a metric of a running
//! service that the page does not have fails a test.

mod commands;
mod configuration;
mod features;
mod metrics;
mod operations;
mod reasons;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use source::Source;

/// The repository: two folders above this package.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// Each generated page: its path below `docs/src`, and its text.
///
/// # Errors
/// If a source cannot be read, or says nothing where it should.
pub fn pages(root: &Path) -> io::Result<Vec<(&'static str, String)>> {
    let sources = Source::all(root)?;
    Ok(vec![
        ("reference/configuration.md", configuration::page(&sources)?),
        ("reference/metrics.md", metrics::page(&sources)),
        ("reference/errors.md", reasons::page(&sources)),
        ("reference/admin.md", operations::page(&sources)?),
        ("reference/commands.md", commands::page(root)?),
        ("reference/features.md", features::page(root)?),
    ])
}

/// Says at the end of a page where it comes from.
const FOOTER: &str = "\n<small>Made from the code by `cargo xtask docs --reference`.</small>\n";

/// What a source should say and does not.
fn missing(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// A text in a cell of a table: one line, and no HTML but what is code.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\n', " ");
    let parts = text.split('`').enumerate();
    let safe = |(at, part): (usize, &str)| {
        if at % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() }
    };
    parts.map(safe).collect::<Vec<_>>().join("`")
}
