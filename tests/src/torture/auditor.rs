//! How the evidence is gathered: plain sqlx and plain async-nats, none of the chassis.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection, Row};
use tokio::time::{Instant, sleep};

use super::audit::{Report, audit};
use super::evidence::{Claim, Effect, Evidence, Expected, Parked, Sent, Stored};
use super::handlers::{BUYER, DESK, LEDGER, MIRROR};
use super::schema::{ACCOUNTS, OPENING};

/// Who hears what in the workload.
pub const EXPECTED: &[Expected] = &[
    Expected { topic: "torture.changed", handlers: &[MIRROR, LEDGER] },
    Expected { topic: "torture.asked", handlers: &[DESK] },
    Expected { topic: "torture.answered", handlers: &[BUYER] },
];

/// The first part of the workload's topics, which is the name of their stream.
const TOPICS: &str = "torture";
/// That of dead letters.
const DEAD_LETTERS: &str = "dlq";
/// Messages read at a time.
const BATCH: usize = 1000;
/// How long one read may take.
const READ: Duration = Duration::from_secs(10);
/// Between two looks at what is left to do.
const LOOK: Duration = Duration::from_millis(500);

/// Whatever a database, a broker or a file may say.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the broker keeps its messages.
#[derive(Clone, Debug)]
pub enum Source {
    /// A NATS server.
    Nats(String),
    /// The folder of the embedded broker.
    Folder(PathBuf),
}

/// An auditor with connections of its own.
pub struct Auditor {
    database: String,
    source: Source,
    expected: Vec<Expected>,
    may_be_overtaken: &'static [&'static str],
    lost: bool,
}

impl Auditor {
    /// An auditor of the whole workload.
    #[must_use]
    pub fn new(database: impl Into<String>, source: Source) -> Auditor {
        sqlx::any::install_default_drivers();
        Auditor {
            database: database.into(),
            source,
            expected: EXPECTED.to_vec(),
            may_be_overtaken: &[],
            lost: false,
        }
    }

    /// The same where other handlers hear the topics.
    #[must_use]
    pub fn expecting(mut self, expected: &[Expected]) -> Auditor {
        self.expected = expected.to_vec();
        self
    }

