//! The shop as one process.
