//! What a subscriber of the embedded broker holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep_until;

use super::group::{Seq, Taken};
use super::{Cell, Shared};
use crate::broker::{Acknowledge, Answer, Deliveries, Delivery, Subscription};

/// How much one reading of a window takes from disk.
const READ_MESSAGES: usize = 64;
const READ_BYTES: usize = 1024 * 1024;

pub(super) struct EmbeddedDeliveries {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    slots: Arc<Semaphore>,
    ack_wait: Duration,
    /// Tells it from other subscribers of the group.
    me: u64,
}

impl EmbeddedDeliveries {
    pub(super) fn new(
        shared: Arc<Shared>,
        cell: Arc<Cell>,
        subscription: &Subscription,
    ) -> EmbeddedDeliveries {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        EmbeddedDeliveries {
            me: COUNT.fetch_add(1, Ordering::Relaxed),
            shared,
            cell,
            slots: Arc::new(Semaphore::new(subscription.max_in_flight)),
            ack_wait: subscription.ack_wait,
        }
    }

    async fn wait(&self) -> Result<Option<Delivery>> {
        let core = &self.shared.core;
        let slot = tokio::select! {
            slot = self.slots.clone().acquire_owned() => slot,
            () = core.closing.cancelled() => return Ok(None),
        };
        let Ok(slot) = slot else { return Ok(None) };
        loop {
            // Enabled before looking, so that a wake-up in between is not lost.
            let mut woken = std::pin::pin!(self.cell.wake.notified());
            woken.as_mut().enable();
            if core.closing.is_cancelled() {
                return Ok(None);
            }
            let (taken, exhausted, timer, wants) = {
                let mut group = self.cell.group.lock();
                let taken = group.take(core.clock.now(), core.clock.after(self.ack_wait), self.me);
                (taken, group.take_exhausted(), group.next_timer(), group.wants())
            };
            for id in exhausted {
                core.dirty.notify_one();
                let topic = &self.cell.topic;
                tracing::warn!(%id, %topic, "delivered as often as allowed; given up");
            }
            if let Some(taken) = taken {
                core.dirty.notify_one();
                return Ok(Some(self.delivery(taken, slot)));
            }
            if wants.is_some() {
                self.read().await?;
                continue;
            }
            let timer = async {
                match timer {
                    Some(at) => sleep_until(core.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = woken => {}
                () = timer => {}
                () = core.closing.cancelled() => return Ok(None),
            }
        }
    }

    /// Reads the window on. One reader at a time; the others find it done.
    async fn read(&self) -> Result<()> {
        let _reading = self.cell.reading.lock().await;
        let Some((after, head)) = ({
            let group = self.cell.group.lock();
            group.wants().map(|after| (after, group.head()))
        }) else {
            return Ok(());
        };
        let store = &self.shared.core.store;
        let (rows, more) = store.read(&self.cell.topic, after, READ_MESSAGES, READ_BYTES).await?;
        let complete_to = match rows.last() {
            Some(&(last, _)) if more => last,
            _ => head,
        };
        self.cell.group.lock().fill(rows, complete_to);
        self.cell.wake.notify_waiters();
        Ok(())
    }

    fn delivery(&self, taken: Taken, slot: OwnedSemaphorePermit) -> Delivery {
        let acknowledge = Held {
            shared: self.shared.clone(),
            cell: self.cell.clone(),
            seq: taken.seq,
            attempt: taken.attempt,
            ack_wait: self.ack_wait,
            answered: false,
            _slot: slot,
        };
        Delivery::new(taken.message.as_ref().clone(), taken.attempt, Box::new(acknowledge))
    }
}

impl Deliveries for EmbeddedDeliveries {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>>> {
        Box::pin(self.wait())
    }
}

struct Held {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    seq: Seq,
    attempt: u32,
    ack_wait: Duration,
    answered: bool,
    _slot: OwnedSemaphorePermit,
}

impl Held {
    fn settle(&mut self, answer: Answer) {
        self.answered = true;
        let core = &self.shared.core;
        {
            let mut group = self.cell.group.lock();
            match answer {
                Answer::Ack | Answer::Term => group.finish(self.seq),
                Answer::Release => group.release(self.seq, self.attempt),
                // The line of its key is kept in either case, and nobody else has it.
                Answer::Nak(delay) | Answer::Defer(delay) => {
                    // Zero means now, not "at the millisecond that is running".
                    let not_before = if delay.is_zero() { 0 } else { core.clock.after(delay) };
                    group.give_back(self.seq, self.attempt, not_before);
                }
            }
        }
        core.dirty.notify_one();
        self.cell.wake.notify_waiters();
    }
}

impl Acknowledge for Held {
    fn answer(mut self: Box<Self>, answer: Answer) -> BoxFuture<'static, Result<()>> {
        // At once, not when polled: an answer must not be lost with its future.
        self.settle(answer);
        Box::pin(std::future::ready(Ok(())))
    }

    fn in_progress(&self) -> BoxFuture<'_, Result<()>> {
        let until = self.shared.core.clock.after(self.ack_wait);
        self.cell.group.lock().extend(self.seq, self.attempt, until);
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_oldest(&self) -> BoxFuture<'_, Result<bool>> {
        let oldest = self.cell.group.lock().is_oldest(self.seq);
        Box::pin(std::future::ready(Ok(oldest)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            self.settle(Answer::Nak(Duration::ZERO));
        }
    }
}
