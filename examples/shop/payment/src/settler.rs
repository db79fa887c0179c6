//! Finishes what a crash has left halfway.
//!
//! A caller that still cares repeats its call. This is for the others: a
//! caller that died too, or gave up. A few charges at a time, so that a long
//! list after an outage does not use up the places at the provider.

use std::borrow::Cow;

use chassis::Result;
use chassis::core::{BoxFuture, Component, Env, Ready, Shutdown};
use tokio::time::MissedTickBehavior;

use crate::config::SettleConfig;
use crate::payment::Payments;

/// A [`Component`] that asks the provider again, now and then.
pub struct Settler {
    payments: Payments,
    settings: SettleConfig,
}

impl Settler {
    /// Settles for `payments` as often as `settings` say.
    pub fn new(payments: Payments, settings: SettleConfig) -> Settler {
        Settler { payments, settings }
    }

    async fn round(&self) {
        match self.payments.settle(self.settings.after, self.settings.batch).await {
            Ok(0) => {}
            Ok(settled) => tracing::info!(settled, "charges settled late"),
            Err(error) => tracing::warn!(error = error.chain(), "cannot settle charges"),
        }
    }
}

impl Component for Settler {
    fn name(&self) -> Cow<'static, str> {
        "settler".into()
    }

    fn describe(&self) -> String {
        let SettleConfig { every, after, batch } = &self.settings;
        format!("every {every:?}, at most {batch} that wait for {after:?}")
    }

    fn run(
        self: Box<Self>,
        _env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            ready.ready();
            let mut rounds = tokio::time::interval(self.settings.every);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let round = async {
                    rounds.tick().await;
                    self.round().await;
                };
                // A round is dropped at shutdown: what it has not settled is
                // still written down.
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    () = round => {}
                }
            }
        })
    }
}
