//! TLS: which files, and what is made of them.
//!
//! The files are looked at now and then, and taken in when they changed: a certificate is
//! renewed without a restart. What cannot be used is said and left; the one before it stays.
//! Only with the feature `tls`; without it, settings that ask for TLS are refused.

mod config;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod reload;
#[cfg(not(feature = "tls"))]
mod without;

pub use config::ServerTlsConfig;
#[cfg(feature = "tls")]
pub use reload::Tls;
#[cfg(not(feature = "tls"))]
pub use without::Tls;
