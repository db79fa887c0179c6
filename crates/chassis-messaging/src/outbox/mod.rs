//! Events in the business transaction, and the relay that publishes them.
//!
//! A service that commits and then publishes may die in between; one that
//! publishes and then commits may tell of something that never happened. So the
//! transaction only inserts a row ([`Outbox::append`]): no broker call, and no
//! `NOTIFY`, which would put all commits in one line. The [`Relay`] publishes the
//! row afterwards, again and again until the broker has it.
//!
//! What holds:
//!
//! - A committed row is published at least once; one that was rolled back never.
//! - Rows of one key are published in the order of their appends, one
//!   unacknowledged at a time, also with several relays and across failures.
//!   Keys do not wait for each other.
//! - A row that the broker refuses blocks its key, is tried again with growing
//!   pauses, and is parked with the reason after a number of tries; then the key
//!   goes on without it.
//! - A broker that does not answer costs no tries: everything waits for it.
//! - Pending rows are found by their state, not by a cursor, so a row that
//!   commits late is not skipped.
//! - A row may be appended for later ([`Outbox::append_after`]). It is as durable as any
//!   other, is published when it is due, holds back nothing of its key until then, and
//!   takes its place in it only then. Until then it can be listed and cancelled.
//! - An event that is to be handled [in turn](crate::Event::IN_TURN) says which one of its
//!   key comes before it.
//! - Published rows stay for a while, for [`Outbox::replay`]. A broker that lost what
//!   it had acknowledged is found out, and gets it again ([`OnLoss`]).
//!
//! When a duplicate is seen: a relay dies between the broker's acknowledgement
//! and its mark, or is paused past its lease while a publish is under way, or the
//! PostgreSQL server dies within the half second after a mark, whose commit does
//! not wait for the disk. The id is the same each time; brokers drop it within their
//! window, an [inbox](crate::inbox) for as long as it remembers.
//!
//! How a relay learns of a commit: in the same process at once, from another one by
//! a ping that gathers all commits of some milliseconds (PostgreSQL), and by a poll
//! where both fail.
//!
//! Read in this order: `handle` (what a service holds), `lanes` (what may be sent
//! next), `lease` (how relays share), `worker` and `jobs` (the doing), `flight` (one
//! publish), `delayed` (what is published later), `turns` (which comes before which), `wake` and `ping` (who is told), `table`,
//! `statements`, `own` and `schema` (the SQL), `losses`, `checkpoints`, `pause` and `replay`
//! (a broker that lost something), `operations` (what an operator may ask).

mod checkpoints;
mod clock;
mod delayed;
mod flight;
mod handle;
mod jobs;
mod lanes;
mod lease;
mod losses;
mod metrics;
mod operations;
mod own;
mod parts;
mod pause;
mod ping;
mod relay;
mod replay;
mod schema;
mod settings;
mod statements;
mod table;
mod turns;
mod wake;
mod worker;

pub(crate) use clock::{DbTime, millis};
pub(crate) use schema::{hash, partition};

pub use clock::Clock;
pub use delayed::Delayed;
pub use handle::{Outbox, Parked};
pub use ping::Pinger;
pub use relay::Relay;
pub use settings::{OnLoss, OutboxConfig};
