//! Typed handlers: each event takes effect once, a poison message stops nobody.
//!
//! A [`Consumer`] is a component of the process. For each topic it holds one
//! subscription and as many hands as `concurrency` says; it never takes more than
//! it has hands for. A handler gets the transaction that its inbox note is in, so
//! work and note commit together: a delivery that comes again finds the note.
//!
//! What happens to a message that fails:
//!
//! 1. It is tried again at once, a few times: most failures are a lost race in
//!    the database.
//! 2. It goes back to the broker with a growing, jittered delay. Its key waits
//!    with it, other keys go on.
//! 3. After `max_attempts` deliveries, or at once where trying again cannot help
//!    (an unknown type, an unreadable payload, `INVALID_ARGUMENT`), it goes to
//!    `dlq.<group>.<topic>` with the reason in its headers. Only when the broker
//!    has confirmed that is the original given up. There somebody can look at it and
//!    send it again: see [`dead_letters`].
//!
//! Where most deliveries of a topic fail, the fault is seldom theirs: the topic is left
//! alone for a growing while (see [`PauseConfig`]), then a few messages are tried. What
//! was fetched and not tried goes back to the broker and is not counted as an attempt;
//! what was tried is. A paused topic makes the process `Degraded`.
//!
//! A handler that takes longer than `ack_wait` is announced to the broker three times
//! within each, so its message does not come again meanwhile. Older versions of an event
//! are [turned into the one that the handler knows](crate::event::Upcasts).
//!
//! | metric, by group and topic | what it says |
//! |---|---|
//! | `consumer_lag{state}` | what the broker has for the group: `waiting`, `unanswered` |
//! | `consumer_in_flight` | messages in hand |
//! | `consumer_handled`, `_repeated`, `_ignored` | done; found in the inbox; not for this group |
//! | `consumer_failed`, `consumer_retried{how}` | tries that failed; tries after that |
//! | `consumer_attempts` | deliveries until a message was done or given up |
//! | `consumer_dead_lettered`, `consumer_released` | given up; given back untried |
//! | `consumer_handle_seconds` | from the delivery to its answer |
//! | `consumer_batch_events`, `consumer_batches_split` | batches committed; batches halved |
//! | `consumer_upcast` | messages of an older version |
//! | `consumer_early`, `consumer_gaps{end}`, `consumer_late{end}` | sent back because the one before was not handled; handled or given up without it; came after those behind them |
//! | `consumer_paused`, `consumer_pauses` | whether the topic is left alone; how often |
//!
//! A broker keeps the order of a key as well as it can; several processes of one group
//! on JetStream may overtake each other. Where that must not be, the consumer takes the
//! messages [in turn](Consumer::in_turn): each waits for the one before it, whoever has it.
//!
//! The consumer also keeps its inbox: it refuses to start where the notes would
//! be gone before the broker stops redelivering, and removes old notes.
//!
//! A handler that panics or takes too long has failed, nothing more. While the
//! process is unhealthy the consumer takes no messages. On shutdown it stops
//! taking, lets the handlers finish until the drain deadline and gives back the
//! rest.

mod batches;
mod config;
mod dead_letter;
mod handler;
mod handling;
mod in_turn;
mod lag;
mod meters;
mod pausing;
mod pulling;
mod routes;
mod verdict;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use chassis_core::{BoxFuture, Component, Env, Error, Ready, Result, Shutdown};
use chassis_data::{Backend, Db};
use tokio::task::JoinSet;

pub use config::{BatchConfig, ConsumerConfig, InTurnConfig, Late, Overdue, PauseConfig};
#[cfg(test)]
pub(crate) use dead_letter::dead_letter;
pub use dead_letter::{
    HEADER_ATTEMPTS, HEADER_CODE, HEADER_DIED_AT, HEADER_EDITED_AT, HEADER_EDITS, HEADER_GROUP,
    HEADER_MESSAGE, HEADER_ORIGINAL_ID, HEADER_ORIGINAL_TIME, HEADER_ORIGINAL_TOPIC, HEADER_REASON,
    HEADER_REDRIVES, dead_letter_topic,
};
pub use handler::{BatchHandler, Handler};

