//! The loop of one topic: take a message when a hand is free, and stop in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{Error, Result, Shutdown, Status};
use chassis_data::Backend;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::batches::{Ends, Lane};
use super::handling::{Handling, InHand};
use crate::broker::{Deliveries, Delivery, Subscription};
use crate::message::Message;
use crate::outbox::hash;

/// How often a subscription is tried at start, a second apart.
const SUBSCRIBE_TRIES: u32 = 30;

/// The pause after the broker could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// How long interrupted handlers get for giving their messages back.
const GIVE_BACK: Duration = Duration::from_millis(300);

/// How often a pause is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Pulling<S, B: Backend> {
    handling: Arc<Handling<S, B>>,
    deliveries: Box<dyn Deliveries>,
    hands: Arc<Hands>,
    /// Nothing is taken just now.
    paused: bool,
}

/// How many messages may be in hand.
pub(super) struct Hands {
    free: Arc<Semaphore>,
    count: usize,
    /// Those with a message: one that is not free may wait for its message.
    taken: AtomicUsize,
    /// Told of the last one that is taken.
    all_taken: Notify,
}

impl Hands {
    fn new(count: usize) -> Hands {
        let free = Arc::new(Semaphore::new(count));
        Hands { free, count, taken: AtomicUsize::new(0), all_taken: Notify::new() }
    }

    /// Whether nothing can come before something that is in hand is answered.
    pub(super) fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.count
    }

    /// There is a message for this one.
    fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Hand {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Hand { hands: self.clone(), _permit: permit }
    }

    /// Waits until they are taken, from this call on. Dropping the future ends the wait.
    pub(super) fn all_taken(&self) -> impl Future<Output = ()> {
        self.all_taken.notified()
    }
}

