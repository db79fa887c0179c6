//! How each fault begins.

use std::future::Future;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::freeze::Frozen;
use crate::plan::Fault;
use crate::stream;
use crate::system::{End, System};

/// How long a server may take that may be away.
const PATIENCE: Duration = Duration::from_secs(2);
/// A fault that cannot begin is tried again after this.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two losses, so that the first one is found and mended.
const LOSSES_APART: Duration = Duration::from_secs(10);

impl System {
    /// Begins a fault. One that is under way already is left to it.
    pub(crate) async fn inflict(&mut self, fault: Fault) -> Result<(), Failure> {
        let after = |lasts| Instant::now() + lasts;
        match fault {
            Fault::Kill { copy, down } => {
                self.say(&format!("kill -9 of copy {copy}, back in {down:?}"));
                self.copies[copy].kill().await?;
                self.ends.push((after(down), End::Start(copy)));
                self.count("killed");
            }
            Fault::AtPoint { copy, point, how, down } => {
                self.say(&format!("copy {copy}: {point}={how}"));
                self.copies[copy].tell(&format!("fail {point}={how}")).await;
                self.doomed[copy] = true;
                self.ends.push((after(down), End::Disarm(copy)));
                self.count(format!("{point} armed"));
            }
            Fault::Pause { copy, lasts } => {
                self.say(&format!("copy {copy} stands still for {lasts:?}"));
                self.copies[copy].signal(Signal::STOP)?;
                self.ends.push((after(lasts), End::Continue(copy)));
                self.count("paused");
            }
            Fault::Hold { copy, count, lasts } => {
                self.say(&format!("copy {copy} holds {count} transactions open for {lasts:?}"));
                self.copies[copy].tell(&format!("hold {} {count}", lasts.as_millis())).await;
                self.count(if count > 1 { "pool dry" } else { "transaction open" });
            }
            Fault::Trouble { place, trouble, lasts } => {
                let trouble = trouble.name();
                self.say(&format!("trouble: {place} {trouble} for {lasts:?}"));
                for copy in &mut self.copies {
                    copy.tell(&format!("trouble {place} {trouble} {}", lasts.as_millis())).await;
                }
                self.count(format!("{place} {trouble}"));
            }
            Fault::Database { .. } | Fault::DatabasePause { .. } => self.of_database(fault).await,
            _ => self.of_broker(fault).await?,
        }
        Ok(())
    }

    async fn of_database(&mut self, fault: Fault) {
        let Some((postgres, _)) = &self.servers else { return };
        // It cannot end while it stands still.
        self.frozen.thaw();
        match fault {
            Fault::Database { down } => {
                self.say(&format!("PostgreSQL is stopped (immediate) for {down:?}"));
                postgres.stop();
                self.ends.push((Instant::now() + down, End::Database));
                self.count("PostgreSQL stopped");
            }
            Fault::DatabasePause { lasts } => {
                self.say(&format!("PostgreSQL stands still for {lasts:?}"));
                match soon(Frozen::postgres(&self.database)).await {
                    Ok(frozen) => self.frozen = frozen,
                    Err(failure) => return self.postpone(fault, &failure.to_string()),
                }
                // Of two pauses the later end counts.
                self.ends.retain(|(_, end)| *end != End::Thaw);
                self.ends.push((Instant::now() + lasts, End::Thaw));
                self.count("PostgreSQL paused");
            }
            _ => {}
        }
    }

    async fn of_broker(&mut self, fault: Fault) -> Result<(), Failure> {
        let Some((_, nats)) = &self.servers else { return Ok(()) };
        let url = nats.url().to_owned();
        match fault {
            Fault::Broker { down } => {
                self.say(&format!("the broker is killed for {down:?}"));
                nats.stop();
                self.back_in(down);
                self.count("broker killed");
            }
            Fault::Again { messages } => {
                let done = soon(stream::again(&url, messages)).await;
                self.say(&match done {
                    Ok(count) => format!("{count} messages come again"),
                    Err(failure) => format!("no messages come again: {failure}"),
                });
                self.count("messages again");
            }
            Fault::Shuffled { messages, times } => {
                match soon(stream::shuffled(&url, messages, times)).await {
                    Ok(count) => {
                        self.say(&format!(
                            "{count} messages come again, {times} times in disorder"
                        ));
                        self.count("messages in disorder");
                    }
                    Err(failure) => self.postpone(fault, &failure.to_string()),
                }
            }
            Fault::StreamDeleted | Fault::TailLost { .. } if Instant::now() > self.losses_end => {}
            Fault::StreamDeleted => {
                if !self.may_lose().await {
                    self.postpone(fault, "the last loss is not mended");
                    return Ok(());
                }
                let ends = self.alerts.ends();
                match soon(stream::delete(&url)).await {
                    Ok(0) => self.postpone(fault, "the stream is empty"),
                    Ok(messages) => {
                        self.say(&format!("the stream is deleted, with {messages} messages"));
                        self.alerts.lost("the stream was deleted", ends);
                        self.lost_at = Some(Instant::now());
                        self.count("stream deleted");
                    }
                    Err(failure) => self.postpone(fault, &failure.to_string()),
                }
            }
            Fault::TailLost { share, down } => {
                if !self.may_lose().await {
                    self.postpone(fault, "the last loss is not mended");
                    return Ok(());
                }
                let Some((_, nats)) = &self.servers else { return Ok(()) };
                nats.stop();
                let lost = stream::cut(&nats.store(), share)?;
                self.say(&format!("the broker is killed for {down:?} and loses {lost} bytes"));
                self.lost_at = Some(Instant::now());
                self.back_in(down);
                self.count("tail lost");
            }
            _ => {}
        }
        Ok(())
    }

    /// The broker comes back after this; of two ends the later one counts.
    fn back_in(&mut self, down: Duration) {
        let at = Instant::now() + down;
        let ends = self.ends.iter().filter(|(_, end)| *end == End::Broker);
        let at = ends.map(|(at, _)| *at).fold(at, Instant::max);
        self.ends.retain(|(_, end)| *end != End::Broker);
        self.ends.push((at, End::Broker));
    }

    fn postpone(&mut self, fault: Fault, why: &str) {
        self.say(&format!("{fault:?} must wait: {why}"));
        self.postponed.push((Instant::now() + AGAIN, fault));
    }

    /// Whether the last loss was found and mended, as far as the tables say.
    async fn may_lose(&self) -> bool {
        let waited = self.lost_at.is_none_or(|at| at.elapsed() > LOSSES_APART);
        waited && matches!(soon(open_losses(&self.database)).await, Ok(0))
    }
}

async fn open_losses(database: &str) -> Result<i64, Failure> {
    let mut connection = PgConnection::connect(database).await?;
    let sql = "SELECT COUNT(*) FROM chassis_outbox_loss";
    Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
}

/// What a server says that may be away.
async fn soon<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("no answer".into()))
}
