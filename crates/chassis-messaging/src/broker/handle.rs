//! The handle that the rest of a service holds: some broker, chosen by a URL.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Probe, Result};

use super::config::{BrokerConfig, BrokerUrl, Subscription};
use super::embedded::Embedded;
use super::jetstream::JetStream;
use super::{Browse, Deliveries, Driver, MeasureLag, Publisher, Subscriber, Tails, Transient};
use crate::message::Message;

/// A broker. Clones share one connection.
#[derive(Clone)]
pub struct Broker {
    driver: Arc<dyn Driver>,
}

impl Broker {
    /// Opens the embedded broker or connects to NATS, as the URL says.
    ///
    /// A server that does not answer is tried again with growing pauses until
    /// `connect_timeout`. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a bad URL or bad numbers; `FAILED_PRECONDITION`
    /// where another process has the embedded broker's file or the server has no
    /// JetStream; `UNAVAILABLE` where no server answers.
    pub async fn connect(config: &BrokerConfig) -> Result<Broker> {
        config.validate()?;
        Ok(match config.parse_url()? {
            BrokerUrl::Embedded(folder) => Broker::new(Embedded::open(&folder, config).await?),
            BrokerUrl::Temporary => Broker::new(Embedded::temporary(config).await?),
            BrokerUrl::Nats(url) => Broker::new(JetStream::connect(&url, config).await?),
        })
    }

    /// An embedded broker of its own that is gone with its last handle: for
    /// tests and examples.
    ///
    /// Dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// As [`connect`](Broker::connect), where no temporary folder can be written.
    pub async fn temporary() -> Result<Broker> {
        Broker::connect(&BrokerConfig::at("embedded:")).await
    }

    /// The longest time after which it may deliver a message again: as a rule,
    /// for as long as it keeps one.
    #[must_use]
    pub fn redelivers_within(&self) -> Duration {
        self.driver.redelivers_within()
    }

    /// A broker of one's own making.
    #[must_use]
    pub fn new(driver: impl Driver) -> Broker {
        Broker { driver: Arc::new(driver) }
    }

    /// Stores a message: see [`Publisher::publish`].
    ///
    /// Dropping the future leaves open whether the message is stored: publish it again
    /// under the same id.
    ///
    /// # Errors
    ///
    /// Those of [`Publisher::publish`].
    pub async fn publish(&self, message: Message) -> Result<()> {
        self.driver.publish(message).await
    }

    /// Joins a group: see [`Subscriber::subscribe`].
    ///
    /// Dropping the future leaves a group that may have been made.
    ///
    /// # Errors
    ///
    /// Those of [`Subscriber::subscribe`].
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>> {
        self.driver.subscribe(subscription).await
    }

    /// Looking at stored messages, where this broker can.
    #[must_use]
    pub fn browse(&self) -> Option<&dyn Browse> {
        self.driver.browse()
    }

    /// How far a group is behind, where this broker can say.
    #[must_use]
    pub fn lag(&self) -> Option<&dyn MeasureLag> {
        self.driver.lag()
    }

    /// Messages that are not stored, where this broker carries some.
    #[must_use]
    pub fn transient(&self) -> Option<&dyn Transient> {
        self.driver.transient()
    }

    /// A health probe: whether the broker answers.
    #[must_use]
    pub fn probe(&self) -> impl Probe + use<> {
        BrokerProbe(self.clone())
    }

    /// Whether the broker answers right now.
    ///
    /// Dropping the future ends the question.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where it does not.
    pub async fn check(&self) -> Result<()> {
        self.driver.check().await
    }

    /// Stores what is under way and stops, for all clones.
    ///
    /// Dropping the future leaves the closing to the last handle's drop.
    pub async fn close(&self) {
        self.driver.close().await;
    }
}

impl Publisher for Broker {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        self.driver.publish(message)
    }

    fn tails(&self) -> Option<&dyn Tails> {
        self.driver.tails()
    }
}

impl Subscriber for Broker {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>> {
        self.driver.subscribe(subscription)
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

struct BrokerProbe(Broker);

impl Probe for BrokerProbe {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.0.driver.check()
    }
}
