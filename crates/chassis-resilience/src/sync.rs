//! The locks of this crate, in one place.
//!
//! `tests/shuttle` builds the modules that threads share once more, with a module of this name
//! that hands the schedule to shuttle. That is why nothing here names a lock by its own crate.

pub(crate) use parking_lot::{Mutex, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
