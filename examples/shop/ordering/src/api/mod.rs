//! The two protocols: parse, call the use case, map the answer; no decisions.

pub mod grpc;
pub mod http;
