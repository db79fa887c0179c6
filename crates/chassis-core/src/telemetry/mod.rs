//! Logs, and spans that leave the process.
