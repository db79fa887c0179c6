//! The task that pulls for one subscription.
//!
//! It asks for exactly as many messages as there are free hands, in a further request
//! while others stand once there are enough of them: to wait for the last message of a
//! request would leave hands idle for a round trip. The client's own message stream
//! fetches ahead, and what waits in its buffer runs out of its ack wait. Requests and
//! answers go over one inbox, so that messages arrive in the order in which the server
//! sent them.
//!
//! A request ends when all came, by a status that says how many did not (its time is up,
//! the consumer is gone), or by silence: the server sends a heartbeat while it has nothing
//! else to say. Of several it serves each in turn, and a message does not say which one it
//! is for, so what they may still bring is counted together. One that was lost while others
//! were served shows in nothing but that this count never comes down to nothing; so then it
//! begins anew now and then.
//!
//! A server does not always say that stream or consumer are gone, and answers nothing
//! to who asks a consumer that is not there (seen on 2.9.10). So it is asked about the
//! consumer after a silence, and when a stream is found to have lost its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, StatusCode, Subscriber};
use chassis_core::Result;
use futures_util::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::deliveries::{Answered, Held, JetStreamDeliveries, Owner, Pulled};
use super::key_order::KeyOrder;
use super::uncounted::Uncounted;
use super::{Shared, connect, headers, streams, unavailable};
use crate::broker::{Answer, Delivery, Subscription};
use crate::topic::segment;

/// How long a request stands before the server says that nothing came.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says that a request still stands.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// After this much silence a request counts as lost.
const SILENCE: Duration = Duration::from_secs(12);

/// Where so long always some message was still to come, the count begins anew. That may
/// bring as many as there are hands too many, which then wait here.
const COUNT_ANEW: Duration = Duration::from_secs(60);

/// While a request stands, another one is worth it once this part of all hands is free.
const WORTH_A_REQUEST: usize = 4;

/// How many bytes of messages may wait here for an earlier one of their key. Their number
/// is bounded by the server, which gives out no more than [`streams::MAX_ACK_PENDING`]; to
/// keep them all, where they fit, is to give none back that nobody tried.
const PARKED_BYTES: usize = 64 * 1024 * 1024;
/// What a message takes up beside its content.
const OVERHEAD: usize = 512;

/// For how long a message is given back that finds no place to wait; twice as long each
/// time, since the server counts them.
const NO_PLACE: Duration = Duration::from_secs(1);
const LONGEST_NO_PLACE: Duration = Duration::from_secs(60);

/// How much later than asked a message comes back that was to come after a delay.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// The pause after the server said that there is no such consumer, or refused a request.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);

/// How long the server gets for taking leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Makes stream and consumer and begins to pull.
pub(super) async fn start(
    shared: Arc<Shared>,
    subscription: Subscription,
) -> Result<JetStreamDeliveries> {
    shared.ensure_stream(&subscription.topic).await?;
    if let Err(first) = streams::ensure_consumer(&shared.context, &subscription).await {
        // The stream may have been deleted since it was last seen.
        tracing::debug!(error = %first.chain(), "looking at the stream again");
        shared.forget_stream(&subscription.topic);
        shared.ensure_stream(&subscription.topic).await?;
        streams::ensure_consumer(&shared.context, &subscription).await?;
    }
    let client = shared.context.client();
    let inbox = Inbox::open(&shared).await?;
    let most = subscription.max_in_flight;
    let (out, deliveries) = mpsc::channel(most);
    // Each delivery says one thing once, so this never overflows.
    let (answers, answered) = mpsc::channel(most * 2);
    let stream = segment(&subscription.topic);
    let durable = streams::durable_name(&subscription.group, &subscription.topic);
    let pullers = shared.pullers.clone();
    let uncounted = shared.uncounted.lock().entry(durable.clone()).or_default().clone();
    let (want, wanted) = watch::channel(true);
    let per_key = subscription.per_key;
    let owner = Arc::new(Owner {
        shared: shared.clone(),
        client: client.clone(),
        group: subscription.group.clone(),
        topic: subscription.topic.clone(),
        answers,
        uncounted: uncounted.clone(),
        numbering: AtomicU64::new(0),
    });
    let puller = Puller {
        client,
        owner,
        next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
        subscription,
        inbox,
        requests: Requests::new(),
        lines: KeyOrder::new(per_key, weight),
        in_hand: 0,
        out,
        answered,
        broken: false,
        uncounted,
        wanted,
        losses: shared.ledger.losses(),
        newest: 0,
        created: None,
        shared,
    };
    pullers.spawn(puller.run());
    Ok(JetStreamDeliveries::new(deliveries, want))
}

