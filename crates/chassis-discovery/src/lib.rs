//! Who runs where, and which one to call.
