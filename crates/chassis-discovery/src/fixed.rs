//! Endpoints that somebody wrote down.
//!
//! The simplest resolver, and the one for a test or a fleet whose addresses
//! never move.

use std::collections::BTreeMap;

use crate::{Endpoint, Resolver, Target, Updates};

/// A table from target to endpoints that never changes.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    table: BTreeMap<Target, Vec<Endpoint>>,
}

impl Fixed {
    /// An empty table.
    pub fn new() -> Fixed {
        Fixed::default()
    }

    /// Adds endpoints to a target.
    pub fn with(
        mut self,
        target: Target,
        endpoints: impl IntoIterator<Item = impl Into<Endpoint>>,
    ) -> Fixed {
        self.table.entry(target).or_default().extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// The endpoints of a target, if it is in the table.
    pub fn get(&self, target: &Target) -> Option<&[Endpoint]> {
        self.table.get(target).map(Vec::as_slice)
    }
}

impl Resolver for Fixed {
    fn watch(&self, target: &Target) -> Updates {
        Updates::fixed(self.get(target).unwrap_or_default().iter().cloned())
    }
}
