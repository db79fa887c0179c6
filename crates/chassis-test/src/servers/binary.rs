//! Finds the program of a server.
//!
//! `PATH` first; then where Debian puts PostgreSQL, which it keeps out of `PATH` so that
//! several versions can live side by side.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The program, or a panic with the line that installs it.
pub(super) fn find(program: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join(program));
    in_path.chain(debian_postgres(program)).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("`{program}` is not installed; on Debian or Ubuntu: apt-get install -y {package}")
    })
}

/// The program in every installed PostgreSQL, newest version first.
fn debian_postgres(program: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut versions: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| std::cmp::Reverse(version(path)));
    versions.into_iter().map(|path| path.join("bin").join(program)).collect()
}

fn version(folder: &Path) -> u32 {
    folder.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default()
}
