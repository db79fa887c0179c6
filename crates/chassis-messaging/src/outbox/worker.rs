//! The one task of a relay: takes rows off, notes how they land, sends out jobs.
//!
//! What to do next is decided by [`lanes`](super::lanes) and
//! [`lease`](super::lease), what the database does stands in
//! [`jobs`](super::jobs); here is the loop between them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Deadline, Env, Error, Result, Shutdown};
use chassis_data::{Backend, Db, Dialect};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::clock::DbTime;
use super::flight::{Flight, Landed, cause};
use super::jobs::{Done, MARK_DELAY};
use super::lanes::{Cause, Lanes, Verdict};
use super::metrics::RelayMetrics;
use super::parts::Parts;
use super::pause::Pause;
use super::ping;
use super::relay::Relay;
use super::settings::OutboxConfig;
use super::table::{Table, Tokens};
use super::wake::{Wake, Woken};
use crate::broker::{Ledger, Publisher, Witness};
use crate::message::Message;

/// How long to leave a database alone that did not answer.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);
/// In this many parts of its time limit a late publish is missed.
const LOOKS: u32 = 8;
/// How long the last marks and the return of the leases may take.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Worker<B: Backend> {
    pub(super) me: String,
    pub(super) env: Env,
    pub(super) config: OutboxConfig,
    pub(super) metrics: RelayMetrics,
    pub(super) db: Db<B>,
    pub(super) table: Arc<Table<B>>,
    pub(super) time: Arc<DbTime<B>>,
    publisher: Arc<dyn Publisher>,
    /// What the broker has acknowledged, where it can say what it still has.
    pub(super) ledger: Option<Arc<Ledger>>,
    /// The ends of the streams that were written with the last marks.
    pub(super) noted: BTreeMap<String, Witness>,
    /// Those that are being written.
    pub(super) noting: Vec<(String, Witness)>,
    pub(super) pause: Arc<Pause>,
    pub(super) lanes: Lanes<Box<Message>>,
    flights: FuturesUnordered<Flight>,
    pub(super) jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Commits in this process.
    woken: Woken,
    /// Commits in other processes.
    heard: Woken,
    _listener: Option<AbortOnDropHandle<()>>,
    /// The fencing tokens of what is held.
    pub(super) tokens: Tokens,
    /// New ones, to be taken over when no mark is under way.
    pub(super) next_tokens: Option<Tokens>,
    /// Partitions that were lost while a mark was under way.
    pub(super) lost: Parts,
    /// The leases hold until then, counted from before they were asked for.
    pub(super) held_until: Instant,
    /// Partitions that should be read.
    pub(super) due: Parts,
    /// Partitions that are being read.
    pub(super) reading: Parts,
    /// Partitions of others in which this process committed.
    pub(super) unpinged: Parts,
    pub(super) beating: bool,
    pub(super) cleaning: bool,
    pub(super) pinging: bool,
    /// What was read did not fit: something must land first.
    pub(super) crowded: bool,
    pub(super) clean_from: i64,
    pub(super) poll_at: Instant,
    /// When to look for publishes that take too long.
    late_at: Instant,
    pub(super) beat_at: Instant,
    pub(super) mark_at: Option<Instant>,
    /// When the rows that wait are counted next.
    pub(super) count_at: Instant,
    pub(super) clean_at: Instant,
    pub(super) ping_at: Instant,
    pub(super) database_at: Instant,
}

