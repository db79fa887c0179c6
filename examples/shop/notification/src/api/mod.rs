//! The protocol: parse, call the use case, map the answer; no decisions.

pub mod http;
