//! Endpoints from DNS: A, AAAA and SRV records, refreshed as their TTL says.
//!
//! The one registry that every platform already has. A lookup that fails or
//! finds nothing changes nothing: an address that was good a minute ago is a
//! better guess than no address, and a dead one is found out by its circuit
//! breaker. The TTL has a floor, so that a zone with TTL 0 does not make a
//! query loop, and a ceiling, so that a zone with a day-long TTL still moves. A
//! client that cannot reach one of the addresses has DNS asked at once, though not
//! more often than the floor allows: Docker's DNS gives a TTL of ten minutes to the
//! address of a container that may be gone in one.

mod location;
mod refresh;
mod resolver;

pub(crate) use location::Location;
pub use resolver::Dns;