struct Inbox {
    name: String,
    subscriber: Subscriber,
    /// The number of the connection that it was opened over.
    connection: u64,
}

impl Inbox {
    async fn open(shared: &Shared) -> Result<Inbox> {
        // Before: if a new one is made meanwhile, this one counts as old, and is replaced.
        let connection = shared.connection();
        let client = shared.context.client();
        let name = client.new_inbox();
        let subscriber = client
            .subscribe(format!("{name}.*"))
            .await
            .map_err(|source| unavailable("NATS takes no subscription").with_source(source))?;
        Ok(Inbox { name, subscriber, connection })
    }
}

/// The requests for messages that stand.
struct Requests {
    /// The number of the last one.
    last: u64,
    /// Those before this one count no more, whatever the server still says of them.
    first: u64,
    /// Messages that they may still bring.
    left: usize,
    /// When they count as lost if nothing is heard.
    lost_at: Instant,
    /// When none was to come for the last time.
    none_at: Instant,
    /// Not to be sent before this: the last one was refused.
    not_before: Option<Instant>,
}

impl Requests {
    fn new() -> Requests {
        let now = Instant::now();
        Requests { last: 0, first: 1, left: 0, lost_at: now, none_at: now, not_before: None }
    }

    /// One more is sent; gives its number.
    fn add(&mut self, messages: usize) -> u64 {
        if self.left == 0 {
            self.none_at = Instant::now();
        }
        self.last += 1;
        self.left += messages;
        self.heard();
        self.last
    }

    /// So many messages came, or will not.
    fn less(&mut self, messages: usize) {
        self.left = self.left.saturating_sub(messages);
    }

    /// Begins to count anew if one of them may have been lost.
    fn doubt(&mut self) {
        if self.left > 0 && self.none_at.elapsed() >= COUNT_ANEW {
            self.forget();
        }
    }

    /// The server refused one; says whether that is news.
    fn refused(&mut self) -> bool {
        self.not_before.replace(Instant::now() + REPAIR_PAUSE).is_none()
    }

    /// Whether one may be sent.
    fn may_go(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// When to look after them at the latest.
    fn timer(&self) -> Option<Instant> {
        if self.left > 0 { Some(self.lost_at) } else { self.not_before.filter(|_| !self.may_go()) }
    }

    /// The server is there.
    fn heard(&mut self) {
        self.lost_at = Instant::now() + SILENCE;
    }

    /// None stands any more.
    fn forget(&mut self) {
        self.first = self.last + 1;
        self.left = 0;
    }

    /// Whether what comes at this address is of one that stands.
    fn stands(&self, subject: &str) -> bool {
        let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number| (self.first..=self.last).contains(&number))
    }
}

struct Puller {
    shared: Arc<Shared>,
    client: Client,
    /// What the deliveries share.
    owner: Arc<Owner>,
    subscription: Subscription,
    /// Where requests for messages go.
    next: String,
    inbox: Inbox,
    requests: Requests,
    /// Boxed: they are moved about in there.
    lines: KeyOrder<Box<Pulled>>,
    /// Deliveries without an answer.
    in_hand: usize,
    out: mpsc::Sender<Delivery>,
    answered: mpsc::Receiver<Answered>,
    /// Stream or consumer are gone, or not those that they were.
    broken: bool,
    /// Deliveries of this consumer that were in nobody's hands.
    uncounted: Arc<Mutex<Uncounted>>,
    /// Whether anybody waits for messages.
    wanted: watch::Receiver<bool>,
    /// Changes when a stream is found to have lost its end.
    losses: watch::Receiver<u64>,
    /// The highest number that came.
    newest: u64,
    /// When the stream was made.
    created: Option<i128>,
}

