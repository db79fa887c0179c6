//! Writes the generated pages: `cargo xtask docs --reference`.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = chassis_reference::root();
    let written = chassis_reference::pages(&root).and_then(|pages| {
        for (path, text) in pages {
            let path = root.join("docs/src").join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(&root))?;
            std::fs::write(path, text)?;
        }
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "reference: {error}");
            ExitCode::FAILURE
        }
    }
}
