//! The component that carries rows from the outbox to the broker.
//!
//! One task owns everything: it keeps the leases, reads, sends, and writes what
//! became of the rows. So nothing is shared and nothing is locked; the speed
//! comes from publishing many keys at the same time and marking them together.
//! What to do next is decided by [`lanes`](super::lanes) and
//! [`lease`](super::lease); here is only the doing.
//!
//! A row is marked after the broker has it. A crash in between publishes it once
//! more, under the same id.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{
    BoxFuture, Code, Component, Deadline, Env, Error, Ready, Result, Shutdown, Span, SpanKind,
    propagation,
};
use chassis_data::Backend;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::clock::{DbTime, millis};
use super::handle::Outbox;
use super::lanes::{Cause, Entry, Lanes, Verdict};
use super::lease;
use super::metrics::RelayMetrics;
use super::settings::OutboxConfig;
use super::table::{Table, Tokens};
use crate::broker::Publisher;
use crate::message::Message;

/// Rows marked by one statement, where the stream does not pause before.
const MARK_BATCH: usize = 256;
/// How long a mark may wait for company.
const MARK_DELAY: Duration = Duration::from_millis(5);
/// How long to leave a database alone that did not answer.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// Publishes what was appended: the component `outbox-relay`.
pub struct Relay<B: Backend = sqlx::Any> {
    outbox: Outbox<B>,
    publisher: Arc<dyn Publisher>,
}

impl<B: Backend> Relay<B> {
    pub(super) fn new(outbox: Outbox<B>, publisher: Arc<dyn Publisher>) -> Self {
        Self { outbox, publisher }
    }
}

impl<B: Backend> Component for Relay<B> {
    fn name(&self) -> Cow<'static, str> {
        "outbox-relay".into()
    }

    fn describe(&self) -> String {
        format!("looks every {:?}", self.outbox.config.poll)
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.outbox.config.validate()?;
            let mut worker = Worker::new(*self, env);
            match worker.beat().await {
                Ok(()) => {}
                // A database that is away comes back; a missing table does not.
                Err(error) if error.code().is_retryable() => worker.database_failed(&error),
                Err(error) => return Err(error),
            }
            ready.ready();
            worker.run(shutdown).await;
            Ok(())
        })
    }
}

struct Landed {
    seq: i64,
    time: i64,
    result: Result<()>,
}

struct Worker<B: Backend> {
    me: String,
    env: Env,
    config: OutboxConfig,
    metrics: RelayMetrics,
    table: Table<B>,
    time: DbTime<B>,
    publisher: Arc<dyn Publisher>,
    lanes: Lanes<Message>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    wake: watch::Receiver<u64>,
    tokens: Tokens,
    /// The leases hold until then, counted from before they were asked for.
    held_until: Instant,
    beat_at: Instant,
    read_at: Instant,
    mark_at: Option<Instant>,
    clean_at: Instant,
    database_at: Instant,
    /// The last read found nothing to send.
    dry: bool,
}

impl<B: Backend> Worker<B> {
    fn new(relay: Relay<B>, env: Env) -> Self {
        let Relay { outbox, publisher } = relay;
        let now = Instant::now();
        Self {
            me: uuid::Uuid::now_v7().to_string(),
            metrics: RelayMetrics::new(&env),
            env,
            table: Table::new(outbox.db.clone()),
            time: DbTime::new(outbox.db.clone(), outbox.clock.clone()),
            publisher,
            lanes: Lanes::new(outbox.config.limits()),
            flights: FuturesUnordered::new(),
            wake: outbox.wake.subscribe(),
            tokens: Tokens::default(),
            held_until: now,
            beat_at: now,
            read_at: now,
            mark_at: None,
            clean_at: now + outbox.config.clean_every,
            database_at: now,
            dry: false,
            config: outbox.config,
        }
    }

