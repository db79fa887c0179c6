//! The facade that a service depends on: run, service!, prelude.
