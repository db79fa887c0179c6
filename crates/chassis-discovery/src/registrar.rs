//! Saying "I serve this target", for as long as it is true.
//!
//! The answer to a registration is a lease, not an id: whoever holds it is
//! registered, and dropping it, also by a panic, takes the entry away. So
//! nobody can forget to deregister.

use std::fmt;

use chassis_core::{BoxFuture, Result};

use crate::{Endpoint, Target};

/// A place where services make themselves known.
pub trait Registrar: Send + Sync + 'static {
    /// Makes an endpoint known under a target until the lease is dropped.
    ///
    /// # Errors
    /// When the place cannot be reached or refuses.
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>>;
}

/// A registration that lasts as long as this value.
#[must_use = "dropping the lease deregisters"]
pub struct Lease {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Lease {
    /// A lease that runs `release` once, when it is released or dropped.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Lease {
        Lease { release: Some(Box::new(release)) }
    }

    /// Deregisters now; the same as dropping it, but says so.
    pub fn release(self) {}
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
