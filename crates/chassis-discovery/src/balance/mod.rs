//! Which endpoint gets the next call.
//!
//! Two endpoints are drawn by chance and the less loaded one is taken: "power of
//! two choices", which keeps the longest queue almost as short as asking all of
//! them would, without the herd that runs to the one best endpoint (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", 2001). Load is the
//! calls under way times an average of the latency that remembers peaks
//! (Finagle's peak EWMA), by weight. A failed call counts as a slow one: an
//! endpoint that fails fast looks idle, and without the penalty it would attract
//! all traffic. Who is not picked for long gets a trial call now and then
//! (`load`), and the way back is short for who passes it.
//!
//! Each endpoint has its own circuit breaker. An open one is not a failed call
//! but a reason to draw again; only when every circuit is open the call fails,
//! at once, and says when to come back. How many may be walked past is bounded
//! (`health`).
//!
//! An endpoint that no connection can be made to is not there, and needs no circuit
//! to guess it: the first call that notices is told that nothing was sent, no other
//! call goes there, the source is asked for a newer set, and a task tries until a
//! connection is made again (`reach`). When that is so of all of them, a call waits a
//! moment for the first that is back, as long as it has not been so for longer.
//!
//! Endpoints of the own zone are preferred until they are full (`pick`). Of a
//! large set a client can use a part (`subset`). A call that has a key goes to
//! the endpoint that owns the key, if that can take it (`ring`).
//!
//! There is no background task: the newest set of endpoints is looked at with
//! each call. An endpoint that leaves the set gets no new calls; those that are
//! under way keep their clone of the service and end in their own time.
//!
//! Read in this order: `load`, `pick`, `health`, `node`, `reach`, `pool`, `service`; then
//! `subset`, `ring` and `affinity`.

mod affinity;
mod error;
mod hash;
pub(crate) mod health;
mod load;
mod metrics;
pub(crate) mod node;
mod pick;
pub(crate) mod pool;
mod reach;
mod ring;
mod service;
mod settings;
mod subset;

pub use affinity::Affinity;
pub use error::{AllOpen, NoEndpoints, Unreachable, provably_not_sent};
pub use service::{Balance, ResponseFuture};
pub use settings::BalanceSettings;
