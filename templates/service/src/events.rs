//! What this service tells others.

use chassis::messaging::Event;
use serde::{Deserialize, Serialize};

/// An item was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemAdded {
    /// The item's id.
    pub id: String,
    /// What it is called.
    pub name: String,
}

impl Event for ItemAdded {
    const TOPIC: &'static str = "items.item-added";
    const TYPE: &'static str = "item-added.v1";

    fn key(&self) -> Option<String> {
        Some(self.id.clone())
    }
}