use self::handler::{AnyHandler, Batched, Typed};
use self::handling::Handling;
use self::meters::Meters;
use self::pausing::Pausing;
use self::pulling::Pulling;
use self::routes::Routes;
use crate::broker::Broker;
use crate::dead_letters::{self, DeadLetters};
use crate::event::Event;
use crate::inbox::Inbox;
use crate::topic::{validate_group, validate_topic};

/// Handles the events of one group: a component.
///
/// ```no_run
/// # use chassis_core::Result;
/// # use chassis_data::{Db, Tx};
/// # use chassis_messaging::{Broker, Consumer, Event};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct GreetingSaid { name: String }
/// # impl Event for GreetingSaid {
/// #     const TOPIC: &'static str = "greetings.said";
/// #     const TYPE: &'static str = "greeting-said.v1";
/// #     fn key(&self) -> Option<String> { Some(self.name.clone()) }
/// # }
/// #[derive(Clone)]
/// struct Counter;
///
/// async fn count(_state: Counter, tx: &mut Tx, event: GreetingSaid) -> Result<()> {
///     let sql = "insert into greetings (name) values ($1)";
///     tx.execute(sql, chassis_data::params![event.name]).await.map(drop)
/// }
///
/// fn consumer(broker: &Broker, db: &Db) -> Consumer<Counter> {
///     Consumer::new(broker, db, "counter", Counter).on::<GreetingSaid>(count)
/// }
/// ```
#[must_use = "a consumer does nothing until it runs as a component"]
pub struct Consumer<S, B: Backend = sqlx::Any> {
    broker: Broker,
    db: Db<B>,
    inbox: Inbox<B>,
    group: String,
    state: S,
    config: ConsumerConfig,
    topics: BTreeMap<&'static str, Routes<S, B>>,
    ignore_other_types: bool,
    in_turn: bool,
    /// Some event says what comes before it.
    has_turns: bool,
    /// What was wrong while it was put together; said when it is checked.
    problem: Option<String>,
}

