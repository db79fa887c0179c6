//! The locks that the balancer's threads share, in one place.
//!
//! `tests/shuttle` builds its modules once more, with a module of this name that hands the
//! schedule to shuttle. That is why they name no lock by its own crate.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
