//! What tests of a distributed system need and a unit test does not: bounded waits, real
//! servers on free ports, and a network that fails on demand.
//!
//! A development dependency only; nothing here belongs in a service. The helpers panic
//! instead of returning errors, because a test has nobody to hand an error to, and each
//! panic says what to do about it.
//!
//! Read in this order:
//!
//! 1. [`eventually`](mod@eventually): wait for a condition, never for a time.
//! 2. [`servers`]: PostgreSQL, NATS and etcd, given by the environment or started here.
//! 3. [`fault_proxy`]: cuts, delays and stalls between a client and a server.
//! 4. [`BlackHole`]: an address that never answers.
//! 5. [`captured_logs`]: what was logged, as data.
//! 6. [`figures`]: what programs that measure have in common.
//! 7. With the feature `openapi`, `assert_openapi_equals_routes`: no route is undocumented.

mod black_hole;
pub mod captured_logs;
pub mod eventually;
pub mod fault_proxy;
pub mod figures;
#[cfg(feature = "openapi")]
mod openapi;
pub mod servers;

pub use black_hole::BlackHole;
pub use captured_logs::CapturedLogs;
pub use eventually::eventually;
pub use fault_proxy::{Direction, FaultProxy};
#[cfg(feature = "openapi")]
pub use openapi::assert_openapi_equals_routes;
