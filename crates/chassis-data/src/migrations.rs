//! Tables that change over time, in sets that do not know each other.
//!
//! A service's tables and those of the chassis (outbox, inbox, saga) live in one database
//! and are released at different times. So each is a set with a name, its own versions, and
//! its own table of what was applied: `chassis_migrations_<set>`. Underneath is sqlx's
//! migrator, with its checksums and its lock.
//!
//! A version in the table that the program does not know is left alone: during a rolling
//! release, and after going back, older programs run on a newer database. So a step must be
//! one that the previous release can live with.

use std::fmt;

use chassis_core::{Error, Result, error::chain};
use sqlx::{
    AssertSqlSafe, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use crate::{Dialect, map_error};

/// Longest name of a set, so that the table's name fits into PostgreSQL's 63 bytes.
const LONGEST_NAME: usize = 40;

/// A named set of migrations. Run it with [`Db::migrate`](crate::Db::migrate).
///
/// ```
/// use chassis_data::Migrations;
///
/// let items = Migrations::new("items")
///     .step(1, "items", "create table item (id text primary key, payload {blob} not null)")
///     .step(2, "notes", "alter table item add column note text");
/// ```
#[derive(Clone, Debug)]
pub struct Migrations {
    set: &'static str,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

impl Migrations {
    /// An empty set. The name is in lower case letters, digits and underscores, at most 40,
    /// and never changes: another name is another set.
    #[must_use]
    pub fn new(set: &'static str) -> Migrations {
        Migrations { set, steps: Vec::new() }
    }

    /// Adds a step. Versions rise; what was released is never changed, only followed.
    ///
    /// The SQL may hold several statements, which take effect together or not at all.
    /// `{blob}` and `{identity}` become what the dialect calls them ([`Dialect::render`]).
    #[must_use]
    pub fn step(mut self, version: i64, name: &'static str, sql: &'static str) -> Migrations {
        self.steps.push(Step { version, name, sql });
        self
    }

    /// The name of the set.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.set
    }

    /// The set for sqlx.
    pub(crate) fn migrator(&self, dialect: Dialect) -> Result<Migrator> {
        self.check()?;
        let migration = |step: &Step| {
            let sql = AssertSqlSafe(dialect.render(step.sql)).into_sql_str();
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
        };
        let mut migrator = Migrator::with_migrations(self.steps.iter().map(migration).collect());
        migrator.dangerous_set_table_name(format!("chassis_migrations_{}", self.set));
        migrator.set_ignore_missing(true);
        // On SQLite the transaction around the whole set is the lock.
        migrator.set_locking(dialect == Dialect::Postgres);
        Ok(migrator)
    }

    /// The name becomes part of SQL, and the order must be the one that everybody reads.
    fn check(&self) -> Result<()> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.set.is_empty() || self.set.len() > LONGEST_NAME || !self.set.chars().all(fits) {
            return Err(Error::internal(BadSet(self.set, "has a name that is not allowed")));
        }
        if self.steps.iter().any(|step| step.version < 1) {
            return Err(Error::internal(BadSet(self.set, "has a version below 1")));
        }
        if !self.steps.is_sorted_by(|a, b| a.version < b.version) {
            return Err(Error::internal(BadSet(self.set, "has versions that do not rise")));
        }
        Ok(())
    }

    /// What to tell whoever starts the process.
    pub(crate) fn explain(&self, error: MigrateError) -> Error {
        let set = self.set;
        match error {
            MigrateError::VersionMismatch(version) => Error::failed_precondition(
                "MIGRATION_CHANGED",
                format!(
                    "step {version} of the migrations \"{set}\" was changed after it had been \
                     applied to this database: restore it, and put the change into a new step"
                ),
            ),
            MigrateError::ExecuteMigration(error, version) => {
                tracing::debug!(set, version, error = %chain(&error), "migration failed");
                Error::failed_precondition(
                    "MIGRATION_FAILED",
                    format!("step {version} of the migrations \"{set}\" failed"),
                )
                .with_source(error)
            }
            MigrateError::Execute(error) => map_error(error),
            other => Error::internal(other),
        }
    }
}

/// A set that no database would take: a bug in the program.
#[derive(Debug)]
struct BadSet(&'static str, &'static str);

impl fmt::Display for BadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the set of migrations \"{}\" {}", self.0, self.1)
    }
}

impl std::error::Error for BadSet {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_cannot_work_is_refused() {
        for (set, expected) in [
            (Migrations::new("Items"), "name"),
            (Migrations::new(""), "name"),
            (Migrations::new("a; drop table item"), "name"),
            (Migrations::new("items").step(0, "zero", "select 1"), "below 1"),
            (Migrations::new("items").step(2, "b", "").step(1, "a", ""), "rise"),
            (Migrations::new("items").step(1, "a", "").step(1, "b", ""), "rise"),
        ] {
            let error = set.migrator(Dialect::Sqlite).map(drop).unwrap_err();
            assert!(error.chain().contains(expected), "{}", error.chain());
        }
    }

    #[test]
    fn a_set_has_a_table_of_its_own() {
        let set = Migrations::new("items").step(1, "a", "create table item (payload {blob})");
        let migrator = set.migrator(Dialect::Postgres).unwrap();
        assert_eq!(migrator.table_name, "chassis_migrations_items");
        let sql: Vec<_> = migrator.iter().map(|step| step.sql.as_str().to_owned()).collect();
        assert_eq!(sql, ["create table item (payload bytea)"]);
    }
}
