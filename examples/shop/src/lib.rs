//! The shop as code: which services there are, how one process runs them all, and the
//! journey that shows that they work together.
//!
//! In this process each service has its own settings, database, admin port and metrics, as
//! if it were alone; they find each other by the in-process registry and share one embedded
//! broker. Nothing of a service knows about this: the same code runs as a binary of its own.

pub mod cli;
pub mod load;
pub mod operate;
pub mod services;
pub mod smoke;
pub mod terminal;
pub mod up;
