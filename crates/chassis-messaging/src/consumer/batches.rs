//! Several deliveries in one transaction: lanes, batches, and the search for poison.
//!
//! A lane is one line of work. It collects what comes, hands as many consecutive events
//! of one type to the batch handler as there are, and what has a handler for single
//! events to that, so the order of each key is the order of its lane.
//!
//! A lane waits for more as long as more can come. Once all hands are taken nothing does,
//! unless a lane lets go of some: then one that holds enough for a transaction begins.
//!
//! A batch that fails is tried in halves until the event that fails is alone: that one
//! goes the way of any message that fails, and the others are done, so that nobody else's
//! attempts are used up. What is behind it in its key goes back to the broker, uncounted,
//! and is not taken here before it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Context, Error, Span, SpanKind, TraceContext, propagation};
use chassis_data::Backend;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::handling::{Handling, InHand, NotDone, Outcome, appended_by, still_at};
use super::pulling::Hands;
use super::routes::Route;
use super::verdict;
use crate::dead_letters::is_for_another_group;
use crate::inbox::Turn;
use crate::message::Message;

/// This part of a batch is worth a transaction where there are no more hands.
const ENOUGH: usize = 4;

/// What ends a lane.
#[derive(Clone, Default)]
pub(super) struct Ends {
    /// Finish what is begun, give back the rest.
    pub(super) stop: CancellationToken,
    /// Give back what is begun too.
    pub(super) interrupt: CancellationToken,
}

pub(super) struct Lane<S, B: Backend> {
    handling: Arc<Handling<S, B>>,
    ends: Ends,
    queue: mpsc::Receiver<InHand>,
    waiting: VecDeque<InHand>,
    hands: Arc<Hands>,
    /// By key, the message that was given back and must come before others of the key,
    /// and how long to wait for it: another process may have got it.
    expected: HashMap<String, (String, Instant)>,
}