    async fn run(&mut self, shutdown: Shutdown) {
        // Set when the shutdown is requested.
        let mut deadline: Option<Deadline> = None;
        loop {
            if deadline.is_none() && shutdown.is_requested() {
                deadline = Some(shutdown.drain_deadline());
                // One more look: what was committed up to now is flushed.
                self.read_at = Instant::now();
                self.dry = false;
            }
            let stopping = deadline.is_some();
            if let Err(error) = self.tend(stopping).await {
                self.database_failed(&error);
            }
            self.take_off();
            let idle = self.flights.is_empty() && self.lanes.held() == 0;
            let mut alarm = self.next_alarm();
            if let Some(deadline) = deadline {
                if idle && self.dry || deadline.is_expired() {
                    break;
                }
                alarm = alarm.min(deadline.instant());
            }
            tokio::select! {
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => {
                    self.landed(landed);
                    // Take along all that is there, and mark it together.
                    while let Some(Some(landed)) = now_or_never(self.flights.next()) {
                        self.landed(landed);
                    }
                }
                // The sender lives in every handle; without one nothing is
                // appended here and the poll serves other processes' rows.
                Ok(()) = self.wake.changed() => self.read_at = Instant::now(),
                () = sleep_until(alarm) => {}
                () = shutdown.requested(), if !stopping => {}
            }
        }
        self.leave().await;
    }

