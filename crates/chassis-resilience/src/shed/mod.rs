//! Load shed: when there is too much, answer the important part in time instead of all too late.
//!
//! A server that takes every request at three times its capacity answers each one after its
//! caller has left: it works at full speed and is worth nothing. The shedder refuses what
//! there is no room for, at once and before any work, so that what it lets in is answered in
//! time. Two measurements say how much room there is: the [adaptive limit](crate::adaptive) on
//! requests under way, and, if [`Shedder::watch_queue`] runs, how long a task of this process
//! waits for a processor.
//!
//! What is refused first is for a [`Priority`] to say: each one may use a share of the limit,
//! so that the rest stays free for those above it. Health checks and the admin port are exempt:
//! they are what tells that the process lives, and refusing them turns overload into a
//! restart.
//!
//! The references are go-zero's adaptive shedder, which divides its limit by the processor's
//! load, and CoDel (Kathleen Nichols and Van Jacobson, RFC 8289) for what a queue that does
//! not drain is.

mod delay;
mod error;
mod handle;
mod layer;
mod priority;

pub use error::Shed;
pub use handle::{ShedSettings, ShedStats, Shedder};
pub use layer::{ByPriority, LoadShedLayer, LoadShedService};
pub use priority::Priority;
