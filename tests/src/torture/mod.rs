//! A service under load and faults, and an auditor that says whether anything was lost.
//!
//! What a message system promises shows only when things break, and a test written by
//! whoever wrote the code tends to look where it already holds. So there are two parts
//! that know nothing of each other but the tables: a **workload**, an ordinary service
//! that writes down in its own transactions what it said and what took effect, and an
//! **auditor**, which reads those tables and the broker's messages by connections of its
//! own, uses none of the chassis, and compares.
//!
//! | module | what it holds |
//! |---|---|
//! | [`schema`] | the tables, which both know |
//! | [`events`] | what the service says |
//! | [`work`] | one business transaction each: a change, a poison message, a purchase |
//! | [`handlers`] | what takes effect, and how it is written down |
//! | [`purchase`] | the saga that moves stock and money |
//! | [`troubles`] | what goes wrong in its steps and replies |
//! | [`service`] | the parts as an app |
//! | [`load`] | work at a rate, from a seed, as the runner asks for it |
//! | [`evidence`] | what the auditor knows |
//! | [`audit`] | what follows from it: the invariants, without I/O |
//! | [`auditor`] | how the evidence is gathered |

pub mod audit;
pub mod auditor;
pub mod events;
pub mod evidence;
pub mod handlers;
pub mod load;
pub mod purchase;
pub mod schema;
pub mod service;
pub mod troubles;
pub mod work;

pub use audit::{Report, Violation};
pub use auditor::{Auditor, Source};
pub use evidence::{Evidence, Expected};
