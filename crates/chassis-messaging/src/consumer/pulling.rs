//! The loop of one topic: take a message when a hand is free, and stop in time.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Error, Result, Shutdown, Status};
use chassis_data::Backend;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::handling::Handling;
use crate::broker::{Deliveries, Delivery, Subscription};

/// How often a subscription is tried at start, a second apart.
const SUBSCRIBE_TRIES: u32 = 30;

/// The pause after the broker could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// How long interrupted handlers get for giving their messages back.
const GIVE_BACK: Duration = Duration::from_millis(300);

pub(super) struct Pulling<S, B: Backend> {
    handling: Arc<Handling<S, B>>,
    deliveries: Box<dyn Deliveries>,
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
        let subscription = Subscription {
            max_in_flight: handling.config.concurrency,
            ack_wait: handling.config.ack_wait,
            max_deliver: None,
            ..Subscription::new(handling.group.clone(), handling.topic)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match handling.broker.subscribe(subscription.clone()).await {
                Ok(deliveries) => return Ok(Pulling { handling, deliveries }),
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
        let interrupt = CancellationToken::new();
        let ended = loop {
            let paused = self.is_paused(&mut status);
            let hands_free = handlers.len() < self.handling.config.concurrency;
            tokio::select! {
                biased;
                () = shutdown.requested() => break Ok(()),
                Some(ended) = handlers.join_next(), if !handlers.is_empty() => report(ended),
                () = changed(&mut status) => {}
                next = self.deliveries.next(), if hands_free && !paused => match next {
                    Ok(Some(delivery)) => {
                        self.start(&mut handlers, delivery, &interrupt);
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
        // Gives back what was fetched and not begun.
        drop(self.deliveries);
        drain(handlers, &interrupt, &shutdown).await;
        ended
    }

    fn start(&self, handlers: &mut JoinSet<()>, delivery: Delivery, interrupt: &CancellationToken) {
        let handling = self.handling.clone();
        let interrupt = interrupt.clone();
        let env = handling.env.clone();
        handlers.spawn(env.scope(async move { handling.run(delivery, interrupt).await }));
    }

    fn is_paused(&self, status: &mut watch::Receiver<Status>) -> bool {
        *status.borrow_and_update() == Status::Down
    }
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
