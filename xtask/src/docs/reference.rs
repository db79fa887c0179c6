//! Writes the pages of the reference that are made from the code.
//!
//! They are made by a program of their own, `docs/reference`, because it has to link the
//! crates that it describes, and this one should stay quick to build.

use std::path::Path;

use super::run_command;
use crate::process::Runner;
use crate::test::Failure;

/// Writes them below `docs/src/reference`.
pub(super) fn write(root: &Path, runner: &mut Runner) -> Result<(), Failure> {
    let mut command = crate::process::cargo();
    command.current_dir(root).args(["run", "--quiet", "-p", "chassis-reference"]);
    run_command(&mut command, runner)
}
