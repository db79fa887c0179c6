//! A broker that delivers what a test says and writes down each answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use chassis_messaging::broker::{Acknowledge, Answer, Driver};
use chassis_messaging::{
    Broker, Deliveries, Delivery, Message, Publisher, Subscriber, Subscription,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Clone, Default)]
pub(crate) struct Script {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    deliveries: Mutex<VecDeque<(Message, u32)>>,
    added: Notify,
    answers: Mutex<Vec<(String, Answer)>>,
    published: Mutex<Vec<Message>>,
    refuses: AtomicBool,
}

impl Script {
    pub(crate) fn deliver(&self, message: &Message, attempt: u32) {
        self.shared.deliveries.lock().push_back((message.clone(), attempt));
        self.shared.added.notify_waiters();
    }

    pub(crate) fn refuse_to_publish(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::new(self.clone())
    }

    pub(crate) fn published(&self) -> Vec<Message> {
        self.shared.published.lock().clone()
    }

    pub(crate) async fn until_answers(&self, count: usize) -> Vec<(String, Answer)> {
        chassis_test::eventually("the answers", crate::world::SOON, async || {
            let answers = self.shared.answers.lock().clone();
            (answers.len() >= count).then_some(answers)
        })
        .await
    }
}

impl Publisher for Script {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.shared.refuses.load(Ordering::SeqCst) {
                return Err(Error::unavailable("DOWN", "the broker is down"));
            }
            self.shared.published.lock().push(message);
            Ok(())
        })
    }
}

impl Subscriber for Script {
    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>> {
        let deliveries: Box<dyn Deliveries> = Box::new(self.clone());
        Box::pin(async move { Ok(deliveries) })
    }
}

impl Deliveries for Script {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>>> {
        Box::pin(async move {
            let (message, attempt) = loop {
                // Before the look, so that what comes in between is not missed.
                let added = self.shared.added.notified();
                let next = self.shared.deliveries.lock().pop_front();
                match next {
                    Some(next) => break next,
                    None => added.await,
                }
            };
            let held = Held { id: message.id.clone(), shared: self.shared.clone() };
            Ok(Some(Delivery::new(message, attempt, Box::new(held))))
        })
    }
}

impl Driver for Script {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn redelivers_within(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct Held {
    id: String,
    shared: Arc<Shared>,
}

impl Acknowledge for Held {
    fn answer(self: Box<Self>, answer: Answer) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.shared.answers.lock().push((self.id.clone(), answer));
            Ok(())
        })
    }

    fn in_progress(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