/// A hand that has a message, until it is dropped.
pub(super) struct Hand {
    hands: Arc<Hands>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.hands.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where messages go.
enum Work {
    /// To a task each.
    Tasks,
    /// To the lane of their key.
    Lanes(Vec<mpsc::Sender<InHand>>),
}

impl<S, B> Pulling<S, B>
where
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Subscribes; a broker that does not answer is tried for half a minute.
    pub(super) async fn subscribe(
        handling: Arc<Handling<S, B>>,
        shutdown: &Shutdown,
    ) -> Result<Pulling<S, B>> {
        let batch = &handling.config.batch;
        let (hands, per_key) = if handling.routes.take_batches() {
            (batch.size * batch.lanes, batch.size)
        } else {
            (handling.config.concurrency, 1)
        };
        let subscription = Subscription {
            max_in_flight: hands,
            per_key,
            ack_wait: handling.config.ack_wait,
            max_deliver: None,
            ..Subscription::new(handling.group.clone(), handling.topic)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match handling.broker.subscribe(subscription.clone()).await {
                Ok(deliveries) => {
                    let hands = Arc::new(Hands::new(hands));
                    return Ok(Pulling { handling, deliveries, hands, paused: false });
                }
                Err(error) => error,
            };
            if !error.code().is_retryable() || tries >= SUBSCRIBE_TRIES {
                return Err(error);
            }
            let topic = handling.topic;
            tracing::warn!(topic, error = %error.chain(), tries, "cannot subscribe, trying again");
            tokio::select! {
                () = sleep(READ_PAUSE) => {}
                () = shutdown.requested() => return Err(error),
            }
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let mut status = self.handling.env.health().watch();
        let mut handlers = JoinSet::new();
        let ends = Ends::default();
        let work = self.begin(&mut handlers, &ends);
        let ended = loop {
            let may_take = self.may_take(&mut status).await;
            let hands = self.hands.clone();
            tokio::select! {
                biased;
                () = shutdown.requested() => break Ok(()),
                Some(ended) = handlers.join_next(), if !handlers.is_empty() => {
                    report(ended);
                    if matches!(work, Work::Lanes(_)) {
                        break Err(Error::internal("a lane ended before its time"));
                    }
                }
                () = changed(&mut status) => {}
                () = sleep(LOOK_AGAIN), if !may_take => {}
                next = take(&hands, self.deliveries.as_mut()), if may_take => match next {
                    Ok(Some((hand, delivery))) => {
                        self.start(&work, &mut handlers, hand, delivery, &ends).await;
                    }
                    Ok(None) => break Err(Error::unavailable(
                        "BROKER_CLOSED",
                        "the broker was closed while messages were consumed",
                    )),
                    Err(error) => {
                        let topic = self.handling.topic;
                        tracing::warn!(topic, error = %error.chain(), "cannot read messages");
                        tokio::select! {
                            () = sleep(READ_PAUSE) => {}
                            () = shutdown.requested() => {}
                        }
                    }
                },
            }
        };
        ends.stop.cancel();
        // Gives back what was fetched and not begun.
        drop(self.deliveries);
        drop(work);
        drain(handlers, &ends.interrupt, &shutdown).await;
        ended
    }

    fn begin(&self, handlers: &mut JoinSet<()>, ends: &Ends) -> Work {
        if !self.handling.routes.take_batches() {
            return Work::Tasks;
        }
        let batch = &self.handling.config.batch;
        let lanes = (0..batch.lanes).map(|_| {
            // Room for all that may be in hand, so that nobody waits for a lane.
            let (sender, queue) = mpsc::channel(batch.size * batch.lanes);
            let lane = Lane::new(self.handling.clone(), ends.clone(), queue, self.hands.clone());
            handlers.spawn(self.handling.env.scope(lane.run()));
            sender
        });
        Work::Lanes(lanes.collect())
    }

    async fn start(
        &mut self,
        work: &Work,
        handlers: &mut JoinSet<()>,
        hand: OwnedSemaphorePermit,
        delivery: Delivery,
        ends: &Ends,
    ) {
        let handling = self.handling.clone();
        let Some(permit) = handling.pausing.enter() else {
            // Others failed in the meantime.
            handling.meters.released.inc();
            if let Err(error) = delivery.release().await {
                tracing::debug!(error = %error.chain(), "a message was not given back");
            }
            return;
        };
        let _counted = handling.count();
        let _hand = self.hands.take(hand);
        let held = InHand { delivery, permit, since: Instant::now(), _hand, _counted };
        match work {
            Work::Tasks => {
                let interrupt = ends.interrupt.clone();
                let env = handling.env.clone();
                handlers.spawn(env.scope(async move {
                    handling.run(held, &interrupt).await;
                }));
            }
            Work::Lanes(lanes) => {
                let Message { key, id, .. } = &held.delivery.message;
                let lane = hash(key.as_deref().unwrap_or(id)) % lanes.len().max(1) as u64;
                let lane = usize::try_from(lane).unwrap_or(0);
                // A lane that ended drops the message, which gives it back.
                if let Some(lane) = lanes.get(lane) {
                    let _ = lane.try_send(held);
                }
                if self.hands.are_taken() {
                    self.hands.all_taken.notify_waiters();
                }
            }
        }
    }

    /// Whether to take messages. What was fetched ahead goes back where not.
    async fn may_take(&mut self, status: &mut watch::Receiver<Status>) -> bool {
        let healthy = *status.borrow_and_update() != Status::Down;
        let may_take = healthy && self.handling.pausing.may_take();
        if !may_take && !self.paused {
            self.deliveries.pause().await;
        }
        self.paused = !may_take;
        may_take
    }
}

/// Takes a message once a hand is free. Dropping the future loses nothing.
async fn take(
    hands: &Hands,
    deliveries: &mut dyn Deliveries,
) -> Result<Option<(OwnedSemaphorePermit, Delivery)>> {
    let hand = hands.free.clone().acquire_owned().await.map_err(Error::internal)?;
    Ok(deliveries.next().await?.map(|delivery| (hand, delivery)))
}

/// Lets the handlers finish until the drain deadline, then interrupts them.
async fn drain(mut handlers: JoinSet<()>, interrupt: &CancellationToken, shutdown: &Shutdown) {
    let all = async {
        while let Some(ended) = handlers.join_next().await {
            report(ended);
        }
    };
    if shutdown.drain_deadline().run(all).await.is_ok() {
        return;
    }
    tracing::warn!(count = handlers.len(), "drain time is over, giving messages back");
    interrupt.cancel();
    let all = async { while handlers.join_next().await.is_some() {} };
    // Whoever does not make it is aborted with the set; its message comes again.
    let _ = tokio::time::timeout(GIVE_BACK, all).await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    // Handlers cannot panic outwards; what is around them should not either.
    if let Err(error) = ended {
        tracing::error!(%error, "handling a message ended badly; it comes again");
    }
}

/// Waits for a change of health; for ever once nobody reports any more.
async fn changed(status: &mut watch::Receiver<Status>) {
    if status.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hand_that_waits_for_a_message_is_not_taken() {
        let hands = Arc::new(Hands::new(2));
        let permit = async || hands.free.clone().acquire_owned().await.unwrap();
        let first = hands.take(permit().await);
        let second = permit().await;
        assert!(!hands.are_taken(), "a message may come");
        let second = hands.take(second);
        assert!(hands.are_taken());
        drop(first);
        assert!(!hands.are_taken());
        drop(second);
        assert_eq!(hands.free.available_permits(), 2);
    }
}
