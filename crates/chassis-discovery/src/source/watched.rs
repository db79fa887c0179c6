//! The targets that are watched: one task each, however many watch it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::{Feed, Target, Updates};

/// A map from target to its updates.
#[derive(Default)]
pub(crate) struct Watched {
    // One entry per target that this program ever named: bounded by its text.
    // It goes with its resolver, and with it the tasks, since nobody reads then.
    targets: Mutex<HashMap<Target, Updates>>,
}

impl Watched {
    /// The updates of a target; `start` begins the work if nobody watched it yet.
    pub(crate) fn watch(&self, target: &Target, start: impl FnOnce(Target, Feed)) -> Updates {
        let target = target.unselected();
        let mut targets = self.targets.lock();
        if let Some(updates) = targets.get(&target) {
            return updates.clone();
        }
        let (feed, updates) = Updates::channel();
        targets.insert(target.clone(), updates.clone());
        start(target, feed);
        updates
    }
}
