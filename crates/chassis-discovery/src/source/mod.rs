//! What every resolver over a network does, whatever it asks.
//!
//! One task per target, shared by all who watch it; a pause after a failure that
//! grows and is never the same for two processes; the last good set while the
//! source is away, and some time longer ([`LastGood`]). What is left to a
//! backend is one function: follow a target until something goes wrong.

#[cfg(feature = "registry")]
mod follow;
#[cfg(feature = "registry")]
mod last_good;
#[cfg(feature = "registry")]
mod name;
#[cfg(feature = "registry")]
mod sink;
mod watched;

#[cfg(feature = "registry")]
pub(crate) use self::follow::{Following, Source};
#[cfg(feature = "registry")]
pub(crate) use self::name::check_name;
#[cfg(feature = "registry")]
pub(crate) use self::sink::Sink;
pub(crate) use self::watched::Watched;