impl<S, B> Lane<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    pub(super) fn new(
        handling: Arc<Handling<S, B>>,
        ends: Ends,
        queue: mpsc::Receiver<InHand>,
        hands: Arc<Hands>,
    ) -> Lane<S, B> {
        let (waiting, expected) = (VecDeque::new(), HashMap::new());
        Lane { handling, ends, queue, waiting, hands, expected }
    }

    /// Runs until it is stopped or nobody sends any more.
    pub(super) async fn run(mut self) {
        while self.collect().await {
            let size = self.handling.config.batch.size.min(self.waiting.len());
            let batch: Vec<InHand> = self.waiting.drain(..size).collect();
            self.work(batch).await;
        }
        self.queue.close();
        while let Some(held) = self.queue.recv().await {
            self.waiting.push_back(held);
        }
        for held in std::mem::take(&mut self.waiting) {
            self.handling.release(held).await;
        }
    }

    /// Collects a batch; `false` at the end.
    async fn collect(&mut self) -> bool {
        let config = &self.handling.config;
        let (size, within) = (config.batch.size, config.batch.within.min(config.ack_wait / 3));
        // Not `self`, which is borrowed anew in each turn.
        let hands = self.hands.clone();
        loop {
            // Before the look, so that what comes in between is heard.
            let all_taken = hands.all_taken();
            let is_enough = self.waiting.len() >= size.div_ceil(ENOUGH);
            let is_full = self.waiting.len() >= size || is_enough && hands.are_taken();
            let due = self.waiting.front().map(|first| first.since + within);
            if is_full || due.is_some_and(|due| due <= Instant::now()) {
                return !self.ends.stop.is_cancelled();
            }
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.ends.stop.cancelled() => return false,
                held = self.queue.recv() => match held {
                    Some(held) => self.waiting.push_back(held),
                    None => return !self.waiting.is_empty(),
                },
                () = all_taken, if is_enough => {}
                () = due => {}
            }
        }
    }

    /// Does a batch, part by part.
    async fn work(&mut self, batch: Vec<InHand>) {
        let mut parts = self.parts(batch);
        // Those that had to wait for their turn: what is behind them need not be looked at.
        let mut early: HashSet<String> = HashSet::new();
        while let Some(mut part) = parts.pop_front() {
            if self.ends.interrupt.is_cancelled() || self.handling.pausing.is_open() {
                for held in part {
                    self.handling.release(held).await;
                }
                continue;
            }
            part = self.without_those_behind(part).await;
            let handling = self.handling.clone();
            let interrupt = self.ends.interrupt.clone();
            if part.len() > 1 {
                let tried = self.meanwhile(&parts, handling.try_together(part, &interrupt)).await;
                match tried {
                    Tried::Done => {}
                    Tried::Failed(mut failed) => {
                        let second = failed.split_off(failed.len() / 2);
                        parts.push_front(second);
                        parts.push_front(failed);
                    }
                    // One by one: each waits for its turn.
                    Tried::Early(early) => {
                        early.into_iter().rev().for_each(|held| parts.push_front(vec![held]));
                    }
                }
            } else if let Some(held) = part.pop() {
                let Message { key, id, .. } = held.delivery.message.clone();
                let waits = handling.waits(&held.delivery.message);
                if waits && key.as_ref().is_some_and(|key| early.contains(key)) {
                    handling.too_soon(held).await;
                    continue;
                }
                let back = self.meanwhile(&parts, handling.run(held, &interrupt)).await;
                if waits && back.is_some() {
                    early.extend(key);
                } else {
                    self.note(key, id, back);
                }
            }
        }
    }

    /// Cuts a batch where the handler changes.
    fn parts(&self, batch: Vec<InHand>) -> VecDeque<Vec<InHand>> {
        let mut parts: VecDeque<Vec<InHand>> = VecDeque::new();
        let mut last = None;
        for held in batch {
            let kind = self.handling.batch_route(&held).map(|route| route.kind);
            match parts.back_mut() {
                Some(part) if kind.is_some() && kind == last => part.push(held),
                _ => parts.push_back(vec![held]),
            }
            last = kind;
        }
        parts
    }

    /// Gives back what must wait for an earlier one of its key.
    async fn without_those_behind(&mut self, part: Vec<InHand>) -> Vec<InHand> {
        if self.expected.is_empty() {
            return part;
        }
        let now = Instant::now();
        self.expected.retain(|_, (_, until)| *until > now);
        let mut mine = Vec::with_capacity(part.len());
        for held in part {
            let Message { key, id, .. } = &held.delivery.message;
            match key.as_ref().and_then(|key| self.expected.get(key)) {
                // One that knows what comes before it finds out by itself.
                Some((expected, _))
                    if expected != id && !self.handling.waits(&held.delivery.message) =>
                {
                    self.handling.release(held).await;
                }
                _ => mine.push(held),
            }
        }
        mine
    }

    fn note(&mut self, key: Option<String>, id: String, back: Option<Duration>) {
        let Some(key) = key else { return };
        match back {
            Some(delay) => {
                let until = Instant::now() + delay;
                self.expected.insert(key, (id, until));
            }
            None => {
                self.expected.remove(&key);
            }
        }
    }

    /// Runs some work, takes what comes meanwhile, and tells the broker of all that
    /// waits here that it is not forgotten.
    async fn meanwhile<F: Future>(&mut self, parts: &VecDeque<Vec<InHand>>, work: F) -> F::Output {
        let mut alive = self.handling.signs_of_life();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(held) = self.queue.recv() => self.waiting.push_back(held),
                _ = alive.tick() => {
                    for held in parts.iter().flatten().chain(&self.waiting) {
                        still_at(&held.delivery).await;
                    }
                }
            }
        }
    }
}

/// What came of a batch.
enum Tried {
    Done,
    /// None of it is done.
    Failed(Vec<InHand>),
    /// All is done but for these, whose turn it is not.
    Early(Vec<InHand>),
}