impl<S, B> Consumer<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// A consumer for `group`, usually the name of the service. Each handler gets
    /// a clone of `state`. The tables of [`Inbox::migrations`] must be in `db`.
    pub fn new(broker: &Broker, db: &Db<B>, group: impl Into<String>, state: S) -> Self {
        Consumer {
            broker: broker.clone(),
            db: db.clone(),
            inbox: Inbox::new(db),
            group: group.into(),
            state,
            config: ConsumerConfig::default(),
            topics: BTreeMap::new(),
            ignore_other_types: false,
            in_turn: false,
            has_turns: false,
            problem: None,
        }
    }

    /// The same consumer with other settings.
    pub fn with_config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// The same consumer with an inbox of other settings, in the same database.
    pub fn with_inbox(mut self, inbox: Inbox<B>) -> Self {
        self.inbox = inbox;
        self
    }

    /// Handles `E` with a named `async fn(state, tx, event) -> Result<()>`.
    ///
    /// A second handler for the same type is an error when the consumer starts.
    pub fn on<E: Event>(self, handler: impl for<'a> Handler<'a, S, B, E>) -> Self {
        self.add::<E>(Arc::new(Typed::<E, _>::new(handler)))
    }

    /// Handles `E` several at a time with a named
    /// `async fn(state, tx, Vec<E>) -> Result<()>`: what came within
    /// [`BatchConfig::within`], up to [`BatchConfig::size`], in one transaction with one
    /// commit.
    ///
    /// It gets only events that were not handled before, in their order within a key.
    /// Where it fails, the batch is tried in halves until the event that fails is alone;
    /// that one is retried and dead-lettered as any other, and the rest is done. So the
    /// handler must do the same for a batch as for its parts.
    ///
    /// All events of a topic with a batch handler go through its
    /// [lanes](BatchConfig::lanes) in their order, those for other handlers one by one.
    /// A second handler for the same type is an error when the consumer starts.
    pub fn on_batch<E: Event>(self, handler: impl for<'a> BatchHandler<'a, S, B, E>) -> Self {
        self.add::<E>(Arc::new(Batched::<E, _>::new(handler)))
    }

    fn add<E: Event>(mut self, handler: Arc<dyn AnyHandler<S, B>>) -> Self {
        self.has_turns |= E::IN_TURN;
        let routes = self.topics.entry(E::TOPIC).or_default();
        if !routes.add::<E>(handler) {
            self.problem = Some(format!("two handlers for {} on {}", E::TYPE, E::TOPIC));
        }
        self
    }

    /// Passes over event types that no handler names, instead of calling them
    /// dead: for a topic that carries more than this service wants to know. An
    /// unknown version of a known type still goes to the dead letters.
    pub fn ignoring_other_types(mut self) -> Self {
        self.ignore_other_types = true;
        self
    }

    /// Takes the events of a key strictly one after the other: one whose predecessor has
    /// not been handled by this group waits for it, also where another process has that
    /// one, or had it and died. For events that say [who that is](Event::IN_TURN), as far
    /// as they came out of one outbox; others are handled as they come.
    ///
    /// The wait is bounded, and what happens at its end is a matter of
    /// [settings](InTurnConfig). A dead letter is not waited for: it comes when somebody
    /// sends it again, which is out of turn.
    ///
    /// It costs no statement more for what comes in its turn, and one for each batch.
    pub fn in_turn(mut self) -> Self {
        self.in_turn = true;
        self
    }

    async fn consume(self, env: Env, ready: Ready, shutdown: Shutdown) -> Result<()> {
        self.validate()?;
        self.inbox.check_retention(self.broker.redelivers_within())?;
        if self.broker.browse().is_some() {
            let letters = DeadLetters::new(&self.broker, self.group.as_str())?;
            dead_letters::offer(&env, &letters);
        }
        let mut pulls = Vec::new();
        let mut lags = Vec::new();
        for (topic, routes) in self.topics {
            let meters = Meters::new(env.metrics(), &self.group, topic);
            lags.push(lag::Shown {
                topic,
                waiting: meters.waiting.clone(),
                unanswered: meters.unanswered.clone(),
            });
            let name = format!("{}:{topic}", self.group);
            let handling = Handling {
                pausing: Pausing::new(&env, &self.config.pause, name.clone(), &meters),
                env: env.clone(),
                broker: self.broker.clone(),
                db: self.db.clone(),
                inbox: self.inbox.clone(),
                meters,
                inbox_name: name,
                group: self.group.clone(),
                topic,
                state: self.state.clone(),
                config: self.config.clone(),
                routes,
                ignore_other_types: self.ignore_other_types,
                in_turn: self.in_turn,
            };
            pulls.push(Pulling::subscribe(Arc::new(handling), &shutdown).await?);
        }
        ready.ready();
        // Dropping the set, as an abort does, ends what it holds.
        let mut topics = JoinSet::new();
        for pull in pulls {
            topics.spawn(env.scope(pull.run(shutdown.clone())));
        }
        let (group, every) = (self.group.clone(), self.config.lag_every);
        let watch = lag::watch(self.broker.clone(), group, lags, every, shutdown.clone());
        topics.spawn(env.scope(watch));
        let cleaner = Box::new(self.inbox.cleaner());
        topics.spawn(env.scope(cleaner.run(env.clone(), Ready::channel().0, shutdown)));
        while let Some(ended) = topics.join_next().await {
            ended.map_err(Error::internal)??;
        }
        Ok(())
    }
}

impl<S, B> Component for Consumer<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    fn name(&self) -> Cow<'static, str> {
        "consumer".into()
    }

    fn describe(&self) -> String {
        let topics: Vec<_> = self.topics.keys().copied().collect();
        format!("{} hears {}", self.group, topics.join(", "))
    }

    fn validate(&self) -> Result<()> {
        if let Some(problem) = &self.problem {
            return Err(Error::failed_precondition("DUPLICATE_HANDLER", problem.clone()));
        }
        if self.in_turn && !self.has_turns {
            let text = "a consumer takes its events in turn, but none of them says what comes \
                        before it: set `Event::IN_TURN`";
            return Err(Error::failed_precondition("NO_EVENT_IN_TURN", text));
        }
        validate_group(&self.group)?;
        self.config.validate()?;
        for topic in self.topics.keys() {
            validate_topic(topic)?;
            validate_topic(&dead_letter_topic(&self.group, topic))?;
        }
        Ok(())
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(self.consume(env, ready, shutdown))
    }
}

impl<S, B: Backend> std::fmt::Debug for Consumer<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group)
            .field("topics", &self.topics.keys())
            .finish_non_exhaustive()
    }
}
