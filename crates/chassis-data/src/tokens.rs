//! Tokens of a rate limit that all instances of a service share, in their database.
//!
//! One row per key holds the instant at which the next call would come if all kept the pace:
//! the same single instant as in memory ([`Gcra`](chassis_resilience::rate_limit::Gcra)). One
//! statement reads, decides and writes it, so that takers at the same time cannot get more
//! together; the database's own clock decides. Rows of idle keys are removed now and then by
//! whoever takes tokens.

use std::{sync::Arc, time::Duration};

use chassis_resilience::{
    BoxError, RateLimit,
    rate_limit::shared::{BoxFuture, Grant, TokenStore},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{Backend, Db, Dialect, Migrations, params};

/// How often one instance looks for rows that are no longer needed.
const CLEAN_EVERY: Duration = Duration::from_secs(60);
/// Rows that are removed by one statement.
const CLEAN_BATCH: i64 = 1_000;

/// What the two databases call differently.
macro_rules! word {
    (postgres least) => {
        "least"
    };
    (postgres most) => {
        "greatest"
    };
    (postgres now) => {
        "cast(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
    };
    (postgres skip) => {
        "FOR UPDATE SKIP LOCKED"
    };
    (sqlite least) => {
        "min"
    };
    (sqlite most) => {
        "max"
    };
    (sqlite now) => {
        "cast((julianday('now') - 2440587.5) * 86400000000.0 AS integer)"
    };
    (sqlite skip) => {
        ""
    };
}

/// How far the pace is ahead of now.
macro_rules! ahead {
    ($db:ident) => {
        concat!(word!($db most), "(0, t.arrival - excluded.asked)")
    };
}

/// What fits between that and the burst, of what is wanted.
macro_rules! fits {
    ($db:ident) => {
        concat!(
            word!($db most), "(0, ", word!($db least), "($4, ($3 - ", ahead!($db), ") / $2))"
        )
    };
}

/// Takes tokens. `$1` is the key, `$2` the interval and `$3` the burst in microseconds, `$4` how
/// many are wanted. Where nothing fits, nothing moves and `waits` says how long it takes.
macro_rules! take {
    ($db:ident) => {
        concat!(
            "INSERT INTO chassis_tokens AS t (key, asked, given, waits, arrival)
             SELECT $1, now.us, ", word!($db least), "($4, $3 / $2), 0,
                    now.us + $2 * ", word!($db least), "($4, $3 / $2)
               FROM (SELECT ", word!($db now), " AS us) AS now WHERE true
             ON CONFLICT (key) DO UPDATE SET
               asked = excluded.asked,
               given = ", fits!($db), ",
               waits = ", word!($db most), "(0, ", ahead!($db), " + $2 - $3),
               arrival = ", word!($db most), "(t.arrival, excluded.asked) + $2 * ", fits!($db), "
             RETURNING given, waits"
        )
    };
}

/// Removes up to `$1` rows that say the same as none.
macro_rules! clean {
    ($db:ident) => {
        concat!(
            "DELETE FROM chassis_tokens WHERE key IN (SELECT key FROM chassis_tokens
             WHERE arrival < ", word!($db now), " LIMIT $1 ", word!($db skip), ")"
        )
    };
}

/// The longest interval and burst, in microseconds: what is longer than a century or two need
/// not be told apart, and sums stay in range.
const MOST: i64 = 1 << 60;

/// A [`TokenStore`] in a database. Cheap to clone.
///
/// Intervals are kept in microseconds: a limit above a million calls a second counts as a
/// million.
pub struct DbTokenStore<B: Backend = sqlx::Any> {
    db: Db<B>,
    cleaned: Arc<Mutex<Option<Instant>>>,
}

impl<B: Backend> DbTokenStore<B> {
    /// The tokens in `db`, whose tables [`DbTokenStore::migrations`] makes.
    #[must_use]
    pub fn new(db: &Db<B>) -> Self {
        DbTokenStore { db: db.clone(), cleaned: Arc::default() }
    }

    /// The table of the tokens.
    #[must_use]
    pub fn migrations() -> Migrations {
        Migrations::new("tokens").step(
            1,
            "tokens",
            "create table chassis_tokens (key text primary key, asked bigint not null, \
             given bigint not null, waits bigint not null, arrival bigint not null)",
        )
    }

    async fn take(&self, key: &str, limit: RateLimit, want: u32) -> Result<Grant, BoxError> {
        self.clean().await;
        let interval = micros(limit.interval()).max(1);
        let burst = interval.saturating_mul(i64::from(limit.burst_size())).min(MOST);
        let sql = match self.db.dialect() {
            Dialect::Postgres => take!(postgres),
            Dialect::Sqlite => take!(sqlite),
        };
        let values = params![key, interval, burst, i64::from(want.max(1))];
        let row = self.db.fetch_optional(sql, values).await?.ok_or("no row was returned")?;
        let (given, waits) = (row.int(0)?, row.int(1)?);
        Ok(match u32::try_from(given) {
            Ok(tokens) if tokens > 0 => Grant::Tokens(tokens),
            _ => Grant::Wait(Duration::from_micros(u64::try_from(waits).unwrap_or(0))),
        })
    }

    /// Removes idle rows, if that was not done lately. A failure waits for the next time: the
    /// rows are harmless.
    async fn clean(&self) {
        let Ok(mut cleaned) = self.cleaned.try_lock() else {
            return;
        };
        if cleaned.is_some_and(|at| at.elapsed() < CLEAN_EVERY) {
            return;
        }
        *cleaned = Some(Instant::now());
        let sql = match self.db.dialect() {
            Dialect::Postgres => clean!(postgres),
            Dialect::Sqlite => clean!(sqlite),
        };
        if let Err(error) = self.db.execute(sql, params![CLEAN_BATCH]).await {
            tracing::debug!(error = %chassis_core::error::chain(&error), "tokens not cleaned");
        }
    }
}

impl<B: Backend> Clone for DbTokenStore<B> {
    fn clone(&self) -> Self {
        DbTokenStore { db: self.db.clone(), cleaned: self.cleaned.clone() }
    }
}

impl<B: Backend> TokenStore for DbTokenStore<B> {
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        Box::pin(self.take(key, limit, want))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(MOST).min(MOST)
}