impl Puller {
    async fn run(mut self) {
        let shared = self.shared.clone();
        let mut connections = shared.connections.clone();
        let mut keep_alive = interval(self.subscription.ack_wait / 3);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_at_stream().await;
        loop {
            self.lines.advance(Instant::now());
            if !self.broken {
                self.hand_out();
            } else if self.in_hand == 0 {
                let out = self.out.clone();
                tokio::select! {
                    () = shared.closing.cancelled() => break,
                    () = out.closed() => break,
                    () = self.repair() => {}
                }
            }
            if self.inbox.connection != shared.connection() {
                self.reopen().await;
            }
            self.ask().await;
            let timer = self.requests.timer().into_iter().chain(self.lines.next_timer()).min();
            tokio::select! {
                () = shared.closing.cancelled() => break,
                () = self.out.closed() => break,
                message = self.inbox.subscriber.next() => match message {
                    Some(message) => self.receive_all(message).await,
                    None => self.reopen().await,
                },
                Some(answered) = self.answered.recv() => {
                    self.note(&answered);
                    while let Ok(answered) = self.answered.try_recv() {
                        self.note(&answered);
                    }
                }
                // Gone together with whoever listens, which ends the loop.
                Ok(()) = self.wanted.changed() => self.pause().await,
                // Looked at above.
                Ok(()) = connections.changed() => {}
                Ok(()) = self.losses.changed() => {
                    // By the number of the newest message alone that cannot be seen once as
                    // many came anew as were lost.
                    let lost = shared.ledger.of(segment(&self.subscription.topic)).is_lost();
                    self.trust_unless(lost);
                    self.look().await;
                }
                _ = keep_alive.tick() => self.keep_alive().await,
                () = until(timer) => self.check_silence().await,
            }
        }
        self.give_back().await;
    }

    fn hand_out(&mut self) {
        if !self.is_wanted() {
            return;
        }
        while self.in_hand < self.subscription.max_in_flight {
            let Some((pulled, ticket)) = self.lines.next() else { return };
            self.in_hand += 1;
            let delivery = Held::delivery(self.owner.clone(), *pulled, ticket);
            // There is room for as many as may be in hand. If nobody listens any
            // more, the delivery is dropped, which gives the message back.
            let _ = self.out.try_send(delivery);
        }
    }

