//! One delivery from the hand to its answer.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chassis_core::{Context, Deadline, Env, Error, Result, Span, SpanKind, propagation};
use chassis_data::{Backend, Db};
use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::config::ConsumerConfig;
use super::dead_letter::dead_letter;
use super::handler::AnyHandler;
use super::meters::Meters;
use super::routes::Routes;
use super::verdict::{self, Verdict};
use crate::broker::{Broker, Delivery};
use crate::dead_letters::is_for_another_group;
use crate::failpoint;
use crate::inbox::Inbox;
use crate::message::Message;

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
}

/// What came of a delivery.
enum Outcome {
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
    /// Handles a delivery and answers it. `interrupt` ends the handler; the
    /// message is then given back.
    pub(super) async fn run(&self, delivery: Delivery, interrupt: CancellationToken) {
        let _counted = self.env.in_flight().enter("message");
        self.meters.in_flight.inc();
        let _in_flight = Leaving(&self.meters);
        let started = Instant::now();
        let context = propagation::extract(&self.env, |name| delivery.message.header(name))
            .without_deadline();
        let mut span = self.span(&context, &delivery);
        let message = delivery.message.clone();
        let attempt = delivery.attempt;
        let work = async {
            let outcome = self.until_done(&delivery, &interrupt).await;
            if let Outcome::Failed(error, _) = &outcome {
                span.fail(error.message().to_owned());
            }
            self.log(&message, attempt, &outcome, started.elapsed());
            self.answer(delivery, outcome).await;
        };
        context.scope(work).await;
        self.meters.duration.observe(started.elapsed().as_secs_f64());
    }

    fn span(&self, context: &Context, delivery: &Delivery) -> Span {
        let mut span = Span::start(context, SpanKind::Consumer, format!("process {}", self.topic));
        if span.is_recording() {
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", self.topic);
            span.set("messaging.consumer.group.name", self.group.clone());
            span.set("messaging.message.id", delivery.message.id.clone());
            span.set("messaging.delivery.attempt", delivery.attempt.to_string());
        }
        span
    }

    /// Tries until it is done or given up, and tells the broker meanwhile that
    /// somebody is at it.
    async fn until_done(&self, delivery: &Delivery, interrupt: &CancellationToken) -> Outcome {
        let every = self.config.ack_wait / 3;
        let mut alive = interval_at(Instant::now() + every, every);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tries = std::pin::pin!(self.tries(delivery));
        loop {
            tokio::select! {
                outcome = &mut tries => return outcome,
                () = interrupt.cancelled() => return Outcome::Interrupted,
                _ = alive.tick() => {
                    if let Err(error) = delivery.in_progress().await {
                        tracing::debug!(error = %error.chain(), "cannot ask for more time");
                    }
                }
            }
        }
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
        let handler = match self.routes.find(&message.kind, self.ignore_other_types) {
            Ok(Some(handler)) => handler,
            Ok(None) => return Outcome::Ignored,
            Err(error) => return self.failed(error, 1, *attempt),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.one_try(handler, message).await {
                Ok(true) => return Outcome::Handled,
                Ok(false) => return Outcome::Repeated,
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

    /// One transaction: note and work. `false` if the note was there.
    async fn one_try(&self, handler: &dyn AnyHandler<S, B>, message: &Message) -> Result<bool> {
        let deadline = Deadline::after(self.config.handler_timeout);
        let context = Context::current().with_deadline(deadline);
        let transaction = async {
            let mut tx = self.db.begin().await?;
            if !self.inbox.first_time(&mut tx, &self.inbox_name, &message.id).await? {
                return Ok(false);
            }
            handler.handle(self.state.clone(), &mut tx, message).await?;
            failpoint::reach("handler.before_commit").await?;
            tx.commit().await?;
            Ok(true)
        };
        let transaction = context.scope(deadline.run(transaction));
        match AssertUnwindSafe(transaction).catch_unwind().await {
            Ok(Ok(done)) => done,
            Ok(Err(late)) => Err(late),
            Err(_) => Err(Error::internal("the handler panicked")),
        }
    }

    async fn answer(&self, delivery: Delivery, outcome: Outcome) {
        let attempt = delivery.attempt;
        if failpoint::reach("handler.before_ack").await.is_err() {
            return;
        }
        let answered = match outcome {
            Outcome::Handled => {
                self.meters.handled.inc();
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
            Outcome::Interrupted => delivery.nak(Duration::ZERO).await,
            Outcome::Failed(_, Verdict::Later(delay) | Verdict::Now(delay)) => {
                self.meters.retried_later.inc();
                delivery.nak(delay).await
            }
            Outcome::Failed(error, Verdict::Dead) => {
                let letter = dead_letter(&delivery.message, &self.group, attempt, &error);
                match self.broker.publish(letter).await {
                    Ok(()) => {
                        self.meters.dead.inc();
                        delivery.term().await
                    }
                    Err(error) => {
                        tracing::error!(error = %error.chain(), "the dead letter was not taken");
                        let wait = verdict::unburied(attempt, &self.config, fastrand::f64());
                        delivery.nak(wait).await
                    }
                }
            }
        };
        if let Err(error) = answered {
            tracing::warn!(error = %error.chain(), "the broker took no answer; it comes again");
        }
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

/// Counts a message out of hand, also where its task is aborted.
struct Leaving<'a>(&'a Meters);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}
