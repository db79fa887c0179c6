//! The component that carries rows from the outbox to the broker.
//!
//! One task, the [`Worker`], decides everything, so nothing is shared and nothing
//! is locked. It waits for nothing: reads, marks and leases are jobs beside it,
//! and publishing goes on meanwhile. The speed comes from publishing many keys at
//! the same time and from reading and marking many rows at once.
//!
//! A row is marked after the broker has it. A crash in between publishes it once
//! more, under the same id.

use std::borrow::Cow;
use std::sync::Arc;

use chassis_core::{BoxFuture, Component, Env, Ready, Result, Shutdown};
use chassis_data::Backend;
use tokio_util::task::AbortOnDropHandle;

use super::delayed::Delays;
use super::handle::Outbox;
use super::losses;
use super::operations;
use super::turns;
use super::worker::Worker;
use crate::broker::Publisher;

/// Publishes what was appended: the component `outbox-relay`.
///
/// It offers `outbox/status`, `outbox/pending`, `outbox/delayed`, `outbox/cancel`,
/// `outbox/parked`, `outbox/retry`, `outbox/discard` and `outbox/replay` at the admin port.
pub struct Relay<B: Backend = sqlx::Any> {
    pub(super) outbox: Outbox<B>,
    pub(super) publisher: Arc<dyn Publisher>,
}

impl<B: Backend> Relay<B> {
    pub(super) fn new(outbox: Outbox<B>, publisher: Arc<dyn Publisher>) -> Self {
        Self { outbox, publisher }
    }
}

impl<B: Backend> Component for Relay<B> {
    fn name(&self) -> Cow<'static, str> {
        "outbox-relay".into()
    }

    fn describe(&self) -> String {
        format!("looks every {:?}", self.outbox.config.poll)
    }

    fn validate(&self) -> Result<()> {
        self.outbox.config.validate()
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.outbox.config.validate()?;
            operations::offer(&self.outbox, &env);
            let delayed = Delays::new(self.outbox.clone(), &env);
            let (pause, _guard) = losses::guard(&self.outbox, &self.publisher, &env);
            let outbox = self.outbox.clone();
            let mut worker = Worker::new(*self, env.clone(), pause);
            worker.begin().await?;
            // Ends with this future.
            let _delayed = AbortOnDropHandle::new(env.spawn(delayed.run(shutdown.clone())));
            let turns = turns::keep_clean(outbox, shutdown.clone());
            let _turns = AbortOnDropHandle::new(env.spawn(turns));
            ready.ready();
            worker.run(shutdown).await;
            Ok(())
        })
    }
}
