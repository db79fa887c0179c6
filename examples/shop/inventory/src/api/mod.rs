//! The edge: parse, call, map. No decisions.

pub mod grpc;
