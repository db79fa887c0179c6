//! Whether the file still has what was acknowledged.
//!
//! A commit is on the disk before it is acknowledged, and the file is locked while it
//! is open, so nothing is lost while the process runs. But the file may be removed, or
//! replaced by an older copy, before the next start: what was written down elsewhere
//! tells. All topics share one row of numbers, so there is one stream, without a name.

use std::sync::Arc;

use chassis_core::{BoxFuture, Result};

use super::Embedded;
use crate::broker::tail::{Ledger, Tails, Witness};
use crate::message::Message;

/// What a message is known by over all topics.
pub(super) fn known_by(message: &Message) -> String {
    name(&message.topic, &message.edition().unwrap_or_default(), &message.id)
}

pub(super) fn name(topic: &str, edition: &str, id: &str) -> String {
    format!("{topic}+{edition}:{id}")
}

impl Tails for Embedded {
    fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.core.ledger
    }

    fn holds<'a>(&'a self, stream: &'a str, witness: &'a Witness) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            if !stream.is_empty() {
                // Of another broker, which this one replaced.
                return Ok(false);
            }
            let found = self.shared.core.store.at(witness.position).await?;
            Ok(witness.survives(&found))
        })
    }

    fn look(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let core = &self.shared.core;
            let Some(witness) = core.tail.witness() else { return Ok(()) };
            if !self.holds("", &witness).await? && core.tail.witness() == Some(witness) {
                core.ledger.report(&core.tail);
            }
            Ok(())
        })
    }
}