    /// The same for handlers to which no order is promised: see
    /// [`Report::may_be_overtaken`].
    #[must_use]
    pub fn may_be_overtaken(self, handlers: &'static [&'static str]) -> Auditor {
        Auditor { may_be_overtaken: handlers, ..self }
    }

    /// The same for a broker that lost something: see [`Report::may_be_disordered`].
    #[must_use]
    pub fn broker_lost(self, lost: bool) -> Auditor {
        Auditor { lost, ..self }
    }

    /// Waits until nothing is left to do, at most `within`, and gives the verdict.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// The last thing that went wrong where the evidence could not be gathered in time.
    pub async fn settled(&self, within: Duration) -> Result<Report, Failure> {
        let end = Instant::now() + within;
        loop {
            let report = self.audit().await;
            let late = Instant::now() >= end;
            match report {
                Ok(report) if report.backlog() == 0 || late => return Ok(report),
                Err(failure) if late => return Err(failure),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// The verdict now.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database and the broker say.
    pub async fn audit(&self) -> Result<Report, Failure> {
        let report = audit(&self.evidence().await?, &self.expected);
        let report = report.may_be_overtaken(self.may_be_overtaken);
        Ok(if self.lost { report.may_be_disordered() } else { report })
    }

    /// All that there is to know.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database and the broker say.
    pub async fn evidence(&self) -> Result<Evidence, Failure> {
        // The broker first: what is sent meanwhile is not missed there but found here.
        let (stored, buried) = match &self.source {
            Source::Nats(url) => {
                let context = jetstream::new(async_nats::connect(url).await?);
                (stream(&context, TOPICS).await?, stream(&context, DEAD_LETTERS).await?)
            }
            Source::Folder(folder) => {
                let url = format!("sqlite://{}?mode=ro", folder.join("broker.db").display());
                let all = embedded(&url).await?;
                let prefix = format!("{TOPICS}.");
                all.into_iter().partition(|stored| stored.topic.starts_with(&prefix))
            }
        };
        let mut db = AnyConnection::connect(&self.database).await?;
        let db = &mut db;
        let text = |row: &AnyRow, column: usize| row.try_get::<String, _>(column);
        // Before what was sent: who is parked then was sent before.
        const PARKED: &str = "SELECT id, last_error FROM chassis_outbox WHERE state = 2";
        let parked =
            rows(db, PARKED, |row| Ok(Parked { id: text(row, 0)?, reason: row.try_get(1)? }));
        let parked = parked.await?;
        let sent =
            rows(db, "SELECT message_id, fate, topic, item, version FROM torture_sent", |row| {
                Ok(Sent {
                    id: text(row, 0)?,
                    fate: text(row, 1)?,
                    topic: text(row, 2)?,
                    item: text(row, 3)?,
                    version: row.try_get(4)?,
                })
            });
        let sent = sent.await?;
        const EFFECTS: &str = "SELECT handler, message_id, item, version, nth FROM torture_effect";
        let effects = rows(db, EFFECTS, |row| {
            Ok(Effect {
                handler: text(row, 0)?,
                id: text(row, 1)?,
                item: text(row, 2)?,
                version: row.try_get(3)?,
                nth: row.try_get(4)?,
            })
        });
        let effects = effects.await?;
        let started = rows(db, "SELECT purchase FROM torture_started", |row| text(row, 0)).await?;
        let ended = rows(db, "SELECT purchase, outcome FROM torture_ended", |row| {
            Ok((text(row, 0)?, text(row, 1)?))
        });
        let ended = ended.await?;
        // Two statements see two states of a database at work; one transaction sees one.
        let mut tx = db.begin().await?;
        const CLAIMS: &str = "SELECT book, purchase, amount, state FROM torture_claim";
        let claims = rows(&mut tx, CLAIMS, |row| {
            let (book, purchase, state) = (text(row, 0)?, text(row, 1)?, text(row, 3)?);
            Ok(Claim { book, purchase, amount: row.try_get(2)?, state })
        });
        let claims = claims.await?;
        const BOOKS: &str =
            "SELECT book, CAST(SUM(amount) AS BIGINT) FROM torture_book GROUP BY book";
        let books =
            rows(&mut tx, BOOKS, |row| Ok((text(row, 0)?, row.try_get(1)?, OPENING * ACCOUNTS)));
        let books = books.await?;
        tx.rollback().await?;
        Ok(Evidence { sent, stored, buried, parked, effects, started, ended, claims, books })
    }
}

async fn rows<T>(
    db: &mut AnyConnection,
    sql: &'static str,
    read: impl Fn(&AnyRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

async fn embedded(url: &str) -> Result<Vec<Stored>, Failure> {
    let mut db = AnyConnection::connect(url).await?;
    const STORED: &str = "SELECT seq, id, topic, headers FROM messages ORDER BY seq";
    let stored = rows(&mut db, STORED, |row| {
        let headers: serde_json::Value = serde_json::from_str(row.try_get(3)?).unwrap_or_default();
        Ok(Stored {
            seq: row.try_get(0)?,
            id: row.try_get(1)?,
            topic: row.try_get(2)?,
            given_up: headers["x-given-up"].as_str().map(str::to_owned),
        })
    });
    Ok(stored.await?)
}

/// All messages of a stream, by a consumer that nobody else has.
async fn stream(context: &jetstream::Context, name: &str) -> Result<Vec<Stored>, Failure> {
    use async_nats::jetstream::context::GetStreamErrorKind;
    let mut stream = match context.get_stream(name).await {
        Ok(stream) => stream,
        // Nobody has published to it.
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause)
                if cause.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                return Ok(Vec::new());
            }
            _ => return Err(error.into()),
        },
    };
    let state = stream.info().await?.state.clone();
    let mut found = Vec::new();
    if state.messages == 0 {
        return Ok(found);
    }
    let config = consumer::pull::Config {
        ack_policy: consumer::AckPolicy::None,
        inactive_threshold: READ,
        ..consumer::pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    loop {
        let mut batch = consumer.fetch().max_messages(BATCH).expires(READ).messages().await?;
        let before = found.len();
        while let Some(message) = batch.next().await {
            let message = message?;
            let seq = message.info().map(|info| info.stream_sequence)?;
            let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name));
            let (id, given_up) = (header("ce-id"), header("x-given-up"));
            found.push(Stored {
                seq: i64::try_from(seq)?,
                id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
                topic: message.subject.to_string(),
                given_up: given_up.map(|id| id.as_str().to_owned()),
            });
            if seq >= state.last_sequence {
                return Ok(found);
            }
        }
        if found.len() == before {
            return Err(format!("the stream {name} was not read to its end").into());
        }
    }
}
