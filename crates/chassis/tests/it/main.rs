//! What the facade promises beyond its parts.

mod messages;
mod parity;
