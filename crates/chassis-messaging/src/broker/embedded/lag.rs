//! How far a group of the embedded broker is behind: its window, and what lies behind
//! that on disk.

use chassis_core::{BoxFuture, Result};

use super::Embedded;
use crate::broker::lag::{Lag, MeasureLag, no_such_group};

/// Counting goes up to here: it walks over an index.
const MAX_COUNT: i64 = 100_000;

impl MeasureLag for Embedded {
    fn measure(&self, group: String, topic: String) -> BoxFuture<'_, Result<Lag>> {
        Box::pin(async move {
            let core = &self.shared.core;
            let cell = {
                let topics = core.topics.lock();
                let mut cells = topics.get(&topic).into_iter().flatten();
                cells.find(|cell| cell.name == group).cloned().ok_or_else(no_such_group)?
            };
            let (unanswered, waiting, cursor) = cell.group.lock().backlog();
            let behind = core.store.count(&topic, cursor, MAX_COUNT).await?;
            Ok(Lag { waiting: waiting + behind, unanswered })
        })
    }
}
