//! Which handler an event type of one topic goes to.

use std::collections::HashMap;
use std::sync::Arc;

use chassis_core::{Error, Result};
use chassis_data::Backend;

use super::handler::AnyHandler;
use crate::event::{Event, split_version};

pub(super) struct Routes<S, B: Backend> {
    handlers: HashMap<&'static str, Arc<dyn AnyHandler<S, B>>>,
    /// Older types, with the type that they can be turned into.
    past: HashMap<&'static str, &'static str>,
}

/// What a type goes to.
pub(super) struct Route<'a, S, B: Backend> {
    pub(super) handler: &'a dyn AnyHandler<S, B>,
    /// The type that the handler knows.
    pub(super) kind: &'static str,
}

impl<S, B: Backend> Default for Routes<S, B> {
    fn default() -> Self {
        Routes { handlers: HashMap::new(), past: HashMap::new() }
    }
}

impl<S, B: Backend> Routes<S, B> {
    /// Adds a handler; `false` if the type has one, or if two could have an older type.
    pub(super) fn add<E: Event>(&mut self, handler: Arc<dyn AnyHandler<S, B>>) -> bool {
        let mut alone = self.handlers.insert(E::TYPE, handler).is_none();
        for kind in E::upcasts().kinds() {
            alone &= self.past.insert(kind, E::TYPE).is_none_or(|other| other == E::TYPE);
        }
        alone
    }

    /// Whether some handler takes several messages at once.
    pub(super) fn take_batches(&self) -> bool {
        self.handlers.values().any(|handler| handler.takes_batches())
    }

    /// The handler of a type; `None` for a type that is to be passed over.
    pub(super) fn find(
        &self,
        kind: &str,
        ignore_other_types: bool,
    ) -> Result<Option<Route<'_, S, B>>> {
        let found = self.handlers.get_key_value(kind).or_else(|| {
            let newer = self.past.get(kind)?;
            self.handlers.get_key_value(newer)
        });
        if let Some((&kind, handler)) = found {
            return Ok(Some(Route { handler: handler.as_ref(), kind }));
        }
        let (name, version) = split_version(kind);
        let known = self.handlers.keys().any(|kind| split_version(kind).0 == name);
        match version {
            Some(version) if known => Err(Error::invalid_argument(
                "UNKNOWN_EVENT_VERSION",
                format!("no handler for version {version} of {name}"),
            )),
            _ if ignore_other_types => Ok(None),
            _ => Err(Error::invalid_argument(
                "UNKNOWN_EVENT_TYPE",
                format!("no handler for events of type {kind:?}"),
            )),
        }
    }
}