impl<B: Backend> Worker<B> {
    pub(super) fn new(relay: Relay<B>, env: Env, pause: Arc<Pause>) -> Self {
        let Relay { outbox, publisher } = relay;
        let now = Instant::now();
        let me = uuid::Uuid::now_v7().to_string();
        let elsewhere = Wake::new();
        let heard = elsewhere.listen();
        let listens = outbox.db.dialect() == Dialect::Postgres && !outbox.config.ping.is_zero();
        let listener = listens.then(|| {
            let hear = ping::hear(outbox.db.clone(), me.clone(), elsewhere);
            AbortOnDropHandle::new(env.spawn(hear))
        });
        Self {
            me,
            metrics: RelayMetrics::new(&env),
            env,
            db: outbox.db.clone(),
            table: Arc::new(Table::new(outbox.db.clone())),
            time: Arc::new(DbTime::new(outbox.db.clone(), outbox.clock.clone())),
            ledger: publisher.tails().map(|tails| tails.ledger().clone()),
            noted: BTreeMap::new(),
            noting: Vec::new(),
            publisher,
            pause,
            lanes: Lanes::new(outbox.config.limits()),
            flights: FuturesUnordered::new(),
            jobs: FuturesUnordered::new(),
            woken: outbox.wake.listen(),
            heard,
            _listener: listener,
            tokens: Tokens::default(),
            next_tokens: None,
            lost: Parts::NONE,
            held_until: now,
            due: Parts::ALL,
            reading: Parts::NONE,
            unpinged: Parts::NONE,
            beating: false,
            cleaning: false,
            pinging: false,
            crowded: false,
            clean_from: i64::MIN,
            poll_at: now + outbox.config.poll,
            late_at: now,
            beat_at: now,
            mark_at: None,
            count_at: now,
            clean_at: now + outbox.config.clean_every,
            ping_at: now,
            database_at: now,
            config: outbox.config,
        }
    }