impl<S, B> Handling<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// The batch handler of a message; `None` where it is one to be looked at alone.
    fn batch_route(&self, held: &InHand) -> Option<Route<'_, S, B>> {
        let message = &held.delivery.message;
        let alone = verdict::came_too_often(held.delivery.attempt, &self.config)
            || is_for_another_group(message, &self.group);
        let route = self.routes.find(&message.kind, true).ok().flatten();
        route.filter(|route| !alone && route.handler.takes_batches())
    }

    /// Tries a batch in one transaction.
    async fn try_together(&self, part: Vec<InHand>, interrupt: &CancellationToken) -> Tried {
        let started = Instant::now();
        let context = Context::background(&self.env);
        let mut span = Span::start(&context, SpanKind::Consumer, format!("process {}", self.topic));
        if span.is_recording() {
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", self.topic);
            span.set("messaging.consumer.group.name", self.group.clone());
            span.set("messaging.batch.message_count", part.len().to_string());
            part.iter().for_each(|held| link(&mut span, &held.delivery.message));
        }
        let Some(route) = part.first().and_then(|held| self.batch_route(held)) else {
            return Tried::Failed(part);
        };
        let messages: Vec<&Message> = part.iter().map(|held| &held.delivery.message).collect();
        let old = messages.iter().filter(|message| message.kind != route.kind).count() as u64;
        let work = async {
            let mut alive = self.signs_of_life();
            let mut tried = std::pin::pin!(self.one_try(route.handler, &messages, true));
            loop {
                tokio::select! {
                    result = &mut tried => return Some(result),
                    () = interrupt.cancelled() => return None,
                    _ = alive.tick() => {
                        for held in &part {
                            still_at(&held.delivery).await;
                        }
                    }
                }
            }
        };
        let tried = context.clone().scope(work).await;
        let (count, topic) = (part.len(), self.topic);
        let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
        let log = async {
            match tried {
                Some(Ok(turns)) => {
                    let handled = turns.iter().filter(|turn| **turn == Turn::Noted).count();
                    tracing::info!(topic, count, handled, duration_ms, "batch handled");
                    self.meters.batches.observe(handled as f64);
                    self.meters.upcast.add(old);
                    let mut early = Vec::new();
                    for (held, turn) in part.into_iter().zip(turns) {
                        let outcome = match turn {
                            Turn::Noted => Outcome::Handled,
                            Turn::Repeated => Outcome::Repeated,
                            Turn::Late => Outcome::Skipped,
                            Turn::Early => {
                                early.push(held);
                                continue;
                            }
                        };
                        self.answer(held, outcome).await;
                    }
                    if early.is_empty() { Tried::Done } else { Tried::Early(early) }
                }
                Some(Err(NotDone { error, .. })) => {
                    span.fail(error.message().to_owned());
                    self.meters.batches_split.inc();
                    self.say_split(count, duration_ms, &error);
                    Tried::Failed(part)
                }
                None => {
                    tracing::warn!(topic, count, "batch given back, the drain time is over");
                    for held in part {
                        self.answer(held, Outcome::Interrupted).await;
                    }
                    Tried::Done
                }
            }
        };
        context.scope(log).await
    }

    fn say_split(&self, count: usize, duration_ms: f64, error: &Error) {
        let topic = self.topic;
        tracing::warn!(
            topic, count, duration_ms,
            error.code = error.code().as_str(),
            error.reason = error.reason(),
            error = %error.chain(),
            "batch failed, trying its halves"
        );
    }
}

/// Links the publish of a message, and what appended it.
fn link(span: &mut Span, message: &Message) {
    let Some(publish) = message.header(propagation::TRACEPARENT).and_then(TraceContext::parse)
    else {
        return;
    };
    if let Some(appended) = appended_by(message, &publish) {
        span.link(appended);
    }
    span.link(publish);
}
