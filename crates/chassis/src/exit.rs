//! How a process ends, as the shell and the orchestrator see it.

use std::process::{ExitCode, Termination};

/// The exit code of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did its work and stopped when it was told to: 0.
    Success,
    /// It could not start, or a component failed: 1.
    Failure,
    /// Wrong options or settings; starting it again cannot help: 64, `EX_USAGE` of
    /// `sysexits.h`.
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 64,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