    /// Asks for as many messages as there are free hands, once that is worth a request.
    async fn ask(&mut self) {
        self.requests.doubt();
        let most = self.subscription.max_in_flight;
        let busy = self.in_hand + self.lines.ready() + self.requests.left;
        let free = most.saturating_sub(busy);
        let worth_it = self.requests.left == 0 || free >= most.div_ceil(WORTH_A_REQUEST);
        // Over a connection that is newer than the inbox, answers would come to where nobody
        // reads any more.
        let connected = connect::is_connected(&self.client)
            && self.inbox.connection == self.shared.connection();
        let ready = self.is_wanted() && connected && self.requests.may_go();
        if self.broken || free == 0 || !worth_it || !ready {
            return;
        }
        let reply = format!("{}.{}", self.inbox.name, self.requests.add(free));
        let body = format!(
            r#"{{"batch":{free},"expires":{},"idle_heartbeat":{}}}"#,
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        // Where it was not sent, silence brings the next try.
        let sent = self.client.publish_with_reply(self.next.clone(), reply, body.into());
        if let Err(error) = sent.await {
            tracing::debug!(%error, "NATS takes no request");
        }
    }

    /// Takes along what is there already: hands are filled and asked for once for all of it.
    async fn receive_all(&mut self, first: async_nats::Message) {
        self.receive(first).await;
        while let Some(Some(message)) = self.inbox.subscriber.next().now_or_never() {
            self.receive(message).await;
        }
    }

    async fn receive(&mut self, message: async_nats::Message) {
        self.requests.heard();
        if let Some(status) = message.status
            && message.reply.is_none()
        {
            self.status(status, &message);
            return;
        }
        self.requests.less(1);
        self.requests.not_before = None;
        match Pulled::read(message, headers::decode) {
            Some(_) if self.broken => {}
            Some(pulled) => {
                self.newest = self.newest.max(pulled.seq);
                self.place(Box::new(pulled)).await;
            }
            None => tracing::warn!("NATS sent a message that is not of a stream; left alone"),
        }
    }

    async fn place(&mut self, mut pulled: Box<Pulled>) {
        pulled.attempt = self.uncounted.lock().attempt(pulled.seq, pulled.attempt);
        // What it must wait if it finds no place; the longer it waits, the longer.
        let wait = self.no_place(pulled.seq);
        let until = Instant::now() + wait + self.grace();
        let (seq, line) = (pulled.seq, pulled.line.clone());
        if let Some(pulled) = self.lines.arrive(seq, line, pulled, PARKED_BYTES, until) {
            self.send_back(&pulled, wait).await;
        }
        if !self.is_wanted() {
            self.pause().await;
        }
    }

    fn no_place(&self, seq: u64) -> Duration {
        let times = self.uncounted.lock().count(seq);
        NO_PLACE.saturating_mul(1 << times.min(16)).min(LONGEST_NO_PLACE)
    }

    /// Gives back what nobody had in hand.
    async fn send_back(&self, pulled: &Pulled, delay: Duration) {
        if self.broken {
            return;
        }
        self.uncounted.lock().add(pulled.seq, streams::MAX_ACK_PENDING);
        pulled.send(&self.client, Answer::Nak(delay)).await;
    }

    fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Nobody takes messages for a while: others of the group can have what waits here.
    async fn pause(&mut self) {
        if self.is_wanted() {
            return;
        }
        let until = Instant::now() + NO_PLACE + self.grace();
        for pulled in self.lines.give_back(until) {
            // Not at once: the request that stands would bring it here again.
            self.send_back(&pulled, NO_PLACE).await;
        }
    }

    fn status(&mut self, status: StatusCode, message: &async_nats::Message) {
        if status.as_u16() == 100 || !self.requests.stands(&message.subject) {
            return;
        }
        let pending = headers::pending(message);
        match pending {
            Some(pending) => self.requests.less(pending),
            None => self.requests.forget(),
        }
        let description = message.description.as_deref().unwrap_or_default();
        match status.as_u16() {
            404 | 408 if pending.is_some() => {}
            503 => self.trust_unless(true),
            409 if description.contains("Deleted") => self.trust_unless(true),
            // At once it would say the same again.
            code if self.requests.refused() => {
                let topic = &self.subscription.topic;
                tracing::warn!(%topic, code, description, "NATS refuses a request for messages");
            }
            code => tracing::debug!(code, description, "NATS refuses a request for messages"),
        }
    }

    fn note(&mut self, answered: &Answered) {
        self.in_hand = self.in_hand.saturating_sub(1);
        let Answered { seq, line, ticket, attempt, answer } = answered;
        let spent = self.subscription.max_deliver.is_some_and(|most| *attempt >= most);
        match answer {
            Answer::Nak(delay) if !spent => {
                let until = Instant::now() + *delay + self.grace();
                self.lines.given_back(*seq, line.as_deref(), *ticket, until);
            }
            // Whoever has it when its time is up: those behind it ask for themselves.
            Answer::Defer(delay) if !spent => {
                let until = Instant::now() + *delay + ON_ITS_WAY;
                self.lines.given_back(*seq, line.as_deref(), *ticket, until);
            }
            Answer::Release => {
                let until = Instant::now() + self.grace();
                self.lines.given_back(*seq, line.as_deref(), *ticket, until);
            }
            _ => {
                self.uncounted.lock().forget(*seq);
                self.lines.finished(*seq, line.as_deref(), *ticket);
            }
        }
    }

    /// How much later than announced a message may return.
    fn grace(&self) -> Duration {
        self.subscription.ack_wait + Duration::from_secs(2)
    }

    /// A new connection: the server knows nothing of the old requests, or sends
    /// to an inbox that nobody should read twice.
    async fn reopen(&mut self) {
        self.requests.forget();
        match Inbox::open(&self.shared).await {
            Ok(inbox) => {
                let mut old = std::mem::replace(&mut self.inbox, inbox);
                // Nothing is asked for by this name any more, so what has come is all.
                while let Some(message) = next_that_came(&mut old.subscriber) {
                    self.receive(message).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "cannot subscribe again, trying on");
                sleep(REPAIR_PAUSE).await;
            }
        }
        self.look_at_stream().await;
    }

    /// A server that was killed may have lost the end of the stream, and another subscriber may
    /// have made it again.
    async fn look_at_stream(&mut self) {
        let state = streams::state(&self.shared.context, &self.subscription.topic);
        if let Ok(Ok((created, last))) = tokio::time::timeout(LEAVE_PATIENCE, state).await {
            let same = *self.created.get_or_insert(created) == created;
            self.trust_unless(!same || last < self.newest);
        }
    }

    /// Stream or consumer may not be those that they were: nothing that was taken so far is
    /// answered any more, since the answers may be taken for those to other messages.
    fn trust_unless(&mut self, other: bool) {
        if other && !self.broken {
            self.broken = true;
            self.owner.numbering.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Makes stream and consumer again, once nothing is in hand.
    async fn repair(&mut self) {
        sleep(REPAIR_PAUSE).await;
        self.shared.forget_stream(&self.subscription.topic);
        let repaired = async {
            self.shared.ensure_stream(&self.subscription.topic).await?;
            streams::ensure_consumer(&self.shared.context, &self.subscription).await
        };
        match repaired.await {
            Ok(_) => {
                self.broken = false;
                // The numbers begin again, or stand for other messages; what is still
                // there is delivered again.
                self.lines = KeyOrder::new(self.subscription.per_key, weight);
                *self.uncounted.lock() = Uncounted::default();
                self.requests.forget();
                self.newest = 0;
                self.created = None;
                self.look_at_stream().await;
            }
            Err(error) => {
                let topic = &self.subscription.topic;
                tracing::warn!(%topic, error = %error.chain(), "the consumer is gone, trying on");
            }
        }
    }

    async fn keep_alive(&self) {
        if self.broken {
            return;
        }
        for pulled in self.lines.waiting() {
            pulled.in_progress(&self.client).await;
        }
    }

    async fn check_silence(&mut self) {
        if self.requests.left > 0 && self.requests.lost_at <= Instant::now() {
            self.requests.forget();
            self.look().await;
        }
    }

    /// Looks whether the consumer is still there, and the one that it was.
    async fn look(&mut self) {
        let Subscription { group, topic, .. } = &self.subscription;
        let found = streams::find_consumer(&self.shared.context, group, topic);
        // Bounded: the server may be gone.
        if let Ok(Ok(found)) = tokio::time::timeout(LEAVE_PATIENCE, found).await {
            let newest = self.newest;
            self.trust_unless(found.is_none_or(|found| found.delivered.stream_sequence < newest));
        }
    }

    /// Gives back what nobody will handle here any more.
    ///
    /// First the request that stands must go. A server of version 2.9 that finds it
    /// without a reader when a message is due counts that delivery backwards; it drops
    /// such requests when it is asked about the consumer.
    async fn give_back(mut self) {
        let mut rest = Vec::new();
        let leave = async {
            // Not `unsubscribe`, which drops what is on its way: that still comes, then
            // the stream ends.
            if self.inbox.subscriber.drain().await.is_ok() {
                while let Some(message) = self.inbox.subscriber.next().await {
                    rest.extend(Pulled::read(message, headers::decode));
                }
            }
            let Subscription { group, topic, .. } = &self.subscription;
            if let Err(error) = streams::find_consumer(&self.shared.context, group, topic).await {
                tracing::debug!(error = %error.chain(), "the consumer cannot be seen");
            }
        };
        // Bounded: the server may be gone. The messages then come after their ack wait.
        let _ = tokio::time::timeout(LEAVE_PATIENCE, leave).await;
        for pulled in self.lines.waiting().map(Box::as_ref).chain(&rest) {
            self.send_back(pulled, Duration::ZERO).await;
        }
    }
}

/// What has come already; `None` where nothing has. Without the budget of a task, which
/// makes a channel look empty after some messages: what is not taken now comes only after its
/// ack wait.
fn next_that_came<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    unconstrained(stream.next()).now_or_never().flatten()
}

#[expect(clippy::borrowed_box, reason = "the lines weigh what they hold")]
fn weight(pulled: &Box<Pulled>) -> usize {
    pulled.message.size() + OVERHEAD
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_reconnect_is_taken_to_the_last_message() {
        // As a subscriber does, and more than the budget of a task.
        let (sender, mut receiver) = mpsc::channel(1000);
        for number in 0..1000 {
            sender.try_send(number).unwrap();
        }
        let mut came = stream::poll_fn(|context| receiver.poll_recv(context));
        for number in 0..1000 {
            assert_eq!(next_that_came(&mut came), Some(number));
        }
        assert_eq!(next_that_came(&mut came), None);
        drop(sender);
        assert_eq!(next_that_came(&mut came), None, "ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_serves_does_not_hold_hands_for_ever() {
        let mut requests = Requests::new();
        // This one is lost, another one stands and brings a message each second.
        requests.add(3);
        let mut seconds = 0;
        while requests.left >= 3 {
            requests.add(1);
            tokio::time::advance(Duration::from_secs(1)).await;
            requests.heard();
            requests.less(1);
            requests.doubt();
            seconds += 1;
            assert!(seconds <= 60, "{} are still said to come", requests.left);
        }
        assert_eq!((requests.left, seconds), (0, 60));
        // Where none is lost the count comes down to nothing, and stays true.
        for _ in 0..100 {
            requests.add(4);
            requests.less(1);
            tokio::time::advance(Duration::from_secs(1)).await;
            requests.doubt();
            assert_eq!(requests.left, 3);
            requests.less(3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_is_not_repeated_at_once() {
        let mut requests = Requests::new();
        assert!(requests.may_go() && requests.timer().is_none());
        assert!(requests.refused(), "news");
        assert!(!requests.may_go());
        tokio::time::advance(REPAIR_PAUSE / 2).await;
        assert_eq!(requests.timer(), Some(Instant::now() + REPAIR_PAUSE / 2));
        assert!(!requests.refused(), "said before");
        tokio::time::advance(REPAIR_PAUSE).await;
        assert!(requests.may_go() && requests.timer().is_none());
    }
}
