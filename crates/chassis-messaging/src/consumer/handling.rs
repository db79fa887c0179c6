//! One delivery from the hand to its answer; several together are in [`batches`].
//!
//! [`batches`]: super::batches

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chassis_core::{
    Context, Deadline, Env, Error, Gauge, InFlightGuard, Result, Span, SpanId, SpanKind,
    TraceContext, propagation,
};
use chassis_data::{Backend, Db};
use chassis_resilience::Permit;
use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::config::ConsumerConfig;
use super::dead_letter::dead_letter;
use super::handler::AnyHandler;
use super::meters::Meters;
use super::pausing::Pausing;
use super::routes::Routes;
use super::verdict::{self, Verdict};
use crate::broker::{Broker, Delivery};
use crate::dead_letters::is_for_another_group;
use crate::failpoint;
use crate::inbox::Inbox;
use crate::message::{APPENDED_BY, Message};

/// A message in hand, until it is answered.
pub(super) struct InHand {
    pub(super) delivery: Delivery,
    /// What its outcome is told to.
    pub(super) permit: Permit,
    pub(super) since: Instant,
    pub(super) _hand: OwnedSemaphorePermit,
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
    pub(super) pausing: Pausing,
}

/// What came of a delivery.
pub(super) enum Outcome {
    Handled,
    /// The inbox had it.
    Repeated,
    /// Nobody here wants this type, or it was sent again for another group.
    Ignored,
    /// It failed, and this is what is to be done.
    Failed(Error, Verdict),
    /// The drain deadline came first.
    Interrupted,
}

impl<S, B> Handling<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Handles a delivery and answers it. `interrupt` ends the handler; the message is
    /// then given back. If it was given back, says for how long.
    pub(super) async fn run(
        &self,
        held: InHand,
        interrupt: &CancellationToken,
    ) -> Option<Duration> {
        let started = Instant::now();
        let context = propagation::extract(&self.env, |name| held.delivery.message.header(name))
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
        let mut alive = self.signs_of_life();
        let mut tries = std::pin::pin!(self.tries(delivery));
        loop {
            tokio::select! {
                outcome = &mut tries => return outcome,
                () = interrupt.cancelled() => return Outcome::Interrupted,
                _ = alive.tick() => still_at(delivery).await,
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
        let Delivery { message, attempt, .. } = delivery;
        if verdict::came_too_often(*attempt, &self.config) {
            let error = Error::failed_precondition(
                "DELIVERED_TOO_OFTEN",
                "the message came again and again without being answered",
            );
            return Outcome::Failed(error, Verdict::Dead);
        }
        if is_for_another_group(message, &self.group) {
            return Outcome::Ignored;
        }
        let route = match self.routes.find(&message.kind, self.ignore_other_types) {
            Ok(Some(route)) => route,
            Ok(None) => return Outcome::Ignored,
            Err(error) => return self.failed(error, 1, *attempt),
        };
        if route.kind != message.kind {
            self.meters.upcast.inc();
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.one_try(route.handler, &[message]).await {
                Ok(first) if first.contains(&true) => return Outcome::Handled,
                Ok(_) => return Outcome::Repeated,
                Err(error) => match self.failed(error, tries, *attempt) {
                    Outcome::Failed(error, Verdict::Now(pause)) => {
                        tracing::debug!(error = %error.chain(), tries, "handler failed, again");
                        self.meters.retried_now.inc();
                        sleep(pause).await;
                    }
                    outcome => return outcome,
                },
            }
        }
    }

    fn failed(&self, error: Error, tries: u32, attempt: u32) -> Outcome {
        self.meters.failed.inc();
        let verdict = verdict::decide(&error, tries, attempt, &self.config, fastrand::f64());
        Outcome::Failed(error, verdict)
    }

    /// One transaction: notes and work. Says which messages were not handled before.
    pub(super) async fn one_try(
        &self,
        handler: &dyn AnyHandler<S, B>,
        messages: &[&Message],
    ) -> Result<Vec<bool>> {
        let deadline = Deadline::after(self.config.handler_timeout);
        let context = Context::current().with_deadline(deadline);
        let transaction = async {
            let mut tx = self.db.begin().await?;
            let first = match messages {
                [one] => vec![self.inbox.first_time(&mut tx, &self.inbox_name, &one.id).await?],
                several => {
                    let ids: Vec<&str> = several.iter().map(|one| one.id.as_str()).collect();
                    self.inbox.first_times(&mut tx, &self.inbox_name, &ids).await?
                }
            };
            let new = messages.iter().zip(&first).filter(|(_, first)| **first);
            let new: Vec<&Message> = new.map(|(message, _)| *message).collect();
            if new.is_empty() {
                return Ok(first);
            }
            handler.handle(self.state.clone(), &mut tx, &new).await?;
            failpoint::reach("handler.before_commit").await?;
            tx.commit().await?;
            Ok(first)
        };
        let transaction = context.scope(deadline.run(transaction));
        match AssertUnwindSafe(transaction).catch_unwind().await {
            Ok(Ok(done)) => done,
            Ok(Err(late)) => Err(late),
            Err(_) => Err(Error::internal("the handler panicked")),
        }
    }

    /// Tells the broker, and whoever counts. If the message was given back, says for how
    /// long.
    pub(super) async fn answer(&self, held: InHand, outcome: Outcome) -> Option<Duration> {
        let (attempt, took) = (held.delivery.attempt, held.since.elapsed());
        self.meters.duration.observe(took.as_secs_f64());
        let InHand { delivery, permit, _hand, _counted, .. } = held;
        match &outcome {
            Outcome::Handled => permit.success(took),
            Outcome::Failed(..) => permit.failure(took),
            Outcome::Repeated | Outcome::Ignored | Outcome::Interrupted => permit.ignore(),
        }
        if failpoint::reach("handler.before_ack").await.is_err() {
            return Some(Duration::ZERO);
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
            Outcome::Interrupted => {
                back = Some(Duration::ZERO);
                delivery.nak(Duration::ZERO).await
            }
            Outcome::Failed(_, Verdict::Later(delay) | Verdict::Now(delay)) => {
                self.meters.retried_later.inc();
                back = Some(delay);
                delivery.nak(delay).await
            }
            Outcome::Failed(error, Verdict::Dead) => {
                let letter = dead_letter(&delivery.message, &self.group, attempt, &error);
                match self.broker.publish(letter).await {
                    Ok(()) => {
                        self.meters.dead.inc();
                        self.meters.attempts.observe(f64::from(attempt));
                        delivery.term().await
                    }
                    Err(error) => {
                        tracing::error!(error = %error.chain(), "the dead letter was not taken");
                        let wait = verdict::unburied(attempt, &self.config, fastrand::f64());
                        back = Some(wait);
                        delivery.nak(wait).await
                    }
                }
            }
        };
        told(answered);
        back
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
