//! What the scenarios share: connecting, names of their own, bounded waits.

use std::future::Future;
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use uuid::Uuid;

use crate::broker::{Broker, Deliveries, Delivery, Subscription};
use crate::message::Message;

/// How long a message that should come may take.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// How long nothing must come for "nothing comes".
pub(super) const QUIET: Duration = Duration::from_millis(150);

/// What a scenario says.
pub(super) type Verdict = std::result::Result<(), String>;

/// Fails a scenario with what was expected.
macro_rules! ensure {
    ($condition:expr, $($problem:tt)+) => {
        if !$condition {
            return Err(format!($($problem)+));
        }
    };
}
pub(super) use ensure;

type Connect = dyn Fn() -> BoxFuture<'static, Result<Broker>> + Send + Sync;

/// How scenarios reach the broker under test.
pub struct Kit {
    connect: Box<Connect>,
}

impl Kit {
    pub(super) fn new<F, Fut>(connect: F) -> Kit
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Broker>> + Send + 'static,
    {
        Kit { connect: Box::new(move || Box::pin(connect())) }
    }

    pub(super) async fn open(&self) -> std::result::Result<Bench, String> {
        let id = Uuid::now_v7().simple().to_string();
        Ok(Bench { broker: self.connect().await?, topic: format!("conformance-{id}.topic") })
    }

    pub(super) async fn connect(&self) -> std::result::Result<Broker, String> {
        (self.connect)().await.map_err(said)
    }
}

/// A connection, and a topic that nobody else uses.
pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) topic: String,
}

impl Bench {
    pub(super) fn message(&self, text: &str) -> Message {
        Message::new(self.topic.clone(), "note.v1", text.to_owned())
    }

    pub(super) fn subscription(&self) -> Subscription {
        Subscription::new("group", self.topic.clone())
    }

    pub(super) async fn send(&self, text: &str) -> Verdict {
        self.publish(self.message(text)).await
    }

    pub(super) async fn send_keyed(&self, key: &str, text: &str) -> Verdict {
        self.publish(self.message(text).with_key(key)).await
    }

    pub(super) async fn publish(&self, message: Message) -> Verdict {
        self.broker.publish(message).await.map_err(said)
    }

    pub(super) async fn subscribe(
        &self,
        subscription: Subscription,
    ) -> std::result::Result<Inlet, String> {
        self.broker.subscribe(subscription).await.map(Inlet).map_err(said)
    }

    pub(super) async fn close(self) -> Verdict {
        self.broker.close().await;
        Ok(())
    }
}

/// Deliveries with bounded waits.
pub(super) struct Inlet(pub(super) Box<dyn Deliveries>);

impl Inlet {
    /// The next message, whatever it is.
    pub(super) async fn next(&mut self) -> std::result::Result<Delivery, String> {
        match tokio::time::timeout(SOON, self.0.next()).await {
            Ok(Ok(Some(delivery))) => Ok(delivery),
            Ok(Ok(None)) => Err("the deliveries ended".to_owned()),
            Ok(Err(error)) => Err(said(error)),
            Err(_) => Err(format!("no message within {SOON:?}")),
        }
    }

    /// The next message, which must be this one.
    pub(super) async fn expect(
        &mut self,
        text: &str,
        attempt: u32,
    ) -> std::result::Result<Delivery, String> {
        let delivery = self.next().await?;
        let found = text_of(&delivery);
        ensure!(found == text, "expected {text:?}, got {found:?}");
        let came = delivery.attempt;
        ensure!(came == attempt, "expected delivery {attempt} of {text:?}, got {came}");
        Ok(delivery)
    }

    /// Takes the next message, which must be this one, and acknowledges it.
    pub(super) async fn finish(&mut self, text: &str, attempt: u32) -> Verdict {
        self.expect(text, attempt).await?.ack().await.map_err(said)
    }

    /// Nothing comes for this long.
    pub(super) async fn quiet(&mut self, time: Duration) -> Verdict {
        match tokio::time::timeout(time, self.0.next()).await {
            Err(_) => Ok(()),
            Ok(Ok(Some(delivery))) => Err(format!("{:?} came, nothing should", text_of(&delivery))),
            Ok(Ok(None)) => Err("the deliveries ended".to_owned()),
            Ok(Err(error)) => Err(said(error)),
        }
    }
}

pub(super) fn text_of(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.payload).into_owned()
}

pub(super) fn said(error: Error) -> String {
    error.chain()
}
