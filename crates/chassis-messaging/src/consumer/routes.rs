//! Which handler an event type of one topic goes to.

use std::collections::HashMap;

use chassis_core::{Error, Result};
use chassis_data::Backend;

use super::handler::{AnyHandler, Handler, Typed};
use crate::event::{Event, split_version};

pub(super) struct Routes<S, B: Backend>(HashMap<&'static str, Box<dyn AnyHandler<S, B>>>);

impl<S, B: Backend> Default for Routes<S, B> {
    fn default() -> Self {
        Routes(HashMap::new())
    }
}

impl<S, B> Routes<S, B>
where
    S: Send + 'static,
    B: Backend,
{
    /// Adds a handler; `false` if the type has one.
    pub(super) fn add<E: Event>(&mut self, handler: impl for<'a> Handler<'a, S, B, E>) -> bool {
        self.0.insert(E::TYPE, Box::new(Typed::<E, _>::new(handler))).is_none()
    }

    /// The handler of a type; `None` for a type that is to be passed over.
    pub(super) fn find(
        &self,
        kind: &str,
        ignore_other_types: bool,
    ) -> Result<Option<&dyn AnyHandler<S, B>>> {
        if let Some(handler) = self.0.get(kind) {
            return Ok(Some(handler.as_ref()));
        }
        let (name, version) = split_version(kind);
        let known = self.0.keys().any(|kind| split_version(kind).0 == name);
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