    pub(super) async fn run(&mut self, shutdown: Shutdown) {
        // Set when the shutdown is requested.
        let mut deadline: Option<Deadline> = None;
        loop {
            if deadline.is_none() && shutdown.is_requested() {
                deadline = Some(shutdown.drain_deadline());
                // One more look: what was committed up to now is flushed.
                self.due = Parts::ALL;
            }
            let stopping = deadline.is_some();
            self.listen();
            self.give_up_late();
            self.send_out(stopping);
            self.take_off();
            let mut alarm = self.next_alarm(stopping);
            if let Some(deadline) = deadline {
                if self.is_idle() || deadline.is_expired() {
                    break;
                }
                alarm = alarm.min(deadline.instant());
            }
            tokio::select! {
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => {
                    let now = self.time.estimate();
                    self.landed(landed, now);
                    // Take along all that is there, and mark it together.
                    while let Some(Some(landed)) = self.flights.next().now_or_never() {
                        self.landed(landed, now);
                    }
                }
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done),
                () = self.woken.changed() => {}
                () = self.heard.changed() => {}
                () = sleep_until(alarm) => {}
                () = shutdown.requested(), if !stopping => {}
            }
        }
        self.leave().await;
    }

    /// The partitions that this relay holds.
    pub(super) fn held(&self) -> Parts {
        (0..).zip(&self.tokens).filter(|(_, token)| token.is_some()).map(|(part, _)| part).collect()
    }

    fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.lanes.held() == 0
            && self.due.or(self.reading).is_empty()
            && !self.lanes.is_writing()
    }

    fn listen(&mut self) {
        let own = self.woken.take();
        self.unpinged = self.unpinged.or(own).without(self.held());
        self.due = self.due.or(own).or(self.heard.take()).or(self.lanes.take_hungry());
        let now = Instant::now();
        if now >= self.poll_at {
            self.poll_at = now + self.config.poll;
            self.due = Parts::ALL;
        }
        self.due = self.due.and(self.held());
        self.obey();
    }

    /// Stops and goes on as it is told: see [`Pause`].
    fn obey(&mut self) {
        if !self.pause.is_asked() {
            if self.pause.tell(false) {
                self.due = self.held();
            }
            return;
        }
        let landed = self.flights.is_empty() && self.reading.is_empty();
        if landed && self.lanes.unwritten() == 0 && !self.lanes.is_writing() {
            Parts::ALL.iter().for_each(|part| self.lanes.drop_part(part));
            self.pause.tell(true);
        } else if self.lanes.unwritten() > 0 {
            self.mark_at.get_or_insert_with(Instant::now);
        }
    }

    /// Sends as much as the leases and the bounds allow.
    fn take_off(&mut self) {
        if Instant::now() >= self.held_until || self.pause.is_asked() {
            return;
        }
        let (now, limit) = (self.time.estimate(), self.config.publish_timeout);
        let instant = Instant::now();
        let held = self.held();
        while let Some(entry) = self.lanes.next(now, |part| held.contains(part)) {
            let publisher = self.publisher.clone();
            self.flights.push(Flight::new(&self.env, publisher, entry, instant, limit));
        }
    }

    /// What takes too long counts as unanswered.
    fn give_up_late(&mut self) {
        let now = Instant::now();
        if now < self.late_at {
            return;
        }
        self.late_at = now + self.config.publish_timeout / LOOKS;
        if self.flights.iter().all(|flight| !flight.is_late(now)) {
            return;
        }
        let time = self.time.estimate();
        for flight in std::mem::take(&mut self.flights) {
            if flight.is_late(now) {
                self.landed(flight.give_up(), time);
            } else {
                self.flights.push(flight);
            }
        }
    }

    fn landed(&mut self, landed: Landed, now: i64) {
        let Landed { seq, time, result } = landed;
        self.crowded = false;
        let Err(error) = result else {
            self.metrics.published.inc();
            let age = Duration::from_millis(u64::try_from(now.saturating_sub(time)).unwrap_or(0));
            self.metrics.latency.observe(age.as_secs_f64());
            self.lanes.published(seq);
            self.mark_at.get_or_insert_with(|| Instant::now() + MARK_DELAY);
            return;
        };
        let cause = cause(&error);
        match cause {
            Cause::Refused => self.metrics.refused.inc(),
            Cause::Unreachable => self.metrics.unanswered.inc(),
        }
        let reason = format!("{}: {}", error.reason(), error.chain());
        match self.lanes.failed(seq, cause, reason, now, fastrand::f64()) {
            Some(Verdict::Park { attempts }) => {
                tracing::error!(seq, attempts, error = %error.chain(), "outbox row parked");
            }
            Some(Verdict::Retry { attempts, .. }) => {
                tracing::warn!(seq, attempts, error = %error.chain(), "outbox row not published");
            }
            Some(Verdict::Hold) => {
                tracing::warn!(error = %error.chain(), "the broker does not answer; the outbox waits");
                // Nothing was written, so it is read again after the pause.
                self.due = Parts::ALL;
            }
            None => {}
        }
    }

    fn next_alarm(&self, stopping: bool) -> Instant {
        let now = Instant::now();
        if now < self.database_at {
            return self.database_at;
        }
        let mut alarm = self.poll_at;
        if !self.flights.is_empty() {
            alarm = alarm.min(self.late_at);
        }
        if !self.beating {
            alarm = alarm.min(self.beat_at);
        }
        if !self.cleaning && !stopping && self.held().contains(0) {
            alarm = alarm.min(self.clean_at);
        }
        if let Some(at) =
            self.mark_at.filter(|_| !self.lanes.is_writing() && self.lanes.unwritten() > 0)
        {
            alarm = alarm.min(at);
        }
        if !self.pinging && !self.unpinged.is_empty() {
            alarm = alarm.min(self.ping_at);
        }
        let time = self.time.estimate();
        if let Some(until) = self.lanes.paused_until(time) {
            let pause = u64::try_from(until.saturating_sub(time)).unwrap_or(0);
            alarm = alarm.min(now + Duration::from_millis(pause));
        }
        alarm
    }

    pub(super) fn database_failed(&mut self, error: &Error) {
        tracing::warn!(error = %error.chain(), "the outbox relay cannot use its database");
        self.database_at = Instant::now() + DATABASE_PAUSE;
    }

    /// Runs a job in a task of its own, which ends with this one.
    pub(super) fn job<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        done: impl FnOnce(Result<T>) -> Done + Send + 'static,
    ) {
        let task = AbortOnDropHandle::new(self.env.spawn(work));
        self.jobs.push(Box::pin(async move {
            done(task.await.unwrap_or_else(|panicked| Err(Error::internal(panicked))))
        }));
    }

    async fn leave(&mut self) {
        let left = timeout(FAREWELL, async {
            // A lease that is on its way back to us would outlive us.
            while self.beating || self.lanes.is_writing() {
                match self.jobs.next().await {
                    Some(done) => self.done(done),
                    None => break,
                }
            }
            let flush = self.lanes.flush();
            if !flush.is_empty() {
                let now = self.time.estimate();
                let ends = self.ends(now);
                self.table.write(&flush, &self.tokens, now, &ends).await?;
            }
            self.table.leave(&self.me).await
        });
        let left = left.await.unwrap_or_else(|_| {
            Err(Error::deadline_exceeded("OUTBOX_FAREWELL", "the database does not answer"))
        });
        if let Err(error) = left {
            tracing::warn!(error = %error.chain(), "the outbox relay could not give its leases back");
        }
    }
}
