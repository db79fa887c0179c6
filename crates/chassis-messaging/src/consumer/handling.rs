//! One delivery from the hand to its answer; several together are in [`batches`].
//!
//! [`batches`]: super::batches

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{
    Context, Deadline, Env, Error, Gauge, InFlightGuard, Result, Span, SpanId, SpanKind,
    TraceContext, propagation,
};
use chassis_data::{Backend, Db};
use chassis_resilience::Permit;
use futures_util::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::config::ConsumerConfig;
use super::dead_letter::dead_letter;
use super::handler::AnyHandler;
use super::in_turn::Next;
use super::meters::Meters;
use super::pausing::Pausing;
use super::pulling::Hand;
use super::routes::Routes;
use super::verdict::{self, Verdict};
use crate::broker::{Broker, Delivery};
use crate::dead_letters::is_for_another_group;
use crate::failpoint;
use crate::inbox::{Inbox, Turn};
use crate::message::{APPENDED_BY, GIVEN_UP, Message};

/// How much later than announced a message may come back before its key goes on.
const GRACE: Duration = Duration::from_secs(2);

/// A message in hand, until it is answered.
pub(super) struct InHand {
    pub(super) delivery: Delivery,
    /// What its outcome is told to.
    pub(super) permit: Permit,
    pub(super) since: Instant,
    pub(super) _hand: Hand,
    pub(super) _counted: Counted,
}

/// What the handlers of one topic share.
pub(super) struct Handling<S, B: Backend> {
    pub(super) env: Env,
    pub(super) broker: Broker,
    pub(super) db: Db<B>,
    pub(super) inbox: Inbox<B>,
    pub(super) inbox_name: String,
    pub(super) meters: Meters,
    pub(super) group: String,
    pub(super) topic: &'static str,
    pub(super) state: S,
    pub(super) config: ConsumerConfig,
    pub(super) routes: Routes<S, B>,
    pub(super) ignore_other_types: bool,
    pub(super) in_turn: bool,
    pub(super) pausing: Pausing,
}

/// What came of a delivery.
pub(super) enum Outcome {
    Handled,
    /// The inbox had it.
    Repeated,
    /// Nobody here wants this type, or it was sent again for another group.
    Ignored,
    /// Those behind it have gone on, and it is not wanted any more.
    Skipped,
    /// The message before it was not handled yet: it comes again after this time.
    Early(Duration),
    /// It failed, and this is what is to be done.
    Failed(Error, Verdict),
    /// The drain deadline came first.
    Interrupted,
}

/// Whether the database cannot be used just now.
fn is_away(error: &Error) -> bool {
    error.code().is_retryable()
}

/// A try that failed.
pub(super) struct NotDone {
    pub(super) error: Error,
    /// Whether the handler was called; before that, only the database can be at fault.
    begun: bool,
}