    /// Everything that talks to the database, as far as it is due.
    async fn tend(&mut self, stopping: bool) -> Result<()> {
        let now = Instant::now();
        if now < self.database_at {
            return Ok(());
        }
        let due = self.mark_at.is_some_and(|at| now >= at) || self.flights.is_empty();
        let unwritten = self.lanes.unwritten();
        if unwritten > 0 && (due || unwritten >= MARK_BATCH || self.lanes.has_failures()) {
            self.write().await?;
        }
        if now >= self.beat_at {
            self.beat().await?;
        }
        let half_empty = self.lanes.held() <= self.config.window / 2;
        let paused = self.lanes.paused_until(self.time.estimate()).is_some();
        if now >= self.read_at && half_empty && !paused {
            self.read().await?;
        }
        if now >= self.clean_at && !stopping && self.tokens[0].is_some() {
            self.clean().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let flush = self.lanes.flush();
        if !flush.is_empty() {
            let now = self.time.estimate();
            if !self.table.write(&flush, &self.tokens, now).await? {
                // Somebody else has a partition by now: find out which one.
                self.beat_at = Instant::now();
                tracing::warn!("the outbox relay lost a lease; its marks were dropped");
            }
            self.lanes.written(&flush);
        }
        self.mark_at = None;
        Ok(())
    }

    /// Renews the leases, takes what is free, gives back what is too much.
    async fn beat(&mut self) -> Result<()> {
        // What is published and unmarked would be published again by the next owner.
        self.write().await?;
        let before = Instant::now();
        let now = self.time.read().await?;
        let until = now.saturating_add(millis(self.config.lease));
        let (leases, live) = self.table.beat(&self.me, now, until).await?;
        let plan = lease::plan(&self.me, now, &leases, live, |part| self.lanes.is_flying(part));
        let tokens = self.table.lease(&self.me, &plan, &leases, now, until).await?;
        for (part, (old, new)) in (0..).zip(self.tokens.iter().zip(&tokens)) {
            if old != new {
                self.lanes.drop_part(part);
                self.read_at = before;
            }
        }
        self.tokens = tokens;
        self.held_until = before + self.config.lease;
        self.beat_at = before + self.config.lease / 3;
        self.metrics.backlog(self.table.backlog().await?, now);
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        self.read_at = Instant::now() + self.config.poll;
        // A commit from here on wakes again.
        self.wake.borrow_and_update();
        let window = self.config.window;
        let rows = self.table.pending(&self.tokens, self.time.estimate(), window).await?;
        let full = rows.len() >= window;
        self.dry = rows.is_empty();
        for row in rows {
            self.lanes.offer(row);
        }
        if full {
            // There is more: read again as soon as half of it is done.
            self.read_at = Instant::now();
        }
        Ok(())
    }

    async fn clean(&mut self) -> Result<()> {
        let before = self.time.estimate().saturating_sub(millis(self.config.grace));
        let removed = self.table.clean(before, self.config.clean_batch).await?;
        let full = usize::try_from(removed).is_ok_and(|n| n >= self.config.clean_batch);
        let pause = if full { MARK_DELAY } else { self.config.clean_every };
        self.clean_at = Instant::now() + pause;
        Ok(())
    }

    /// Sends as much as the leases and the bounds allow.
    fn take_off(&mut self) {
        if Instant::now() >= self.held_until {
            return;
        }
        let now = self.time.estimate();
        let tokens = self.tokens;
        let held = |part: i64| {
            usize::try_from(part).is_ok_and(|part| tokens.get(part).is_some_and(Option::is_some))
        };
        while let Some(entry) = self.lanes.next(now, held) {
            let publisher = self.publisher.clone();
            let flight = publish(self.env.clone(), publisher, entry, self.config.publish_timeout);
            self.flights.push(Box::pin(flight));
        }
    }

    fn landed(&mut self, landed: Landed) {
        let Landed { seq, time, result } = landed;
        let now = self.time.estimate();
        self.mark_at.get_or_insert_with(|| Instant::now() + MARK_DELAY);
        let Err(error) = result else {
            self.metrics.published.inc();
            let age = Duration::from_millis(u64::try_from(now.saturating_sub(time)).unwrap_or(0));
            self.metrics.latency.observe(age.as_secs_f64());
            self.lanes.published(seq);
            return;
        };
        let cause = cause(&error);
        match cause {
            Cause::Refused => self.metrics.refused.inc(),
            Cause::Unreachable => self.metrics.unanswered.inc(),
        }
        let reason = format!("{}: {}", error.reason(), error.chain());
        let verdict = self.lanes.failed(seq, cause, reason, now, fastrand::f64());
        match verdict {
            Some(Verdict::Park { attempts }) => {
                tracing::error!(seq, attempts, error = %error.chain(), "outbox row parked");
            }
            Some(Verdict::Retry { attempts, .. }) => {
                tracing::warn!(seq, attempts, error = %error.chain(), "outbox row not published");
            }
            Some(Verdict::Hold) => {
                tracing::warn!(error = %error.chain(), "the broker does not answer; the outbox waits");
                // Nothing was written, so it is read again after the pause.
                self.read_at = Instant::now();
                self.dry = false;
            }
            None => {}
        }
    }

    fn next_alarm(&self) -> Instant {
        let mut alarm = self.beat_at.min(self.clean_at);
        if let Some(at) = self.mark_at.filter(|_| self.lanes.unwritten() > 0) {
            alarm = alarm.min(at);
        }
        if self.lanes.held() <= self.config.window / 2 {
            let now = self.time.estimate();
            let pause = self.lanes.paused_until(now).map_or(0, |until| until.saturating_sub(now));
            let pause = Duration::from_millis(u64::try_from(pause).unwrap_or(0));
            alarm = alarm.min(self.read_at.max(Instant::now() + pause));
        }
        alarm.max(self.database_at)
    }

    fn database_failed(&mut self, error: &Error) {
        tracing::warn!(error = %error.chain(), "the outbox relay cannot use its database");
        self.database_at = Instant::now() + DATABASE_PAUSE;
        self.dry = false;
    }

    async fn leave(&mut self) {
        let left = async {
            self.write().await?;
            self.table.leave(&self.me).await
        };
        if let Err(error) = left.await {
            tracing::warn!(error = %error.chain(), "the outbox relay could not give its leases back");
        }
    }
}

/// Whose fault it is: the row's, or a broker's that cannot answer just now.
fn cause(error: &Error) -> Cause {
    match error.code() {
        Code::Cancelled | Code::Unauthenticated => Cause::Unreachable,
        code if code.is_retryable() => Cause::Unreachable,
        _ => Cause::Refused,
    }
}

async fn publish(
    env: Env,
    publisher: Arc<dyn Publisher>,
    entry: Entry<Message>,
    limit: Duration,
) -> Landed {
    let Entry { seq, item: mut message, .. } = entry;
    let _counted = env.in_flight().enter("outbox");
    // One span deeper than the append, in its trace; the consumer follows below.
    let context = propagation::extract(&env, |name| message.headers.get(name).map(String::as_str));
    propagation::inject(&context, |name, value| {
        message.headers.insert(name.to_owned(), value);
    });
    let mut span = Span::start(&context, SpanKind::Producer, format!("publish {}", message.topic));
    if span.is_recording() {
        span.set("messaging.destination.name", message.topic.clone());
        span.set("messaging.message.id", message.id.clone());
    }
    let time = message.time;
    let result = match timeout(limit, context.scope(publisher.publish(message))).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("the broker did not answer within {limit:?}");
            Err(Error::deadline_exceeded("PUBLISH_TIMEOUT", text))
        }
    };
    if let Err(error) = &result {
        span.fail(error.chain());
    }
    Landed { seq, time, result }
}

/// The value of a future that is ready right now.
fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    futures_util::FutureExt::now_or_never(future)
}
