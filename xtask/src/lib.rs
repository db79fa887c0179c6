//! The project's own commands: test, tidy.
