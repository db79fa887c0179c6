//! The locks of the balancer, with shuttle in charge of who runs when.
//!
//! The same names and the same manners as `src/sync.rs`.

use std::sync::PoisonError;

use shuttle::sync::MutexGuard;
pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
