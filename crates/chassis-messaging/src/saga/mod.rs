//! Work over several services that is finished or undone.
//!
//! No transaction spans two services. A saga replaces it by a table of steps:
//! each can be undone until the pivot, and after it the rest is done whatever it
//! takes. State, log and outgoing messages live in the service's own database, so
//! a crash at any point goes on from the last transition that was written.
//!
//! | in the table | runs | when it fails |
//! |---|---|---|
//! | `step(name, do, undo)` | outside a transaction, at least once, with an idempotency key | tried again if that may help, then everything done is undone |
//! | `action(name, do)` | the same, nothing to undo | the same |
//! | `pivot(name, f)` | in the transaction of the progress, once | the same |
//! | `wait_for(event, timeout)` | until [`Sagas::signal`] | undone; parked if the pivot lies behind |
//! | `local(name, f)` | in the transaction of the progress, once | as a step before the pivot; after it tried again, then parked |
//! | `on_cancelled(f)` | in the transaction that ends an undone saga, once | tried again, then parked |
//!
//! Undoing goes backwards from the step that failed. That step is undone too,
//! unless it provably did nothing: a call that timed out or was under way in a
//! crash may have happened. So an undo must succeed where there is nothing to
//! undo, and must keep a late call from taking effect.
//!
//! A key has one saga per definition at a time. A second start is refused, or waits if the
//! definition [says so](SagaDefinition::second_start_waits). A signal that is early is kept;
//! one that is late or comes twice changes nothing; and one whose transaction is open while
//! the saga starts is not missed: of the two transactions one waits for the other. Several
//! runners share the work by a lease on each instance. An instance of a version that is not
//! known here is parked with that reason, one of a newer version is left to a newer process.
//!
//! What this does not do: others see the steps before the saga has ended. Give
//! what is in the making a state that says so (a semantic lock).
//!
//! A person can look and step in: [`Sagas::show`] says where a saga is, why it waits and
//! what each step changed in its data, [`Sagas::diagram`] draws it, and
//! [`Sagas::retry`], [`Sagas::skip`] and [`Sagas::compensate`] move it. A running service
//! offers the same at its admin port as `sagas/<definition>/…`.
//!
//! Read in this order: `progress` (the transition table), `moves` (what an operator may do),
//! `definition`, `handle` (what a service holds), `operator`, `runner`, `turn` and `settle`
//! (the doing), `instance`, `store`, `queue`, `inspect` and `schema` (the SQL), `view`,
//! `changes`, `mermaid`, `metrics`, `operations`.

mod changes;
mod definition;
mod handle;
mod handler;
mod inspect;
mod instance;
mod mermaid;
mod metrics;
mod moves;
mod operations;
mod operator;
mod progress;
mod queue;
mod runner;
mod schema;
mod settings;
mod settle;
mod store;
mod turn;
mod view;

pub use changes::SagaChanges;
pub use definition::{Failure, SagaDefinition, SagaId, StepInfo};
pub use handle::Sagas;
pub use handler::{CancelStep, TxStep};
pub use instance::SagaLogLine;
pub use progress::SagaState;
pub use runner::SagaRunner;
pub use settings::SagaConfig;
pub use view::SagaView;
