//! Where a database is, from its URL.
//!
//! A SQLite URL is made absolute here, its folder is created, and a missing `mode` becomes
//! `rwc`, so that a fresh checkout starts without a step before it. A URL is never shown:
//! it may hold a password. What is shown is [`Location::name`].

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use chassis_core::{Error, Result};
use sqlx::{ConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::Dialect;

/// A database, found but not opened.
#[derive(Clone)]
pub(crate) struct Location {
    pub(crate) dialect: Dialect,
    /// What sqlx opens.
    pub(crate) url: String,
    /// What a person may read: no password.
    pub(crate) name: String,
    /// The SQLite file.
    pub(crate) file: Option<PathBuf>,
    pub(crate) read_only: bool,
}

impl Location {
    /// Reads a URL; for SQLite creates the folder that the file goes into. Blocks on the disk.
    pub(crate) fn prepare(url: &str) -> Result<Location> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => sqlite(url),
            Some("postgres" | "postgresql") => postgres(url),
            _ if url.is_empty() => Err(invalid("the database URL is empty")),
            _ => Err(invalid("the database URL begins with neither sqlite:// nor postgres://")),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn postgres(url: &str) -> Result<Location> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| invalid("the PostgreSQL URL cannot be read").with_source(error))?;
    let name = format!(
        "PostgreSQL database \"{}\" at {}:{}",
        options.get_database().unwrap_or(options.get_username()),
        options.get_host(),
        options.get_port(),
    );
    let dialect = Dialect::Postgres;
    Ok(Location { dialect, url: url.to_owned(), name, file: None, read_only: false })
}

fn sqlite(url: &str) -> Result<Location> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("mode="));
    if url.contains(":memory:") || mode == Some("memory") {
        // Each connection would have a database of its own.
        return Err(invalid(
            "an in-memory SQLite database cannot be shared by a pool: name a file",
        ));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| invalid("the SQLite URL cannot be read").with_source(error))?;
    let read_only = mode == Some("ro");
    let create = mode.is_none_or(|mode| mode == "rwc");
    let file = absolute(options.get_filename(), create)?;
    let options = options.filename(&file).create_if_missing(create);
    let name = format!("SQLite file {}", file.display());
    let url = options.to_url_lossy().to_string();
    Ok(Location { dialect: Dialect::Sqlite, url, name, file: Some(file), read_only })
}

/// The path from the root, through a folder that exists.
fn absolute(path: &Path, create: bool) -> Result<PathBuf> {
    let (Some(name), Ok(path)) = (path.file_name(), std::path::absolute(path)) else {
        return Err(invalid("the SQLite URL names no file"));
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let ready = if create { std::fs::create_dir_all(folder) } else { Ok(()) };
    match ready.and_then(|()| folder.canonicalize()) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) => Err(unusable(&format!("folder {}", folder.display())).with_source(error)),
    }
}

fn invalid(message: &'static str) -> Error {
    Error::invalid_argument("DATABASE_URL_INVALID", message).with_field(
        "database.url",
        "expected sqlite://<file> or postgres://<user>@<host>/<database>",
    )
}

/// The place for a SQLite file cannot be used.
pub(crate) fn unusable(what: &str) -> Error {
    Error::failed_precondition(
        "DATABASE_UNWRITABLE",
        format!(
            "the {what} cannot be created or written: \
             give this user the right to, or name another file with DATABASE_URL=sqlite://<file>"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_url_creates_its_folder_and_is_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/deep dir/a.db");
        let location = Location::prepare(&format!("sqlite://{}", path.display())).unwrap();
        assert_eq!(location.dialect, Dialect::Sqlite);
        let file = location.file.unwrap();
        assert!(file.parent().unwrap().is_dir());
        assert!(file.ends_with("new/deep dir/a.db"));
        assert!(location.url.contains("mode=rwc"), "{}", location.url);
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        let location = Location::prepare("postgres://joe:hunter2@db:5433/items").unwrap();
        assert_eq!(location.name, "PostgreSQL database \"items\" at db:5433");
    }

    #[test]
    fn wrong_urls_are_refused_with_a_reason() {
        for (url, expected) in [
            ("", "empty"),
            ("mysql://x", "neither"),
            ("items.db", "neither"),
            ("sqlite::memory:", "in-memory"),
            ("sqlite://x.db?mode=memory", "in-memory"),
            ("sqlite://x.db?mood=good", "cannot be read"),
            ("sqlite:///dev/null/x/a.db", "DATABASE_URL=sqlite://<file>"),
        ] {
            let error = Location::prepare(url).map(|location| location.url).unwrap_err();
            assert!(error.message().contains(expected), "{url}: {error}");
        }
    }
}
