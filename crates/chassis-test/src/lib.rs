//! Test helpers: servers, fault proxy, bounded waits, captured logs.
