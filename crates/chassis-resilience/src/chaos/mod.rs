//! Chaos: faults on purpose, to see whether the rest of the stack does what it promises.
//!
//! Delays, errors, lost calls and calls that arrive twice are put into named targets (a client, a
//! route) while the process runs. It is off and refuses every rule unless the configuration
//! enables it, because a fault injector that can be reached in production is one more thing that
//! can break it. Each rule ends by itself after a time.
//!
//! [`Chaos`] is the handle to set, clear and list rules, for whoever has the door to it; the
//! layer stands next to the call, inside everything that should notice. While there are no rules
//! a call costs one atomic read.

mod error;
mod handle;
mod layer;
mod rules;
mod service;

pub use error::{ChaosRefused, Injected};
pub use handle::Chaos;
pub use layer::ChaosLayer;
pub use rules::{Fault, ListedRule, Rule};
pub use service::{ChaosService, ResponseFuture};