impl<S, B> Handling<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Handles a delivery and answers it. `interrupt` ends the handler; the message is
    /// then given back. If it was given back, says for how long those behind it wait.
    pub(super) async fn run(
        &self,
        held: InHand,
        interrupt: &CancellationToken,
    ) -> Option<Duration> {
        let started = Instant::now();
        let context =
            propagation::extract_from_within(&self.env, |name| held.delivery.message.header(name))
                .without_deadline();
        let mut span = self.span(&context, &held.delivery);
        let work = async {
            let delivery = &held.delivery;
            let outcome = self.until_done(delivery, interrupt).await;
            if let Outcome::Failed(error, _) = &outcome {
                span.fail(error.message().to_owned());
            }
            self.log(&delivery.message, delivery.attempt, &outcome, started.elapsed());
            self.answer(held, outcome).await
        };
        context.scope(work).await
    }

    /// Counts a message into hand.
    pub(super) fn count(&self) -> Counted {
        self.meters.in_flight.inc();
        Counted { _all: self.env.in_flight().enter("message"), here: self.meters.in_flight.clone() }
    }

    fn span(&self, context: &Context, delivery: &Delivery) -> Span {
        let mut span = Span::start(context, SpanKind::Consumer, format!("process {}", self.topic));
        if span.is_recording() {
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", self.topic);
            span.set("messaging.consumer.group.name", self.group.clone());
            span.set("messaging.message.id", delivery.message.id.clone());
            span.set("messaging.delivery.attempt", delivery.attempt.to_string());
            // The parent is the publish; what appended the message stands above it.
            if let Some(appended) = appended_by(&delivery.message, context.trace()) {
                span.link(appended);
            }
        }
        span
    }

    /// Tries until it is done or given up, and tells the broker meanwhile that
    /// somebody is at it.
    async fn until_done(&self, delivery: &Delivery, interrupt: &CancellationToken) -> Outcome {
        let done = async {
            let mut alive = self.signs_of_life();
            let mut tries = std::pin::pin!(self.tries(delivery));
            loop {
                tokio::select! {
                    outcome = &mut tries => return Some(outcome),
                    () = interrupt.cancelled() => return None,
                    _ = alive.tick() => still_at(delivery).await,
                }
            }
        };
        // The try and its transaction are gone by then.
        match done.await {
            Some(outcome) => outcome,
            None => {
                self.acquit(delivery).await;
                Outcome::Interrupted
            }
        }
    }

    /// When the broker should hear that somebody is at it: well within its patience, and
    /// twice more if one gets lost.
    pub(super) fn signs_of_life(&self) -> Interval {
        let every = self.config.ack_wait / 3;
        let mut alive = interval_at(Instant::now() + every, every);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive
    }

    async fn tries(&self, delivery: &Delivery) -> Outcome {
        let message = &delivery.message;
        let attempt = self.attempt(delivery).await;
        if verdict::came_too_often(attempt, &self.config) {
            match self.on_trial(message).await {
                Ok(true) => {}
                Ok(false) => {
                    let error = Error::failed_precondition(
                        "DELIVERED_TOO_OFTEN",
                        "the message came again and again without being answered",
                    );
                    return Outcome::Failed(error, Verdict::Dead);
                }
                Err(error) => {
                    let wait = verdict::unburied(attempt, &self.config, fastrand::f64());
                    return Outcome::Failed(error, Verdict::Later(wait));
                }
            }
        }
        if is_for_another_group(message, &self.group) {
            return Outcome::Ignored;
        }
        if let Some(id) = message.header(GIVEN_UP) {
            return self.given_up(delivery, id).await;
        }
        let route = match self.routes.find(&message.kind, self.ignore_other_types) {
            Ok(Some(route)) => route,
            Ok(None) => {
                if let Some(early) = self.until_turn(delivery).await {
                    return early;
                }
                self.pass(message).await;
                return Outcome::Ignored;
            }
            Err(error) => match self.until_turn(delivery).await {
                Some(early) => return early,
                None => return self.failed(error, 1, attempt),
            },
        };
        if route.kind != message.kind {
            self.meters.upcast.inc();
        }
        let (mut tries, mut looks, mut patient) = (0, 0, true);
        loop {
            tries += 1;
            match self.one_try(route.handler, &[message], patient).await {
                Ok(turns) => match turns.first() {
                    Some(Turn::Noted) => return Outcome::Handled,
                    Some(Turn::Early) => {
                        (tries, looks) = (tries - 1, looks + 1);
                        match self.too_early(delivery, looks).await {
                            Next::Look(pause) => sleep(pause).await,
                            Next::GoOn => patient = false,
                            Next::Leave(outcome) => return outcome,
                        }
                    }
                    Some(Turn::Late) => return Outcome::Skipped,
                    Some(Turn::Repeated) | None => return Outcome::Repeated,
                },
                Err(NotDone { error, begun }) => match self.failed(error, tries, attempt) {
                    Outcome::Failed(error, Verdict::Now(pause)) => {
                        tracing::debug!(error = %error.chain(), tries, "handler failed, again");
                        self.meters.retried_now.inc();
                        sleep(pause).await;
                    }
                    // However often it came: what was not tried is not to blame.
                    Outcome::Failed(error, Verdict::Dead) if !begun && is_away(&error) => {
                        let wait = verdict::unburied(attempt, &self.config, fastrand::f64());
                        return Outcome::Failed(error, Verdict::Later(wait));
                    }
                    outcome => return outcome,
                },
            }
        }
    }

    /// Whether a message that came too often may be tried. The count says only that it was
    /// not answered: it may have killed those who tried it, or have waited in processes
    /// that went away. So each try of it is written down before it begins, and only after
    /// some that nobody lived to answer is it not tried any more.
    async fn on_trial(&self, message: &Message) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        for trial in 1..=verdict::TRIALS {
            let note = self.trial(trial);
            if self.inbox.first_time(&mut tx, &note, &message.id).await? {
                tx.commit().await?;
                return Ok(true);
            }
        }
        tx.rollback().await;
        Ok(false)
    }

    /// A try that was interrupted from outside says nothing against the message.
    async fn acquit(&self, delivery: &Delivery) {
        if !verdict::came_too_often(delivery.attempt, &self.config) {
            return;
        }
        let acquitted = async {
            let mut tx = self.db.begin().await?;
            for trial in 1..=verdict::TRIALS {
                self.inbox.forget(&mut tx, &self.trial(trial), &delivery.message.id).await?;
            }
            tx.commit().await
        };
        if let Err(error) = acquitted.await {
            tracing::debug!(error = %error.chain(), "the trial of a message stays written down");
        }
    }

    fn trial(&self, number: u32) -> String {
        format!("{} trial {number}", self.inbox_name)
    }

    fn failed(&self, error: Error, tries: u32, attempt: u32) -> Outcome {
        self.meters.failed.inc();
        let verdict = verdict::decide(&error, tries, attempt, &self.config, fastrand::f64());
        Outcome::Failed(error, verdict)
    }

    /// One transaction: notes and work. Says which messages were handled, and why others
    /// were not. Without patience a message is handled that is not in its turn.
    pub(super) async fn one_try(
        &self,
        handler: &dyn AnyHandler<S, B>,
        messages: &[&Message],
        patient: bool,
    ) -> std::result::Result<Vec<Turn>, NotDone> {
        let begun = AtomicBool::new(false);
        let done = self.transaction(handler, messages, patient, &begun).await;
        done.map_err(|error| NotDone { error, begun: begun.into_inner() })
    }

    async fn transaction(
        &self,
        handler: &dyn AnyHandler<S, B>,
        messages: &[&Message],
        patient: bool,
        begun: &AtomicBool,
    ) -> Result<Vec<Turn>> {
        let deadline = Deadline::after(self.config.handler_timeout);
        let context = Context::current().with_deadline(deadline);
        let transaction = async {
            let mut tx = self.db.begin().await?;
            let turns = self.turns(&mut tx, messages, patient).await?;
            let new = messages.iter().zip(&turns).filter(|(_, turn)| **turn == Turn::Noted);
            let new: Vec<&Message> = new.map(|(message, _)| *message).collect();
            if new.is_empty() {
                return Ok(turns);
            }
            begun.store(true, Ordering::Relaxed);
            handler.handle(self.state.clone(), &mut tx, &new).await?;
            failpoint::reach("handler.before_commit").await?;
            tx.commit().await?;
            Ok(turns)
        };
        let transaction = context.scope(deadline.run(transaction));
        match AssertUnwindSafe(transaction).catch_unwind().await {
            Ok(Ok(done)) => done,
            Ok(Err(late)) => Err(late),
            Err(_) => Err(Error::internal("the handler panicked")),
        }
    }

    /// Tells the broker, and whoever counts. If the message was given back, says for how
    /// long those behind it have to wait for it: another process may have got it.
    pub(super) async fn answer(&self, held: InHand, outcome: Outcome) -> Option<Duration> {
        let (attempt, took) = (held.delivery.attempt, held.since.elapsed());
        match Context::try_current() {
            Some(context) => {
                self.meters.duration.observe_traced(took.as_secs_f64(), context.trace());
            }
            None => self.meters.duration.observe(took.as_secs_f64()),
        }
        let InHand { delivery, permit, _hand, _counted, .. } = held;
        match &outcome {
            // Nothing failed, and a handler that fails has fewer of these than failures. The
            // second ones too: after a replay there is little else, and what fails for good
            // would be all that counts.
            Outcome::Handled | Outcome::Repeated | Outcome::Early(_) => permit.success(took),
            Outcome::Failed(..) => permit.failure(took),
            Outcome::Ignored | Outcome::Skipped | Outcome::Interrupted => permit.ignore(),
        }
        if failpoint::reach("handler.before_ack").await.is_err() {
            return Some(self.returned(Duration::ZERO));
        }
        let mut back = None;
        let answered = match outcome {
            Outcome::Handled => {
                self.meters.handled.inc();
                self.meters.attempts.observe(f64::from(attempt));
                delivery.ack().await
            }
            Outcome::Repeated => {
                self.meters.repeated.inc();
                delivery.ack().await
            }
            Outcome::Ignored => {
                self.meters.ignored.inc();
                delivery.ack().await
            }
            Outcome::Skipped => {
                self.meters.late_skipped.inc();
                delivery.ack().await
            }
            Outcome::Early(delay) => {
                self.meters.early.inc();
                back = Some(delay);
                delivery.defer(delay).await
            }
            Outcome::Interrupted => {
                back = Some(self.returned(Duration::ZERO));
                delivery.nak(Duration::ZERO).await
            }
            Outcome::Failed(_, Verdict::Later(delay) | Verdict::Now(delay)) => {
                self.meters.retried_later.inc();
                back = Some(self.returned(delay));
                delivery.nak(delay).await
            }
            Outcome::Failed(error, Verdict::Dead) => {
                let letter = dead_letter(&delivery.message, &self.group, attempt, &error);
                match self.broker.publish(letter).await {
                    Ok(()) => {
                        self.pass(&delivery.message).await;
                        self.meters.dead.inc();
                        self.meters.attempts.observe(f64::from(attempt));
                        delivery.term().await
                    }
                    Err(error) => {
                        tracing::error!(error = %error.chain(), "the dead letter was not taken");
                        let wait = verdict::unburied(attempt, &self.config, fastrand::f64());
                        back = Some(self.returned(wait));
                        delivery.nak(wait).await
                    }
                }
            }
        };
        told(answered);
        back
    }

    /// Within which time a message is back that comes again after a delay.
    fn returned(&self, delay: Duration) -> Duration {
        delay + self.config.ack_wait + GRACE
    }

    /// Gives a message back that nobody tried.
    pub(super) async fn release(&self, held: InHand) {
        self.meters.released.inc();
        held.permit.ignore();
        told(held.delivery.release().await);
    }

    /// The one line of each delivery.
    fn log(&self, message: &Message, attempt: u32, outcome: &Outcome, took: Duration) {
        let Message { topic, id, kind, .. } = message;
        let ms = took.as_secs_f64() * 1000.0;
        macro_rules! line {
            ($level:ident, $text:literal $(, $($extra:tt)*)?) => {
                tracing::$level!(
                    %topic, message_id = %id, %kind, attempt, duration_ms = ms,
                    $($($extra)*,)? $text
                )
            };
        }
        match outcome {
            Outcome::Handled => line!(info, "message handled"),
            Outcome::Repeated => line!(info, "message was handled before"),
            Outcome::Skipped => line!(warn, "message left, those behind it have gone on"),
            Outcome::Early(_) => line!(debug, "message came too early, again later"),
            Outcome::Ignored => line!(debug, "message passed over, it is for others"),
            Outcome::Interrupted => line!(warn, "message given back, the drain time is over"),
            Outcome::Failed(error, Verdict::Dead) => line!(
                error,
                "message failed for good",
                error.code = error.code().as_str(),
                error.reason = error.reason(),
                error = %error.chain()
            ),
            Outcome::Failed(error, verdict) => line!(
                warn,
                "message failed, again later",
                error.code = error.code().as_str(),
                error.reason = error.reason(),
                error = %error.chain(),
                ?verdict
            ),
        }
    }
}

/// A message in hand is counted until this is dropped, also where its task is aborted.
pub(super) struct Counted {
    _all: InFlightGuard,
    here: Gauge,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.here.dec();
    }
}

/// Asks the broker for more time.
pub(super) async fn still_at(delivery: &Delivery) {
    if let Err(error) = delivery.in_progress().await {
        tracing::debug!(error = %error.chain(), "cannot ask for more time");
    }
}

/// Where the message was appended, in the trace of its publish.
pub(super) fn appended_by(message: &Message, publish: &TraceContext) -> Option<TraceContext> {
    let span_id = SpanId::parse(message.header(APPENDED_BY)?)?;
    Some(TraceContext { span_id, parent: None, ..publish.clone() })
}

fn told(answered: Result<()>) {
    if let Err(error) = answered {
        tracing::warn!(error = %error.chain(), "the broker took no answer; it comes again");
    }
}
