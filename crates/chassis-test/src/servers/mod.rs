//! PostgreSQL, NATS and etcd for tests: given by the environment, or started here.
//!
//! `DATABASE_URL` and `NATS_URL` win, so that a pipeline can bring its own servers; etcd is
//! always started, since the tests that need it also stop it. Else the
//! installed binary is started on a free port with its data in a temporary folder. A missing
//! binary is a panic that names the line which installs it: a test that skips itself proves
//! nothing.
//!
//! A server is shared best per test binary: [`Postgres::shared`] and [`Nats::shared`]. A test
//! that stops its server starts one of its own.
//!
//! These wait on the real clock, so a test with a paused clock cannot start a server.

mod binary;
mod etcd;
mod nats;
mod port;
mod postgres;
mod supervisor;

pub use etcd::Etcd;
pub use nats::Nats;
pub use postgres::Postgres;
