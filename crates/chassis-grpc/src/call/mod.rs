//! What the two sides of a call have in common: how it is named, how its end is
//! read, and what is written down about it.

pub(crate) mod body;
pub(crate) mod compression;
pub(crate) mod framing;
#[cfg(feature = "compression")]
mod gzip;
pub(crate) mod method;
pub(crate) mod outcome;
pub(crate) mod record;
pub(crate) mod streams;
